"""bitsandbytes: LLM.int8 (arXiv 2208.07339), and 4-bit weights as QLoRA has them (2305.14314)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftkit.errors import UsageError
from peftkit.plugins.machine import Chosen
from peftkit.plugins.quantizer import Conflict, Quantizer, Storage

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_FLOATING = ("float32", "bfloat16", "float16", "float64")
_NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
_REPLICATED = (
    "every device holds the whole 4-bit base: accelerate shards it only where"
    " bnb_4bit_quant_storage is the dtype that it is computed in"
)


class BitsAndBytes(Quantizer):
    """Hold weights in 4 bits (nf4, fp4) or 8 (LLM.int8); also on a CPU."""

    Config = "transformers:BitsAndBytesConfig"
    keeps_modules = "llm_int8_skip_modules"

    def __init__(self, config: Any) -> None:
        if not (config.load_in_4bit or config.load_in_8bit):
            raise UsageError(
                "model.quantize.bitsandbytes asks for neither 4 nor 8 bits",
                hint="add load_in_4bit: true, or load_in_8bit: true",
            )
        super().__init__(config)

    @classmethod
    def decide(
        cls, options: Mapping[str, Any], *, dtype: str, kept_modules: Sequence[str]
    ) -> Sequence[Chosen]:
        """Choose QLoRA's 4-bit numbers too, computed in the dtype of everything around them."""
        heads = super().decide(options, dtype=dtype, kept_modules=kept_modules)
        if options.get("load_in_4bit") is not True:
            return heads
        nf4 = "made for normally distributed weights; bitsandbytes' default is fp4"
        why = f"the model is {dtype}" if dtype != "auto" else "the model's dtype is not known yet"
        computed = "bfloat16" if dtype == "auto" else dtype
        default = "bitsandbytes' default computes in float32"
        return (
            *heads,
            Chosen("bnb_4bit_quant_type", "nf4", nf4),
            Chosen("bnb_4bit_compute_dtype", computed, f"{why}; {default}"),
        )

    @classmethod
    def lora_layers(cls) -> Mapping[type, type]:
        """Name PEFT's layers over both kinds of packed weights."""
        from peft.import_utils import is_bnb_4bit_available, is_bnb_available

        if not (is_bnb_available() and is_bnb_4bit_available()):
            return {}
        import bitsandbytes
        from peft.tuners.lora.bnb import Linear4bit, Linear8bitLt

        packed = bitsandbytes.nn
        return {packed.Linear8bitLt: Linear8bitLt, packed.Linear4bit: Linear4bit}

    @classmethod
    def conflicts(cls, options: Mapping[str, Any]) -> Sequence[Conflict]:
        """Name what is asked for beside no bits, or beside the other number of them."""
        is_4bit, is_8bit = options.get("load_in_4bit") is True, options.get("load_in_8bit") is True
        if not is_4bit and not is_8bit:
            return [("", "quantizes nothing", "write load_in_4bit: true, or load_in_8bit: true")]
        found: list[Conflict] = []
        if is_4bit and is_8bit:
            found.append(("load_in_8bit", "contradicts load_in_4bit", "keep one of the two"))
        for name in options:
            if name.startswith("bnb_4bit_") and not is_4bit:
                found.append((name, "is used with load_in_4bit only", "write load_in_4bit: true"))
            if name in ("llm_int8_threshold", "llm_int8_has_fp16_weight") and not is_8bit:
                found.append((name, "is used with load_in_8bit only", "delete it"))
        return found

    @classmethod
    def compute_dtype(cls, options: Mapping[str, Any], *, dtype: str) -> str:
        """Return what 4-bit weights are computed in, which is float32 where that is null."""
        if options.get("load_in_4bit") is not True:
            return dtype
        return str(options.get("bnb_4bit_compute_dtype") or "float32")

    @classmethod
    def proposals(cls, *, dtype: str) -> Sequence[Mapping[str, Any]]:
        """Return what QLoRA holds a base in: 4.127 bits a weight, in the model's dtype.

        Source: arXiv 2305.14314, section 3.
        """
        computed = "bfloat16" if dtype == "auto" else dtype
        return [{**_NF4, "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": computed}]

    @classmethod
    def trials(cls) -> Mapping[str, Mapping[str, Any]]:
        """Try every number format."""
        return {
            "nf4": _NF4,
            "nf4, double": {**_NF4, "bnb_4bit_use_double_quant": True},
            "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
            "int8": {"load_in_8bit": True},
        }

    @property
    def bits(self) -> int:
        """Return 4 or 8."""
        return 4 if self.config.load_in_4bit else 8

    @property
    def after_loading(self) -> str:
        """Return what `prepare` does, where there is 4-bit and a CPU could repack."""
        if not self.config.load_in_4bit:
            return ""
        return (
            "for module in base.modules():  # some CPUs would repack the weights, and differ\n"
            '    if hasattr(module, "support_avx512bf16_for_cpu"):\n'
            "        module.support_avx512bf16_for_cpu = False\n"
        )

    @property
    def storage(self) -> Storage:
        """Return how both kinds are packed."""
        from peftkit.quantizers.bitsandbytes_storage import BitsAndBytesStorage

        return BitsAndBytesStorage(self)

    def prepare(self, model: PreTrainedModel) -> None:
        """Hold 4-bit weights on the CPU in the layout they are stored in, which has gradients.

        Where the processor has AVX512-BF16, bitsandbytes repacks a weight at its first forward in
        evaluation mode, and from then on multiplies by it with an operator that has no backward:
        training after any evaluation would go on with gradients cut (0.50.2,
        `autograd.matmul_4bit`). The repacking also wants rows in multiples of 32 and columns in
        whole blocks, and its outputs differ from those of training by up to 4e-2. Delete this when
        `matmul_4bit` unpacks.
        """
        from bitsandbytes.nn import Linear4bit

        for module in model.modules():
            if isinstance(module, Linear4bit):
                module.support_avx512bf16_for_cpu = False

    def num_weights(self, parameter: torch.Tensor) -> int:
        """Return two for each byte of packed 4-bit numbers; the storage may be wider than one."""
        from bitsandbytes.nn import Params4bit

        packs = 2 * parameter.element_size() if isinstance(parameter, Params4bit) else 1
        return parameter.numel() * packs

    def there_and_back(self, weight: torch.Tensor) -> torch.Tensor:
        """Quantize a matrix as loading does, and dequantize it."""
        from bitsandbytes import functional

        back: torch.Tensor
        if self.config.load_in_4bit:
            packed, state = functional.quantize_4bit(
                weight,
                compress_statistics=self.config.bnb_4bit_use_double_quant,
                quant_type=self.config.bnb_4bit_quant_type,
            )
            back = functional.dequantize_4bit(packed, state)
        else:
            rows, scales, _ = functional.int8_vectorwise_quant(weight.half())
            back = functional.int8_vectorwise_dequant(rows, scales)
        return back

    def replicated(self, computed: str | None) -> str | None:
        """Say when 4-bit weights are cut: only where their storage looks like a weight.

        Source: accelerate 1.15, `fsdp2_prepare_model`: `Params4bit` that are not of a floating
        dtype are left out of the shards; of int8 weights it knows nothing.
        """
        if not self.config.load_in_4bit:
            raise UsageError(
                "FSDP2 cannot shard this quantized base: of bitsandbytes' weights accelerate"
                " handles those of 4 bits only",
                hint="model.quantize.bitsandbytes.load_in_4bit, or DDP: delete fsdp",
            )
        storage = str(self.config.bnb_4bit_quant_storage).removeprefix("torch.")
        if storage not in _FLOATING:
            return _REPLICATED
        if computed not in (None, storage):
            raise UsageError(
                f"bnb_4bit_quant_storage {storage} would be cast to {computed} as it is gathered,"
                " which destroys the packed weights",
                hint=f"model.quantize.bitsandbytes.bnb_4bit_quant_storage={computed}",
            )
        return None
