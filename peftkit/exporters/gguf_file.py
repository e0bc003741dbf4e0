"""GGUF, the format of llama.cpp and of what is built on it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftkit.errors import ArtefactError, ResourceError
from peftkit.exporters.gguf_families import (
    PlannedTensor,
    family_of,
    hyperparameters,
    limits,
    plan_tensors,
    rope_factors,
)
from peftkit.exporters.gguf_readback import FileTokenizer, read_back
from peftkit.exporters.gguf_tokenizer import Vocabulary, read_vocabulary
from peftkit.exporters.model_folder import (
    ModelFolder,
    load_config,
    load_tokenizer,
    open_model,
    stop_ids,
)
from peftkit.models.logit_parity import SENTENCES
from peftkit.plugins import Exporter
from peftkit.plugins.exported import Exported, Proof, Trained
from peftkit.system.templates import render_template

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

OutType = Literal["auto", "f32", "f16", "bf16", "q8_0"]
_FURTHER_ENDS = ("eot", "eom")
"""Where a file has room for what ends an answer besides its `eos`; loaders stop at each."""
_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}
"""`general.file_type`; `gguf.LlamaFileType`."""
_ALWAYS_F32 = ("position_embd.weight", "token_types.weight", "rope_freqs.weight")
_BLOCK = 32
"""Weights that share a scale in Q8_0."""
_GENERATION = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")


@dataclass(frozen=True)
class GgufOptions:
    """Choose how the weights are stored."""

    outtype: OutType = "auto"
    """`f32`, `f16`, `bf16`, `q8_0` (8 bits a weight, a scale for every 32), or `auto`: the
    model's own dtype. Norms, biases and positions are always f32."""


class Gguf(Exporter):
    """Write one GGUF file with the weights, the tokenizer and the chat template."""

    Config = GgufOptions
    reads = "model"

    def export(self, trained: Trained, out: Path) -> Exported:
        """Write `NAME-OUTTYPE.gguf`, read it back, and compare every tensor and the tokenizer."""
        return write_gguf(trained, out, self.config.outtype)


def write_gguf(
    trained: Trained, out: Path, outtype: OutType, *, adds_ends: bool = True, name: str = ""
) -> Exported:
    """Write a model as GGUF and prove it.

    Args:
        adds_ends: False has loaders put no token around a text, for prompts that have them.
        name: of the file; from the model's name and the type when empty.

    Raises:
        ArtefactError: the format cannot express the model.
        ResourceError: the `gguf` package is missing.
    """
    require_gguf()
    model = open_model(trained.folder)
    family = family_of(model)
    config = load_config(trained.folder)
    chosen = _own_type(model, config) if outtype == "auto" else outtype
    parameters = _read_parameters(model, config)
    planned = sorted(plan_tensors(model, config), key=lambda tensor: tensor.name)
    tokenizer = load_tokenizer(trained.folder)
    vocabulary = read_vocabulary(tokenizer, vocab_size=config.vocab_size)
    stops = [index for index in stop_ids(trained.folder, tokenizer) if index < config.vocab_size]
    further = [index for index in stops if index != vocabulary.special_ids.get("eos")]
    vocabulary.special_ids.update(zip(_FURTHER_ENDS, further, strict=False))
    if not adds_ends:
        vocabulary.flags.update(add_bos_token=False, add_eos_token=False)
    file = out / (name or f"{plain_name(trained.name)}-{chosen}.gguf")
    factors = rope_factors(config)
    with closing(_Writer(file, family.arch, chosen)) as writer:
        writer.describe(trained.name, parameters)
        writer.add_vocabulary(vocabulary, tokenizer)
        writer.write(model, planned, factors)
    proofs = [_compare_tensors(file, model, planned, chosen, factors)]
    proofs.append(_compare_tokens(file, tokenizer, trained.texts, adds_ends=adds_ends))
    notes = [*limits(model, config), *vocabulary.notes, *_rounding(config, chosen)]
    if len(further) > len(_FURTHER_ENDS):
        named = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(further[len(_FURTHER_ENDS) :])))
        notes.append(f"the file has no place for the end tokens {named}: give them as stop words")
    if writer.not_quantized:
        notes.append(f"kept as f16, no multiple of 32 wide: {', '.join(writer.not_quantized)}")
    return Exported((file,), tuple(proofs), tuple(notes))


def _read_parameters(model: ModelFolder, config: Any) -> list[tuple[str, Any]]:
    """Collect what the file says of the model's sizes.

    Raises:
        ArtefactError: the configuration states none, or a number that the format has no room for.
    """
    place = model.path / "config.json"
    try:
        found = list(hyperparameters(model, config))
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        if isinstance(error, ArtefactError):
            raise
        raise ArtefactError(f"{place}: a size that GGUF needs is none: {error}") from error
    for what, value in found:
        if isinstance(value, int) and not 0 <= value < 1 << 32:
            raise ArtefactError(f"{place}: GGUF cannot say a {what} of {value}")
    return found


