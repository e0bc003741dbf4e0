"""Load what was written and compare it with base + adapter, on real rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError
from peftkit.merging.folder import text_config
from peftkit.merging.inputs import Inputs
from peftkit.merging.meta_model import model_class
from peftkit.merging.result import LogitError, Verification
from peftkit.models.finite import check_base_finite
from peftkit.models.load_errors import load_explained
from peftkit.models.logit_parity import head_outputs
from peftkit.plugins.kinds import CAUSAL_LM, kind_of_class
from peftkit.rundir.samples import read_samples, text_of
from peftkit.system.checkpoint_files import read_json
from peftkit.system.quiet import quiet_stack

if TYPE_CHECKING:
    import torch

    from peftkit.plugins.quantizer import Quantizer

_NUM_ROWS = 4
_MAX_TOKENS = 128
_ROUNDING = {"BF16": 2.0**-9, "F16": 2.0**-12}
"""Relative rounding of one weight."""
_HALVES = {"BF16": "bfloat16", "F16": "float16"}
_ROUNDINGS = 8
"""Weights' roundings add up over layers, in random directions: real models stay below 3."""
_FLOAT32 = 1e-4
"""Of the largest logit: what float32 arithmetic in another order may differ by."""


@dataclass(frozen=True)
class Rows:
    """Hold token ids to compare on, and where they come from."""

    ids: tuple[tuple[int, ...], ...]
    origin: str


def verify_merge(
    out: Path,
    inputs: Inputs,
    config: Mapping[str, Any],
    *,
    dtypes: Sequence[str],
    reference: Callable[[], Any] | None = None,
) -> Verification:
    """Compare the logits of what was written with those of base + adapter, both in float32.

    Args:
        config: the base's `config.json`.
        dtypes: of the changed tensors, as safetensors writes them.
        reference: makes the model to compare with; base + adapter when None.

    Raises:
        ArtefactError: the model does not load as it should, takes no token ids, or its logits
            are further off than rounding explains.
    """
    quiet_stack()
    rows = pick_rows(inputs, out, config)
    merged = read_json(out / "config.json")
    model = _load_reference(inputs, merged) if reference is None else reference()
    written = _load_merged(out)
    found = _logits(written, rows)
    proof = _compare(found, _logits(model, rows), rows, dtypes)
    if proof.holds:
        return proof
    alike = _compare(found, _logits(_merged_alike(model, written, dtypes), rows), rows, dtypes)
    if not alike.holds:
        raise ArtefactError(
            f"{out}: its logits differ from base + adapter by up to {proof.max_difference:.4g};"
            f" {proof.tolerance:.4g} would be rounding ({proof.basis})",
            hint="do not use what was written; report this with the adapter's config",
        )
    basis = f"{alike.basis}, against peft's own merge, rounded alike"
    return replace(alike, basis=basis, lost_to_rounding=proof.max_difference)


def _compare(
    found: list[torch.Tensor],
    wanted: list[torch.Tensor],
    rows: Rows,
    dtypes: Sequence[str],
) -> Verification:
    """Compare logits, and say what rounding weights to these dtypes usually explains."""
    found_flat, wanted_flat = (_flat(logits) for logits in (found, wanted))
    difference = (found_flat - wanted_flat).abs()
    largest = float(wanted_flat.abs().max())
    rounding = max((_ROUNDING.get(dtype, 0.0) for dtype in dtypes), default=0.0)
    agreeing = sum(
        int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in zip(found, wanted, strict=True)
    )
    return Verification(
        num_rows=len(rows.ids),
        num_tokens=sum(math.prod(logits.shape[:-1]) for logits in wanted),
        max_difference=float(difference.max()),
        rms_difference=float(difference.square().mean().sqrt()),
        tolerance=largest * max(_FLOAT32, _ROUNDINGS * rounding),
        basis=f"{f'{_ROUNDINGS} roundings of a weight' if rounding else _FLOAT32}"
        f" times the largest logit ({largest:.3g})",
        rows=rows.origin,
        num_agreeing=agreeing,
    )


def _merged_alike(model: Any, written: Any, dtypes: Sequence[str]) -> Any:
    """Let peft merge the reference, and round its weights to what the written ones are stored as.

    Rounding moves the logits by more than usual where an adapter makes weights many times larger,
    as RandLora can: the sums that attention's softmax sees then grow with their square. Merged and
    rounded apart from this package, the same weights give the same logits all the same.
    """
    import torch

    from peftkit.adapters.base import upstream_notices_ignored

    if hasattr(model, "merge_and_unload"):
        with upstream_notices_ignored():
            model = model.double().merge_and_unload()
    stored = dict(written.named_parameters())
    halves = [getattr(torch, _HALVES[dtype]) for dtype in dtypes if dtype in _HALVES]
    for name, parameter in model.float().named_parameters():
        for half in halves:
            if name in stored and torch.equal(stored[name], stored[name].to(half).float()):
                parameter.data = parameter.data.to(half).float()
                break
    return model


