"""A GGUF adapter: what llama.cpp's `--lora` and Ollama's `ADAPTER` put on a base's GGUF file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftkit.adapters.continued import adapter_folder
from peftkit.errors import ArtefactError
from peftkit.exporters.adapter_factors import EXACT, brought_whole, layer_factors, lost
from peftkit.exporters.gguf_families import PlannedTensor, family_of, plan_tensors
from peftkit.exporters.gguf_file import plain_name, require_gguf
from peftkit.exporters.low_rank import Factors
from peftkit.exporters.model_folder import load_config, open_model
from peftkit.merging.adapter import OpenedAdapter, open_adapter
from peftkit.merging.folder import model_config
from peftkit.merging.weights_io import open_checkpoint
from peftkit.plugins import Exporter
from peftkit.plugins.exported import Exported, Proof, Trained

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_ROUNDING = {"f32": 1e-6, "f16": 2e-3}
"""Type -> what storing in it may lose of a change, relative (RMS)."""


@dataclass(frozen=True)
class GgufAdapterOptions:
    """Choose how the two matrices of a layer are stored, and what of a change may be lost."""

    outtype: Literal["f32", "f16"] = "f32"
    """Number format of the matrices."""
    max_rank: int = 64
    """Largest rank of a change that is no LoRA's, and is factored by SVD."""
    max_error: float = 0.05
    """Largest loss of an adapter that is factored, relative to its whole change (RMS)."""


class GgufAdapter(Exporter):
    """Write a LoRA that llama.cpp applies to the base's own GGUF file, or an Ollama model to it."""

    Config = GgufAdapterOptions
    reads = "adapter"

    def export(self, trained: Trained, out: Path) -> Exported:
        """Write `NAME-lora-OUTTYPE.gguf`, read it back, and hold it against the trained change."""
        require_gguf()
        folder, base = adapter_folder(trained.folder), Path(trained.base or "")
        opened = open_adapter(folder, open_checkpoint(base), model_config=model_config(base))
        config = load_config(base)
        model = open_model(base)
        homes = {tensor.source: tensor for tensor in plan_tensors(model, config)}
        _check(opened, homes, is_tied=bool(config.tie_word_embeddings))
        layers = {
            name: layer_factors(opened, name, self.config.max_rank) for name in opened.changes
        }
        file = out / f"{plain_name(trained.name)}-lora-{self.config.outtype}.gguf"
        placed = [(homes[name], layer.factors) for name, layer in layers.items()]
        with closing(_begin(file, family_of(model).arch, trained.name)) as writer:
            _write(writer, placed, self.config.outtype)
        is_lossy = any(layer.is_factored for layer in layers.values())
        rounding = _ROUNDING[self.config.outtype]
        proofs = (
            lost([*layers.values()], self.config.max_error if is_lossy else EXACT),
            _compare(file, opened, homes, self.config.max_error if is_lossy else rounding),
        )
        return Exported((file,), proofs, tuple(_notes(file)))


def _check(opened: OpenedAdapter, homes: Mapping[str, PlannedTensor], *, is_tied: bool) -> None:
    """Refuse what a GGUF adapter cannot say, all at once.

    Raises:
        ArtefactError: names every tensor that would be left out.
    """
    wrong = [f"{name} is brought whole, not as a change" for name in brought_whole(opened)]
    for name in opened.changes:
        if len(opened.base.tensors[name].shape) != 2:
            wrong.append(f"{name} is no matrix")
        elif name not in homes:
            wrong.append(f"{name} is not in the base's file")
        elif is_tied and homes[name].name == "token_embd.weight":
            wrong.append(f"{name} is the output matrix too, where the file would not change it")
    if not opened.changes:
        wrong.append("no layer's weight is changed")
    if wrong:
        raise ArtefactError(
            f"{opened.folder}: a GGUF adapter cannot say this\n  " + "\n  ".join(wrong),
            hint="peftkit export RUN --to gguf, which writes the merged model",
        )


def _begin(file: Path, arch: str, name: str) -> Any:
    """Open a file, and say what it is."""
    import gguf

    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[arch]])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    return writer


def _write(writer: Any, placed: Sequence[tuple[PlannedTensor, Factors]], outtype: str) -> None:
    """Write the matrices. Source: what llama.cpp's loader asks for (`src/llama-adapter.cpp`)."""
    import gguf

    rank = max(factors.rank for _, factors in placed)
    # The loader scales by alpha / rank; what PEFT scales by stands in the matrices.
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))
    for home, factors in placed:
        first, second = _matrices(_laid_out(factors, home), home, rank)
        writer.add_tensor(f"{home.name}.lora_a", _numbers(first, outtype))
        writer.add_tensor(f"{home.name}.lora_b", _numbers(second, outtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()


def _laid_out(factors: Factors, home: PlannedTensor) -> Factors:
    """Return factors of the change as the file lays the weight out."""
    if home.is_transposed:
        return Factors(factors.left.T.contiguous(), factors.right.T.contiguous())
    return Factors(factors.right, home.transform(factors.left))  # rows change places, if anything


def _matrices(factors: Factors, home: PlannedTensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return `lora_a` and `lora_b`; of an embedding, whose rows are looked up, the other way."""
    padded = factors.padded(rank)
    if home.name == "token_embd.weight":
        return padded.left, padded.right.T
    return padded.right, padded.left


def _numbers(tensor: Tensor, outtype: str) -> np.ndarray[Any, Any]:
    import torch

    dtype = torch.float16 if outtype == "f16" else torch.float32
    array: np.ndarray[Any, Any] = tensor.to(dtype).contiguous().numpy()
    return array


def _compare(
    file: Path, opened: OpenedAdapter, homes: Mapping[str, PlannedTensor], tolerance: float
) -> Proof:
    """Read the file back, and hold each layer's product against the change in the file's layout."""
    import gguf
    import torch

    reader = gguf.GGUFReader(file)
    read = {tensor.name: torch.tensor(tensor.data).double() for tensor in reader.tensors}
    wrong = whole = 0.0
    for source in opened.changes:
        home = homes[source]
        first, second = (read.pop(f"{home.name}.lora_{part}") for part in "ab")
        is_embedding = home.name == "token_embd.weight"
        found = first @ second.T if is_embedding else second @ first
        wanted = home.transform(torch.from_numpy(opened.delta(source))).double()
        wrong += float(((found - wanted) ** 2).sum())
        whole += float((wanted**2).sum())
    measured = (wrong / whole) ** 0.5 if whole and not read else float("inf")
    detail = f"of the change of {len(opened.changes)} layers, read back from the file (RMS)"
    return Proof("file", measured, tolerance, detail)


def _notes(file: Path) -> Iterator[str]:
    yield f"llama-server -m BASE.gguf --lora {file.name}, with the base that it was trained on"
    yield (
        f"Ollama: a Modelfile with FROM ./BASE.gguf and ADAPTER ./{file.name}; template and stop"
        " words are the base's unless the Modelfile says them"
    )