def require_gguf() -> None:
    """Ask for the package that writes GGUF.

    Raises:
        ResourceError: it is missing; says how to install it.
    """
    try:
        import gguf  # noqa: F401 - only whether it is there
    except ImportError:
        raise ResourceError(
            "writing GGUF needs the gguf package", hint="pip install 'peftkit[gguf]'"
        ) from None


def _rounding(config: Any, chosen: OutType) -> list[str]:
    """Say that weights were rounded to a narrower type; Q8_0's error is measured instead."""
    own = str(config.dtype).removeprefix("torch.")
    keeps = {"f32": ("float32", "float16", "bfloat16"), "f16": ("float16",), "bf16": ("bfloat16",)}
    if own in keeps.get(chosen, (own,)):
        return []
    return [f"the weights were {own}; {chosen} rounds them, once"]


def plain_name(name: str) -> str:
    """Return a name as a file may have it."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


def _own_type(model: ModelFolder, config: Any) -> OutType:
    name = str(config.dtype).removeprefix("torch.")
    own: dict[str, OutType] = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
    if name not in own:
        raise ArtefactError(
            f"{model.path / 'config.json'}: dtype {name} says no GGUF type",
            hint="say it: outtype=f32, f16, bf16 or q8_0",
        )
    return own[name]


class _Writer:
    """Write one file: what it is, its vocabulary, then tensor by tensor."""

    def __init__(self, file: Path, arch: str, outtype: OutType) -> None:
        import gguf

        name = gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[arch]]
        self._writer = gguf.GGUFWriter(file, name)
        self.outtype = outtype
        self.not_quantized: list[str] = []

    def describe(self, name: str, parameters: Sequence[tuple[str, Any]]) -> None:
        """Say what the model is and how large."""
        import gguf

        self._writer.add_type(gguf.GGUFType.MODEL)
        self._writer.add_name(name)
        self._writer.add_file_type(_FILE_TYPES[self.outtype])
        self._writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for what, value in parameters:
            getattr(self._writer, f"add_{what}")(value)

    def add_vocabulary(self, vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write the tokenizer and the chat template."""
        self._writer.add_tokenizer_model(vocabulary.model)
        self._writer.add_tokenizer_pre(vocabulary.pre)
        self._writer.add_token_list(vocabulary.tokens)
        self._writer.add_token_types(vocabulary.kinds)
        if vocabulary.scores:
            self._writer.add_token_scores(vocabulary.scores)
        if vocabulary.merges:
            self._writer.add_token_merges([" ".join(pair) for pair in vocabulary.merges])
        for flag, value in vocabulary.flags.items():
            self._writer.add_bool(f"tokenizer.ggml.{flag}", value)
        for name, index in vocabulary.special_ids.items():
            if name == "cls":
                self._writer.add_uint32("tokenizer.ggml.cls_token_id", index)
            else:
                getattr(self._writer, f"add_{name}_token_id")(index)
        if isinstance(tokenizer.chat_template, str):
            self._writer.add_chat_template(without_generation_marks(tokenizer.chat_template))

    def write(
        self, model: ModelFolder, planned: Sequence[PlannedTensor], factors: list[float] | None
    ) -> None:
        """Write the header, then one tensor after the other; no two are in memory."""
        import gguf
        import numpy as np

        extra = [("rope_freqs.weight", np.array(factors, np.float32))] if factors else []
        for name, array in extra:
            self._add(name, array.shape, "f32")
        kinds = [self._add(tensor.name, tensor.shape, self._kind(tensor)) for tensor in planned]
        self._writer.write_header_to_file()
        self._writer.write_kv_data_to_file()
        self._writer.write_ti_data_to_file()
        for _, array in extra:
            self._writer.write_tensor_data(array)
        for tensor, kind in zip(planned, kinds, strict=True):
            value = tensor.transform(model.read(tensor.source))
            self._writer.write_tensor_data(_encode(value, kind, tensor.source, gguf))

    def close(self) -> None:
        """Close the file, whole or not."""
        self._writer.close()

    def _kind(self, tensor: PlannedTensor) -> str:
        is_small = len(tensor.shape) < 2 or tensor.name.endswith("_norm.weight")
        if is_small or tensor.name in _ALWAYS_F32 or not tensor.name.endswith(".weight"):
            return "f32"
        if self.outtype == "q8_0" and tensor.shape[-1] % _BLOCK:
            self.not_quantized.append(tensor.source)
            return "f16"
        return self.outtype

    def _add(self, name: str, shape: tuple[int, ...], kind: str) -> str:
        import gguf
        import numpy as np

        own = gguf.GGMLQuantizationType[kind.upper()]
        size, num_bytes = gguf.GGML_QUANT_SIZES[own]
        total = int(np.prod(shape)) // size * num_bytes
        self._writer.add_tensor_info(name, shape, np.dtype(np.float32), total, raw_dtype=own)
        return kind


