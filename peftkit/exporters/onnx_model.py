"""ONNX: a graph that onnxruntime runs, with the cache that generation needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.errors import ResourceError
from peftkit.exporters.model_folder import copy_companions, load_model, load_tokenizer
from peftkit.exporters.onnx_graph import Graph, is_decoder, write_decoder, write_encoder
from peftkit.models.logit_parity import Difference, compare, head_outputs, token_rows
from peftkit.plugins import Exporter
from peftkit.plugins.exported import Exported, Proof, Trained

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel

    Array = NDArray[np.generic]

_TOLERANCE = 1e-4
"""Relative (RMS): both compute in float32, in another order."""


@dataclass(frozen=True)
class OnnxOptions:
    """Take no option: the graph computes in float32, whatever the weights' dtype was."""


class Onnx(Exporter):
    """Write model.onnx, with tokenizer and configuration beside it."""

    Config = OnnxOptions
    reads = "model"

    def export(self, trained: Trained, out: Path) -> Exported:
        """Trace the model, run the graph in onnxruntime, with and without its cache."""
        _require_onnx()
        tokenizer = load_tokenizer(trained.folder)
        model = load_model(trained.folder, dtype="float32", attn_implementation="eager")
        copy_companions(trained.folder, out)
        file = out / "model.onnx"
        decodes = is_decoder(model)
        graph = write_decoder(model, file) if decodes else write_encoder(model, file)
        size = model.get_input_embeddings().num_embeddings
        rows = token_rows(tokenizer, trained.texts, vocab_size=size)
        runner = Runner(file, graph)
        if decodes:
            proofs = _prove_decoder(model, runner, rows)
        else:
            wanted = [values for row in rows for values in head_outputs(model, row)]
            found = [values for row in rows for values in runner.whole(row)]
            proofs = [_proof("logits", compare(wanted, found))]
        return Exported(tuple(sorted(out.iterdir())), tuple(proofs))


class Runner:
    """Run a graph in onnxruntime on the CPU."""

    def __init__(self, file: Path, graph: Graph) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors: it warns of every initializer it folds away
        self.graph = graph
        self._session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        self._takes = {value.name for value in self._session.get_inputs()}

    def run(self, values: dict[str, Array]) -> list[Array]:
        """Return the outputs for named inputs; inputs that the graph dropped are left out."""
        taken = {name: value for name, value in values.items() if name in self._takes}
        found: list[Array] = self._session.run(list(self.graph.outputs), taken)
        return found

    def whole(self, row: Sequence[int]) -> list[Tensor]:
        """Return what an encoder's heads say of one row, without the batch."""
        import numpy as np
        import torch

        ids = np.array([row], dtype=np.int64)
        values: dict[str, Array] = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        found = [torch.from_numpy(output) for output in self.run(values)]
        return [output.reshape(-1, output.shape[-1]) for output in found]

    def step(self, ids: Sequence[int], cache: list[Array]) -> tuple[Tensor, list[Array]]:
        """Return logits [tokens, vocabulary] and the longer cache."""
        import numpy as np
        import torch

        past = cache[0].shape[2]
        values: dict[str, Array] = {
            "input_ids": np.array([ids], dtype=np.int64),
            "attention_mask": np.ones((1, past + len(ids)), dtype=np.int64),
            "position_ids": np.arange(past, past + len(ids), dtype=np.int64)[None],
        }
        values |= dict(zip(self.graph.inputs[3:], cache, strict=True))
        logits, *longer = self.run(values)
        return torch.from_numpy(logits)[0], longer

    def empty_cache(self) -> list[Array]:
        """Return a cache of no tokens."""
        import numpy as np

        heads, size = self.graph.cache_shape
        return [np.zeros((1, heads, 0, size), np.float32)] * (2 * self.graph.num_layers)


def _prove_decoder(
    model: PreTrainedModel, runner: Runner, rows: Sequence[Sequence[int]]
) -> list[Proof]:
    """Compare all tokens at once, then one after the other through the cache."""
    import torch

    wanted = [head_outputs(model, row)[0] for row in rows]
    whole = [runner.step(row, runner.empty_cache())[0] for row in rows]
    cached = []
    for row in rows:
        half = len(row) // 2
        logits, cache = runner.step(row[:half], runner.empty_cache())
        parts = [logits]
        for token in row[half:]:
            logits, cache = runner.step([token], cache)
            parts.append(logits)
        cached.append(torch.cat(parts))
    return [_proof("logits", compare(wanted, whole)), _proof("cache", compare(wanted, cached))]


def _proof(what: str, gap: Difference) -> Proof:
    how = " token by token" if what == "cache" else ""
    detail = f"onnxruntime{how} against transformers, error over logits (RMS): {gap}"
    return Proof(what, gap.relative_rms, _TOLERANCE, detail)


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401 - only whether they are there
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ResourceError(
            f"writing ONNX needs the {error.name} package", hint="pip install 'peftkit[onnx]'"
        ) from None
