"""Small things that a run does, really tried on this machine: for `peftkit doctor`."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.errors import PeftkitError, first_line
from peftkit.plugins import CAUSAL_LM, find, plugin_names
from peftkit.recipe.build import construct
from peftkit.recipe.schema import ModelSection

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from peftkit.plugins.quantizer import Quantizer

MATMUL_SIZE = 512


@dataclass(frozen=True)
class Trial:
    """Hold what came of one trial."""

    name: str
    works: bool
    detail: str = ""
    """What was measured, or why it does not work."""
    gflops: float = 0.0
    """Speed in 10**9 operations a second, where that is what was tried."""


@dataclass
class Bench:
    """Hold a small base model on disk, as a run would find one, and its true logits."""

    folder: Path
    device: str
    input_ids: Tensor
    logits: Tensor = field(repr=False)


def multiply(device: str, dtype: str) -> Trial:
    """Multiply two matrices on a device, and compare with float64 on the CPU."""
    import torch

    native = getattr(torch, dtype)
    left, right = (torch.randn(MATMUL_SIZE, MATMUL_SIZE) for _ in range(2))
    try:
        a, b = left.to(device, native), right.to(device, native)
        (a @ b).cpu()  # the first call also loads kernels
        started = time.perf_counter()
        product = (a @ b).cpu()
        seconds = time.perf_counter() - started
    except Exception as error:
        return Trial(dtype, False, first_line(error))
    truth = left.to(native).double() @ right.to(native).double()
    distance = relative_error(product, truth)
    gflops = 2 * MATMUL_SIZE**3 / seconds / 1e9
    works = distance < 16 * torch.finfo(native).eps
    return Trial(dtype, works, f"{gflops:,.0f} GFLOP/s, off by {distance:.0e}", gflops)


def write_safetensors(folder: Path) -> Trial:
    """Write a tensor, sync it to the disk, and read the same back."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    name = "write here"
    tensor = torch.arange(4096, dtype=torch.float32)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".peftkit-doctor-") as made:
            file = Path(made) / "tensor.safetensors"
            save_file({"tensor": tensor}, file)
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
            is_same = torch.equal(load_file(file)["tensor"], tensor)
    except (OSError, SafetensorError) as error:
        return Trial(name, False, f"{folder}: {first_line(error)}")
    return Trial(name, is_same, f"safetensors, synced and read back, in {folder}")


@contextmanager
def small_base(device: str) -> Iterator[Bench]:
    """Make a Llama of one layer in a temporary folder, the same one each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    with tempfile.TemporaryDirectory(prefix="peftkit-doctor-") as folder, torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
        model.save_pretrained(folder)
        input_ids = torch.arange(32).reshape(2, 16)
        with torch.no_grad():
            logits = model(input_ids).logits
        yield Bench(Path(folder), device, input_ids, logits)


def train_lora(bench: Bench, name: str, quantizer: Quantizer | None = None) -> Trial:
    """Load the base, quantized or not, as a run does; attach a LoRA and take its gradients."""
    import torch
    from peft import LoraConfig

    from peftkit.adapters.peft_types import Lora

    try:
        base = _load(bench, quantizer)
        input_ids = bench.input_ids.to(base.device)
        with torch.no_grad():
            distance = relative_error(base(input_ids).logits.cpu(), bench.logits)
        model = Lora(LoraConfig(r=4, target_modules="all-linear")).attach(base).train()
        model(input_ids, labels=input_ids).loss.backward()
        total = sum(
            float(weight.grad.norm()) for name, weight in model.named_parameters()
            if "lora_B" in name and weight.grad is not None
        )  # fmt: skip
    except PeftkitError as refused:
        return Trial(name, False, refused.message.removeprefix("model.quantize: "))
    except Exception as error:
        return Trial(name, False, first_line(error))
    if not total > 0 or total == float("inf"):
        return Trial(name, False, f"no gradient reaches the adapter (its norm is {total})")
    return Trial(name, True, f"trains a LoRA; logits are off by {distance:.1%}")


def quantizations(bench: Bench) -> Iterator[Trial]:
    """Train on every quantization that a recipe can name, or say why it cannot be here."""
    for quantization in plugin_names("quantizers"):
        try:
            plugin = find("quantizers", quantization)
        except PeftkitError as error:
            yield Trial(quantization, False, error.message)
            continue
        for variant, options in plugin.trials().items():
            name = variant or quantization
            try:
                quantizer = plugin(construct(plugin.Config, options))
            except (ImportError, TypeError, ValueError, PeftkitError) as error:
                yield Trial(name, False, first_line(error))
                continue
            yield train_lora(bench, name, quantizer)


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Return the distance between two tensors, relative to the true one's norm."""
    return float((found.double() - truth.double()).norm() / truth.double().norm())


def _load(bench: Bench, quantizer: Quantizer | None) -> PreTrainedModel:
    from peftkit.models.base import load_base

    section = ModelSection(path=str(bench.folder), dtype="float32")
    return load_base(
        section,
        kind=CAUSAL_LM,
        quantizer=quantizer,
        device=bench.device,
    ).eval()
