"""Quantized checkpoints that plain transformers loads, by bitsandbytes and by torchao."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from peftkit.errors import ArtefactError, ResourceError, UsageError
from peftkit.exporters.model_folder import copy_companions, load_model, load_tokenizer
from peftkit.models.logit_parity import compare, head_outputs, token_rows
from peftkit.plugins import Exporter, find
from peftkit.plugins.exported import Exported, Proof, Trained
from peftkit.system.machine import describe_machine

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from peftkit.plugins.quantizer import Quantizer

_WRITTEN = ("config.json", "generation_config.json")
_TOLERANCES = {8: 0.1, 4: 0.5}
"""Bits a weight -> what the error of the logits may be, relative to the logits (RMS).

Measured on the embedded model: int8 0.004 to 0.008, float8 0.008, nf4 0.024, fp4 0.030; on random
weights, which nothing is robust in, up to 0.05 and 0.23.
"""


class BitsAndBytes(Exporter):
    """Write a bitsandbytes checkpoint; say load_in_8bit or load_in_4bit and its options."""

    Config = "transformers:BitsAndBytesConfig"
    reads = "model"

    def export(self, trained: Trained, out: Path) -> Exported:
        """Quantize, write, load again, and measure both against the model."""
        if not (self.config.load_in_4bit or self.config.load_in_8bit):
            raise UsageError(
                "--to bnb asks for neither 4 nor 8 bits",
                hint="add load_in_8bit=true, or load_in_4bit=true bnb_4bit_quant_type=nf4",
            )
        return write_quantized(trained, out, find("quantizers", "bitsandbytes")(self.config))


@dataclass(frozen=True)
class TorchAoOptions:
    """Choose torchao's quantization, by the name of its configuration class."""

    quant_type: Literal[
        "Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig", "Float8WeightOnlyConfig"
    ]
    """`Int8WeightOnlyConfig`, `Int8DynamicActivationInt8WeightConfig` (activations too) or
    `Float8WeightOnlyConfig`. 4-bit ones need kernels of a GPU."""
    modules_to_not_convert: tuple[str, ...] = ()
    """Names of modules that stay as they are."""


class TorchAo(Exporter):
    """Write a torchao checkpoint."""

    Config = TorchAoOptions
    reads = "model"

    def export(self, trained: Trained, out: Path) -> Exported:
        """Quantize, write, load again, and measure both against the model."""
        try:
            import torchao.quantization
            from transformers import TorchAoConfig
        except ImportError:
            raise ResourceError(
                "writing a torchao checkpoint needs the torchao package",
                hint="pip install 'peftkit[torchao]'",
            ) from None
        quant_type = getattr(torchao.quantization, self.config.quant_type)()
        kept = list(self.config.modules_to_not_convert) or None
        config = TorchAoConfig(quant_type, modules_to_not_convert=kept)
        return write_quantized(trained, out, find("quantizers", "torchao")(config))


def write_quantized(trained: Trained, out: Path, quantizer: Quantizer) -> Exported:
    """Quantize with transformers' own loader, and prove what a loader of the result computes.

    The model is written before it computes anything: a quantization may repack its weights at
    their first use, and would write them in a layout of this processor alone.
    """
    tokenizer = load_tokenizer(trained.folder)
    device = describe_machine().device
    reference = load_model(trained.folder)
    if getattr(reference.config, "quantization_config", None) is not None:
        raise ArtefactError(
            f"{trained.folder} is quantized already", hint="merge with --onto full or dequantized"
        )
    size = reference.get_input_embeddings().num_embeddings
    rows = token_rows(tokenizer, trained.texts, vocab_size=size)
    wanted = _outputs(reference, rows)
    reference = None
    placed = {"device_map": {"": 0 if device in ("cuda", "xpu") else device}}
    model = load_model(trained.folder, quantization_config=quantizer.native, **placed)
    quantizer.prepare(model)
    num_quantized = _check_quantized(model, trained.folder)
    model.save_pretrained(out)
    kept = {name: (out / name).read_bytes() for name in _WRITTEN if (out / name).is_file()}
    copy_companions(trained.folder, out)
    for name, content in kept.items():
        (out / name).write_bytes(content)
    quantized = _outputs(model, rows)
    model = None  # its memory goes before the next one comes
    model = load_model(out, **placed)
    quantizer.prepare(model)
    reloaded = _outputs(model, rows)
    loss, reload = compare(wanted, quantized), compare(quantized, reloaded)
    proofs = (
        Proof(
            "logits", loss.relative_rms, _TOLERANCES[quantizer.bits or 8],
            f"error over logits (RMS) of {num_quantized} quantized layers: {loss}",
        ),
        Proof("reload", reload.max_difference, 0.0, f"loaded again by transformers: {reload}"),
    )  # fmt: skip
    return Exported(tuple(sorted(file for file in out.iterdir())), proofs)


def _check_quantized(model: PreTrainedModel, folder: Path) -> int:
    """Count the layers whose weights are no longer plain; none is a refusal."""
    import torch

    found = sum(
        type(parameter) is not torch.nn.Parameter
        or type(parameter.data) is not torch.Tensor
        or not parameter.is_floating_point()
        for parameter in model.parameters()
    )
    if not found:
        raise ArtefactError(
            f"{folder}: nothing was quantized", hint="leave modules out of fewer names"
        )
    return found


def _outputs(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    return [values for row in rows for values in head_outputs(model, row)]
