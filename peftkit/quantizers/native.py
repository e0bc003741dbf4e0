"""transformers' own quantizations, by its names: one line each.

transformers and the package it names do everything. What a step takes is not known of any of them:
how they pack their weights, and what their kernels allocate, stands in packages of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from peftkit.plugins.quantizer import Quantizer


class NativeQuantizer(Quantizer):
    """Hold a base in fewer bits by one of transformers' own configs."""

    keeps_modules = "modules_to_not_convert"
    says_bits: ClassVar[int | str | None] = None
    """Bits of a weight without its scales, or the path to them in the config; None where they
    differ layer by layer, or stand in objects that no recipe can write."""
    tried: ClassVar[Mapping[str, Any]] = {}
    """The options that `doctor` tries."""

    @classmethod
    def trials(cls) -> Mapping[str, Mapping[str, Any]]:
        """Try it once."""
        return {"": cls.tried}

    @property
    def bits(self) -> int | None:
        """Return what the config says."""
        if not isinstance(self.says_bits, str):
            return self.says_bits
        found: Any = self.config
        for part in self.says_bits.split("."):
            is_table = isinstance(found, Mapping)
            found = found.get(part) if is_table else getattr(found, part, None)
        digits = re.sub(r"\D", "", str(found))  # quanto's `int4`, `float8`
        return int(digits) if digits else None


def _native(config: str, doc: str, **members: Any) -> type[NativeQuantizer]:
    """Make the class of one config; it loads quantized checkpoints, or quantizes, as `doc` says."""
    name = config.removesuffix("Config")
    members |= {"Config": f"transformers:{config}", "__doc__": doc}
    return type(name, (NativeQuantizer,), members)


_LOADS = "Load a checkpoint that is quantized already"
Aqlm = _native("AqlmConfig", f"{_LOADS}, by AQLM.", keeps_modules=None)
AutoRound = _native("AutoRoundConfig", f"{_LOADS}, by AutoRound.", says_bits="bits",
                    keeps_modules=None)  # fmt: skip
Awq = _native("AwqConfig", f"{_LOADS}, by AWQ.", says_bits="bits")
BitNet = _native("BitNetQuantConfig", f"{_LOADS}, in BitNet's three values.", says_bits=2)
CompressedTensors = _native("CompressedTensorsConfig", f"{_LOADS}, by llm-compressor.",
                            keeps_modules=None)  # fmt: skip
Eetq = _native("EetqConfig", "Quantize to 8 bits by EETQ, on a GPU.", says_bits=8)
FbgemmFp8 = _native("FbgemmFp8Config", "Quantize to float8 a row by FBGEMM.", says_bits=8)
FourOverSix = _native("FourOverSixConfig", "Quantize to NVFP4 with adaptive scales.", says_bits=4)
Fp8 = _native("FineGrainedFP8Config", "Quantize to float8 in blocks, as DeepSeek-V3.", says_bits=8)
FpQuant = _native("FPQuantConfig", "Quantize to MXFP4 or NVFP4 by FP-Quant.", says_bits=4)
Gemma = _native("GemmaQuantizationConfig", f"{_LOADS}, Gemma's own way.")
Gguf = _native("GgufConfig", f"{_LOADS}, in GGUF's blocks.", keeps_modules=None)
Gptq = _native("GPTQConfig", "Quantize by GPTQ, which is calibrated on data.", says_bits="bits",
               keeps_modules=None, tried={"bits": 4})  # fmt: skip
Higgs = _native("HiggsConfig", "Quantize by HIGGS, on a GPU.", says_bits="bits")
Hqq = _native("HqqConfig", "Quantize by HQQ, without data.", keeps_modules="skip_modules",
              says_bits="quant_config.weight_quant_params.nbits")  # fmt: skip
Metal = _native("MetalConfig", "Quantize for Apple's GPUs.", says_bits="bits")
Mxfp4 = _native("Mxfp4Config", "Quantize to MXFP4, as gpt-oss.", says_bits=4)
Nvfp4 = _native("NVFP4Config", "Quantize to NVFP4, on a GPU.", says_bits=4)
Quanto = _native("QuantoConfig", "Quantize by optimum-quanto.", says_bits="weights")
Quark = _native("QuarkConfig", f"{_LOADS}, by AMD's Quark.", keeps_modules=None)
Sinq = _native("SinqConfig", "Quantize by SINQ, without data.", says_bits="nbits")
SpQR = _native("SpQRConfig", f"{_LOADS}, by SpQR.", says_bits="bits")
Vptq = _native("VptqConfig", f"{_LOADS}, by VPTQ.")