def compare_with_quantized(
    out: Path, inputs: Inputs, config: Mapping[str, Any], quantizer: Quantizer | None
) -> LogitError:
    """Measure what was written against the quantized base + adapter that was trained.

    Args:
        quantizer: of training; None where the base is stored quantized.
    """
    from peftkit.adapters.continued import load_adapter
    from peftkit.merging.quantized import load_quantized

    rows = pick_rows(inputs, out, config)
    merged = read_json(out / "config.json")
    base = load_quantized(inputs.base, merged, quantizer, **_labels(merged))
    trained = (
        base if inputs.adapter is None else load_adapter(base, inputs.adapter, is_trainable=False)
    )
    wanted = _flat(_logits(trained, rows))
    is_quantized = "quantization_config" in merged
    model = load_quantized(out, merged, None) if is_quantized else _load_merged(out)
    difference = _flat(_logits(model, rows)) - wanted
    return LogitError(
        float(difference.abs().max()),
        float(difference.square().mean().sqrt()),
        float(wanted.abs().max()),
    )


def pick_rows(inputs: Inputs, out: Path, config: Mapping[str, Any]) -> Rows:
    """Take texts of the run, or of the embedded sample, as the merged tokenizer reads them."""
    texts, origin = _texts(inputs)
    text = text_config(config)
    sizes = [text.get(key) for key in ("vocab_size", "src_vocab_size", "tgt_vocab_size")]  # FSMT's
    vocabulary = min(filter(None, sizes), default=0)
    if not vocabulary:
        raise ArtefactError(
            f"{out} takes no token ids, so its logits cannot be compared", hint="say --no-verify"
        )
    if not (out / "tokenizer.json").is_file():
        ends = config.get("eos_token_id")
        end = (ends,) if isinstance(ends, int) else ()
        made = (
            tuple((7 * row + 3 * place) % vocabulary for place in range(24)) for row in range(4)
        )
        ids = tuple((*(i for i in row if i not in end), *end) for row in made)
        return Rows(ids, "made-up token ids (the base has no tokenizer.json)")
    from tokenizers import Tokenizer

    with load_explained(f"{out}: its tokenizer"):
        tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    positions = config.get("max_position_embeddings") or config.get("n_positions") or _MAX_TOKENS
    limit = min(_MAX_TOKENS, int(positions) - 4)
    whole = (tokenizer.encode(text).ids for text in texts)
    # The last token stays: T5's and BART's classifiers read a text where it ends.
    encoded = (ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]] for ids in whole)
    ids = tuple(tuple(i for i in some if i < vocabulary) for some in encoded)
    return Rows(tuple(some for some in ids if some), origin)


def _texts(inputs: Inputs) -> tuple[list[str], str]:
    """Return a few texts and where they come from."""
    if inputs.run_dir is not None:
        rows = read_samples(inputs.run_dir, _NUM_ROWS)
        texts = [f"{text_of(row, 'prompt')}\n{text_of(row, 'reference')}" for row in rows]
        if texts:
            return texts, f"{inputs.run_dir.samples}"
    from peftkit.embedded import dataset_path

    file = dataset_path("docstring-summaries") / "validation.jsonl"
    with file.open(encoding="utf-8") as stream:
        texts = [" ".join(json.loads(next(stream)).values()) for _ in range(_NUM_ROWS)]
    return texts, "the embedded docstring-summaries, validation"


def _load_reference(inputs: Inputs, merged: Mapping[str, Any]) -> Any:
    """Load the base with the adapter on top, or the whole model that was copied.

    Args:
        merged: the result's configuration, whose class, vocabulary and labels the adapter needs.
    """
    import torch
    from transformers.utils import logging

    from peftkit.adapters.continued import brought_by, load_adapter
    from peftkit.models.load_errors import check_loading_report

    logging.disable_progress_bar()
    adapter = inputs.adapter
    cls = model_class(merged, None, inputs.base)
    keywords = {"dtype": torch.float32, "ignore_mismatched_sizes": True, **_labels(merged)}
    with load_explained(str(inputs.base)):
        base, report = cls.from_pretrained(inputs.base, output_loading_info=True, **keywords)
    brought = brought_by(adapter) if adapter else frozenset()
    report["unexpected_keys"] = ()  # a head, or part of a body, that another class does not use
    kind = kind_of_class(cls.__name__) or CAUSAL_LM
    check_loading_report(base, report, str(inputs.base), kind=kind, brought=brought)
    if adapter is None:
        return base.eval()
    vocabulary = base.config.get_text_config().vocab_size
    wanted = text_config(merged).get("vocab_size", vocabulary)
    if wanted != vocabulary:
        base.resize_token_embeddings(wanted, mean_resizing=False)
    return load_adapter(base, adapter, is_trainable=False)


def _labels(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a loader must know of a classifier's labels."""
    return {"num_labels": len(config["id2label"])} if config.get("id2label") else {}


def _load_merged(out: Path) -> Any:
    """Load what was written with plain transformers, refusing anything missing or left over."""
    import torch
    from transformers.utils import logging

    from peftkit.models.load_errors import check_loading_report

    logging.disable_progress_bar()
    cls = model_class(read_json(out / "config.json"), None, out)
    with load_explained(str(out)):
        model, report = cls.from_pretrained(
            out, dtype=torch.float32, output_loading_info=True, use_safetensors=True
        )
    check_loading_report(model, report, str(out), kind=CAUSAL_LM)
    check_base_finite(model, f"{out}, as it was merged")
    return model.eval()


def _logits(model: Any, rows: Rows) -> list[torch.Tensor]:
    """Run rows one by one; return [positions, width] of each row's every head."""
    return [values for row in rows.ids for values in head_outputs(model, row)]


def _flat(logits: list[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat([some.reshape(-1) for some in logits])
