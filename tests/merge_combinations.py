"""Architectures x methods x options for the exactness of merging; r is never alpha, E never r."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import peft

Q_DOWN = ["q_proj", "down_proj"]


@dataclass(frozen=True)
class Combination:
    """Name one merge to be exact."""

    name: str
    base: str
    config: Callable[[], Any]
    dtype: str = "bfloat16"
    adapter_dtype: str = "float32"
    reference_dtype: str = "float64"
    """float32 for methods that decompose the base's weight, which insist on it."""
    is_swept: bool = False
    """Whether it is one more of what others show each by itself, and left to the slow tests."""


def lora(**options: Any) -> Callable[[], Any]:
    """Make a LoRA of rank 3 and alpha 7."""
    settings = {"r": 3, "lora_alpha": 7, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    return lambda: peft.LoraConfig(**{**settings, **options})


def other(kind: str, **options: Any) -> Callable[[], Any]:
    """Make another method's config."""
    return lambda: getattr(peft, f"{kind}Config")(**{"target_modules": Q_DOWN, **options})


def combinations() -> list[Combination]:
    """List them all."""
    return [*_loras(), *_starts(), *_parameters(), *_shapes(), *_experts(), *_methods(), *_dtypes()]


def _loras() -> list[Combination]:
    found = []
    for base in ("llama", "llama-biased", "llama-tied", "qwen3", "gpt2"):
        for kind, options in (("lora", {}), ("rslora", {"use_rslora": True}),
                              ("dora", {"use_dora": True}),
                              ("rsdora", {"use_dora": True, "use_rslora": True})):  # fmt: skip
            is_swept = base != "llama" and kind not in ("lora", "dora")
            found.append(Combination(f"{base}-{kind}", base, lora(**options), is_swept=is_swept))
    patterns = {
        "rank_pattern": {"q_proj": 5, r"layers\.1\.self_attn\.v_proj": 2},
        "alpha_pattern": {"q_proj": 3, "down_proj": 11},
    }
    for kind, options in (("lora", {}), ("rslora", {"use_rslora": True}),
                          ("dora", {"use_dora": True})):  # fmt: skip
        found.append(Combination(f"patterns-{kind}", "llama", lora(**patterns, **options)))
    found += [
        Combination("rank-of-the-whole-side", "llama", lora(r=32, target_modules=["q_proj"])),
        Combination("rank-1", "llama", lora(r=1)),
        Combination("bias-all", "llama-biased", lora(bias="all")),
        Combination("bias-lora_only", "llama-biased", lora(bias="lora_only")),
        Combination("lora_bias", "llama-biased", lora(lora_bias=True)),
        Combination("lora_bias-rs", "llama-biased", lora(lora_bias=True, use_rslora=True)),
        Combination("layers-1", "llama", lora(layers_to_transform=[1], target_modules=Q_DOWN)),
        Combination("regex", "llama", lora(target_modules=r".*\.1\..*(q|o)_proj")),
    ]
    return found


def _starts() -> list[Combination]:
    found = [
        Combination(f"start-{start}", "llama", lora(init_lora_weights=start, target_modules=Q_DOWN))
        for start in ("gaussian", "eva")
    ]
    found += [
        Combination("start-orthogonal", "llama",
                    lora(r=4, init_lora_weights="orthogonal", target_modules=Q_DOWN)),
        Combination("velora", "llama", lora(velora_config=peft.VeloraConfig(num_groups=4),
                                            target_modules=["q_proj"])),
        Combination("monteclora", "llama", lora(monteclora_config=peft.MontecloraConfig(),
                                                target_modules=["q_proj"])),
        Combination("bdlora", "llama", lora(
            r=4, target_modules=["q_proj", "o_proj"],
            use_bdlora=peft.BdLoraConfig(
                target_modules_bd_a=["o_proj"], target_modules_bd_b=["q_proj"], nblocks=2),
        )),
    ]  # fmt: skip
    for start in ("pissa", "olora", "mica"):
        config = lora(init_lora_weights=start, target_modules=Q_DOWN)
        found.append(Combination(f"start-{start}", "llama", config, reference_dtype="float32"))
    kasa = lora(kasa_config=peft.KasaConfig(), target_modules=Q_DOWN)
    found.append(Combination("kasa", "llama", kasa, reference_dtype="float32"))
    return found


def _parameters() -> list[Combination]:
    q = ["q_proj"]
    return [
        Combination("tokens", "llama", lora(target_modules=q, trainable_token_indices=[1, 4])),
        Combination("tokens-tied", "llama-tied",
                    lora(target_modules=q, trainable_token_indices=[1, 4])),
        Combination("tokens-of-both", "llama", lora(
            target_modules=q, trainable_token_indices={"embed_tokens": [1, 4], "lm_head": [2]})),
        Combination("tokens-only", "llama", other(
            "TrainableTokens", token_indices=[0, 47], target_modules=None)),
        Combination("saved-embedding", "llama",
                    lora(target_modules=q, modules_to_save=["embed_tokens"])),
        Combination("saved-head", "llama", lora(target_modules=q, modules_to_save=["lm_head"])),
        Combination("saved-both", "llama",
                    lora(target_modules=q, modules_to_save=["lm_head", "embed_tokens"])),
        Combination("saved-norms", "llama", lora(
            target_modules=q, modules_to_save=["input_layernorm", "norm"])),
        Combination("saved-mlp", "llama-biased", lora(target_modules=q, modules_to_save=["mlp"])),
        Combination("saved-tied-alike", "llama-tied", lora(
            target_modules=q, modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
        Combination("embedding", "llama", lora(target_modules=["embed_tokens", "q_proj"])),
        Combination("embedding-dora", "llama",
                    lora(target_modules=["embed_tokens", "q_proj"], use_dora=True)),
        Combination("head", "llama", lora(target_modules=["lm_head", "q_proj"])),
        Combination("layer-norms", "llama", other("LNTuning", target_modules=None)),
        Combination("loha-saved", "llama",
                    other("LoHa", r=3, alpha=7, modules_to_save=["embed_tokens"])),
        Combination("boft-saved", "llama",
                    other("BOFT", boft_block_size=4, modules_to_save=["lm_head"])),
    ]  # fmt: skip


def _shapes() -> list[Combination]:
    bert = ["query", "dense"]
    seq2seq = {"task_type": "SEQ_2_SEQ_LM"}
    conv = {"task_type": None, "target_modules": ["convolution"]}
    audio = {"task_type": None, "target_modules": ["q_proj", "conv1", "conv2", "fc1"]}
    return [
        Combination("gpt2-attention", "gpt2", lora(target_modules=["c_attn", "c_proj"])),
        Combination("gpt2-attention-dora", "gpt2", lora(target_modules=["c_proj"], use_dora=True)),
        Combination("gpt2-ia3", "gpt2", other(
            "IA3", target_modules=["c_attn", "c_proj"], feedforward_modules=["c_proj"])),
        *(
            Combination(f"gpt2-randlora-{dtype}", "gpt2", other(
                "RandLora", target_modules=["c_attn", "c_proj"]), dtype)
            for dtype in ("bfloat16", "float16", "float32")
        ),
        Combination("gpt2-vera", "gpt2", other("Vera", r=5, target_modules=["c_attn"])),
        Combination("bert", "bert", lora(task_type="SEQ_CLS", target_modules=bert)),
        Combination("bert-dora", "bert", lora(
            task_type="SEQ_CLS", target_modules=["query"], use_dora=True,
            modules_to_save=["classifier", "pooler"])),
        *(
            Combination(f"bert-{kind}", "bert", other(
                kind, target_modules=bert, task_type="SEQ_CLS", **options))
            for kind, options in (
                ("IA3", {"feedforward_modules": ["dense"]}), ("LoHa", {"r": 3, "alpha": 7}),
                ("LoKr", {"r": 3, "alpha": 5}), ("OFT", {"oft_block_size": 4, "r": 0}),
                ("HRA", {"r": 4}), ("Miss", {"r": 4}), ("BOFT", {"boft_block_size": 4}))
        ),
        Combination("t5", "t5", lora(target_modules=["q", "v", "wi", "wo"], **seq2seq)),
        Combination("t5-dora", "t5", lora(target_modules=["q", "wo"], use_dora=True, **seq2seq)),
        Combination("conv1d", "whisper", lora(**audio)),
        Combination("conv1d-dora", "whisper", lora(**audio, use_dora=True)),
        Combination("conv2d", "resnet", lora(**conv, modules_to_save=["classifier"])),
        Combination("conv2d-dora", "resnet", lora(**conv, use_dora=True)),
        Combination("conv2d-loha", "resnet", other("LoHa", r=3, alpha=7, **conv)),
        Combination("conv2d-loha-tucker", "resnet",
                    other("LoHa", r=3, alpha=7, use_effective_conv2d=True, **conv)),
        Combination("conv2d-lokr", "resnet", other("LoKr", r=3, alpha=7, **conv)),
        Combination("conv2d-ia3", "resnet", other("IA3", feedforward_modules=[], **conv)),
        Combination("conv2d-oft", "resnet", other("OFT", oft_block_size=4, r=0, **conv)),
    ]  # fmt: skip


def _experts() -> list[Combination]:
    gate_up, down = "mlp.experts.gate_up_proj", "mlp.experts.down_proj"
    found = []
    for base in ("mixtral", "qwen3_moe", "gpt_oss"):
        made = [
            Combination(f"{base}-attention", base, lora(target_modules=["q_proj", "o_proj"])),
            Combination(f"{base}-gate_up", base,
                        lora(target_modules=["q_proj"], target_parameters=[gate_up])),
            Combination(f"{base}-both", base,
                        lora(target_modules=[], target_parameters=[gate_up, down])),
            Combination(f"{base}-down-rs", base, lora(
                target_modules=["k_proj"], target_parameters=["experts.down_proj"],
                use_rslora=True)),
            Combination(f"{base}-patterns", base, lora(
                target_modules=[], target_parameters=[gate_up, down],
                rank_pattern={"experts.down_proj": 4}, alpha_pattern={"experts.gate_up_proj": 5})),
        ]  # fmt: skip
        found += [
            replace(one, is_swept=base != "mixtral" and one.name != f"{base}-both") for one in made
        ]
    return found


def _methods() -> list[Combination]:
    q = {"target_modules": ["q_proj"]}
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("lokr-both", "LoKr", {"r": 3, "alpha": 5, "decompose_both": True, "decompose_factor": 4}),
        ("lokr-patterns", "LoKr", {"r": 3, "alpha": 5, "rank_pattern": {"q_proj": 2},
                                   "alpha_pattern": {"q_proj": 9}}),
        ("loha-patterns", "LoHa", {"r": 3, "alpha": 5, "rank_pattern": {"q_proj": 2},
                                   "alpha_pattern": {"q_proj": 9}}),
        ("oft-shared", "OFT", {"oft_block_size": 4, "r": 0, "block_share": True}),
        ("oft-exact", "OFT", {"oft_block_size": 4, "r": 0, "use_cayley_neumann": False}),
        ("oft-3-terms", "OFT", {"oft_block_size": 8, "r": 0, "num_cayley_neumann_terms": 3}),
        ("oft-constrained", "OFT", {"oft_block_size": 8, "r": 0, "coft": True}),
        ("hra", "HRA", {"r": 4}),
        ("hra-orthogonal", "HRA", {"r": 4, "apply_GS": True}),
        ("miss", "Miss", {"r": 5}),
        ("miss-mini", "Miss", {"r": 4, "init_weights": "mini", "mini_r": 8}),
        ("miss-bat", "Miss", {"r": 4, "init_weights": "bat", **q}),
        ("vera", "Vera", {"r": 5}),
        ("vera-unsaved", "Vera", {"r": 5, "save_projection": False}),
        ("boft-factor", "BOFT", {"boft_block_num": 4, "boft_block_size": 0,
                                 "boft_n_butterfly_factor": 2, **q}),
        ("adalora", "AdaLora", {"init_r": 4, "target_r": 2, "total_step": 9}),
        ("ia3", "IA3", {"feedforward_modules": ["down_proj"]}),
        ("c3a", "C3A", {"block_size": 8}), ("deft", "Deft", {}), ("delora", "Delora", {}),
        ("fourierft", "FourierFT", {"n_frequency": 40}), ("glora", "Glora", {}),
        ("gralora", "Gralora", {}), ("hira", "Hira", {}), ("peanut", "Peanut", {}),
        ("pvera", "Pvera", {}), ("randlora", "RandLora", {}), ("road", "Road", {"group_size": 8}),
        ("shira", "Shira", {"r": 2}), ("supertuning", "Supertuning", {}),
        ("tinylora", "TinyLora", {}), ("unilora", "UniLora", {}),
        ("vblora", "VBLoRA", {"vector_length": 8, "num_vectors": 16}),
        ("waveft", "WaveFT", {"n_frequency": 40}),
    ]  # fmt: skip
    found = [
        Combination(name, "llama-biased" if name != "supertuning" else "llama",
                    other(kind, **options, task_type="CAUSAL_LM"))
        for name, kind, options in kinds
    ]  # fmt: skip
    found += [
        Combination(name, "llama", other(kind, **options, **q), reference_dtype="float32")
        for name, kind, options in (("osf", "OSF", {}), ("psoft", "Psoft", {"r": 8}))
    ]
    return found


def _dtypes() -> list[Combination]:
    found = []
    for dtype in ("float16", "bfloat16", "float32"):
        for adapter in ("float16", "bfloat16", "float32"):
            for name, config in (
                ("lora", lora()), ("dora", lora(use_dora=True)),
                ("embedding", lora(target_modules=["embed_tokens", "v_proj"])),
                ("saved", lora(target_modules=["q_proj"], modules_to_save=["lm_head"])),
                ("loha", other("LoHa", r=3, alpha=7)),
            ):  # fmt: skip
                if (dtype, adapter) != ("bfloat16", "float32"):
                    made = Combination(f"{name}-{dtype}-{adapter}", "llama", config, dtype, adapter)
                    found.append(replace(made, is_swept=name != "lora" and dtype != adapter))
    return found