def _encode(tensor: Tensor, kind: str, source: str, gguf: Any) -> np.ndarray[Any, Any]:
    """Return a tensor's bytes in one of the file's types, rounded once."""
    import torch

    if kind == "q8_0":
        values = tensor.float().contiguous().numpy()
        quantized: np.ndarray[Any, Any] = gguf.quants.quantize(
            values, gguf.GGMLQuantizationType.Q8_0
        )
        return quantized
    stored = tensor.to(_dtype(kind)).contiguous()
    if kind == "f16" and bool((stored.isinf() & tensor.isfinite()).any()):
        raise ArtefactError(
            f"{source} holds numbers beyond float16's 65504", hint="use outtype=bf16 or f32"
        )
    view: np.ndarray[Any, Any] = (
        stored.view(torch.int16).numpy() if kind == "bf16" else stored.numpy()
    )
    return view


def _dtype(kind: str) -> Any:
    import torch

    return {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]


def without_generation_marks(template: str) -> str:
    """Turn `{% generation %}`, which transformers alone knows, into a condition that holds."""

    def plain(match: re.Match[str]) -> str:
        word = "endif" if match[2] else "if true"
        return f"{{%{match[1]} {word} {match[3]}%}}"

    return _GENERATION.sub(plain, template)


def _compare_tensors(
    file: Path,
    model: ModelFolder,
    planned: Sequence[PlannedTensor],
    outtype: OutType,
    factors: list[float] | None,
) -> Proof:
    """Read every tensor back and compare it with the model's, rounded once to the same type.

    What is measured is the share of the allowed error that the worst element uses: nothing is
    allowed for floating-point types, half a step of its block (and the rounding of the step to
    float16) for Q8_0.
    """
    import gguf
    import torch

    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    wanted = {tensor.name: tensor for tensor in planned}
    names = wanted.keys() | ({"rope_freqs.weight"} if factors else set())
    worst = 0.0 if stored.keys() == names else float("inf")
    for name, tensor in wanted.items():
        if name not in stored:
            continue
        kind = stored[name].tensor_type.name.lower()
        raw = gguf.quants.dequantize(stored[name].data, stored[name].tensor_type)
        found = torch.from_numpy(raw.copy()).reshape(tensor.shape)
        value = tensor.transform(model.read(tensor.source))
        if kind == "q8_0":
            worst = max(worst, _share_of_bound(found, value.float()))
        elif not torch.equal(found, value.to(_dtype(kind)).float()):
            worst = float("inf")
    bound = "within half a step of each block" if outtype == "q8_0" else "bit for bit"
    detail = f"{len(wanted)} tensors read back, {bound} (share of the allowed error)"
    return Proof("tensors", worst, 1.0 if outtype == "q8_0" else 0.0, detail)


def _share_of_bound(found: Tensor, value: Tensor) -> float:
    """Return the worst error of any weight over what Q8_0 may make of it.

    A block's step is its largest weight / 127, stored as float16 (relative error 2^-11, or 2^-25
    absolute below its normal numbers), and each weight is rounded to a multiple of it.
    """
    blocks = value.double().reshape(-1, _BLOCK)
    errors = (found.double().reshape(-1, _BLOCK) - blocks).abs()
    step = blocks.abs().amax(1, keepdim=True) / 127
    stored_step_error = (step * 2.0**-11).clamp(min=2.0**-25)
    bound = step / 2 * (1 + 2.0**-20) + 127 * stored_step_error
    return float((errors / bound).max())


def _compare_tokens(
    file: Path, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, adds_ends: bool
) -> Proof:
    """Tokenize with the file's own vocabulary and with the tokenizer; count what differs."""
    import gguf

    own = FileTokenizer(read_back(gguf.GGUFReader(file)))
    num_tokens = num_different = 0
    for text in _probes(tokenizer, texts):
        wanted = tokenizer(text, add_special_tokens=adds_ends).input_ids
        found = own(text, add_special_tokens=adds_ends)
        num_tokens += len(wanted)
        num_different += sum(a != b for a, b in zip(wanted, found, strict=False))
        num_different += abs(len(wanted) - len(found))
    detail = f"{num_tokens} tokens of text, by the file's vocabulary and by the tokenizer"
    return Proof("tokens", float(num_different), 0.0, detail)


def _probes(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Iterator[str]:
    yield from SENTENCES
    yield from texts
    if isinstance(tokenizer.chat_template, str):
        messages = [{"role": "user", "content": SENTENCES[0]}]
        yield str(render_template(tokenizer, messages, tokenize=False, add_generation_prompt=True))
