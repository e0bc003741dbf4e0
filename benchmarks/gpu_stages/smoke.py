"""smoke: each method and quantization trains three steps, is saved, and reads back the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_stages.bench import Bench, clear
from gpu_stages.trials import attempted

if TYPE_CHECKING:
    from gpu_stages.bench import Setting
    from peftkit.training.prepare import Job

SHARE = 18
ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS = 3
_FEW = (
    "data.splits={train: 'train[:48]'}", "evaluate=false",
    f"method.METHOD.max_steps={NUM_STEPS}",
    "method.METHOD.warmup_steps=0", "method.METHOD.per_device_train_batch_size=4",
)  # fmt: skip
_TEXTS = (
    "data.source={embedded: {name: docstring-summaries}}",
    "data.task={text: {text: document}}",
)
_NEW = "model.config.num_hidden_layers=2"
_GPU_MARK = "pytest.mark.gpu"
_SECONDS_OF_TESTS = 60.0


@dataclass(frozen=True)
class Trial:
    """Say what is trained: a shipped recipe, cut short."""

    name: str
    recipe: str
    method: str = "sft"
    overrides: tuple[str, ...] = ()

    @property
    def all_overrides(self) -> tuple[str, ...]:
        """Return what makes the recipe short, and this trial's own."""
        return (*(line.replace("METHOD", self.method) for line in _FEW), *self.overrides)


def _quantized(options: str) -> tuple[str, ...]:
    return ("model.dtype=bfloat16", f"model.quantize={{bitsandbytes: {{{options}}}}}")


TRIALS = (
    Trial("sft, LoRA", "summarize-lora"),
    Trial("sft, nf4", "summarize-lora", overrides=_quantized("load_in_4bit: true")),
    Trial("dpo", "dpo-lora", "dpo"),
    Trial("classify", "classify-pairs-lora", "classify"),
    Trial("sft, nf4 twice", "summarize-lora", overrides=_quantized(
        "load_in_4bit: true, bnb_4bit_use_double_quant: true")),
    Trial("sft, int8", "summarize-lora", overrides=_quantized("load_in_8bit: true")),
    Trial("sft, fp4", "summarize-lora", overrides=_quantized(
        "load_in_4bit: true, bnb_4bit_quant_type: fp4")),
    Trial("sft, bfloat16", "summarize-lora", overrides=("model.dtype=bfloat16",)),
    Trial("sft, DoRA", "summarize-dora"),
    Trial("sft, full", "summarize-full"),
    Trial("question_answering", "answer-lora", "question_answering"),
    Trial("seq2seq", "translate-seq2seq-lora", "seq2seq"),
    Trial("kto", "kto-lora", "kto"),
    Trial("reward", "reward-lora", "reward"),
    Trial("grpo", "grpo-lora", "grpo", (
        "method.grpo.num_generations=4", "method.grpo.max_completion_length=8",
        "method.grpo.rewards=[similar_length]")),
    Trial("vision_sft", "vision-sft", "vision_sft", ("method.vision_sft.eval_strategy=no",)),
    Trial("pretrain_lm", "pretrain-lm", "pretrain_lm", (*_TEXTS, _NEW)),
    Trial("pretrain_bert", "pretrain-bert", "pretrain_bert", (
        *_TEXTS, _NEW, "method.pretrain_bert.use_cpu=false")),
)  # fmt: skip
"""One recipe a method, and the base in each number format, in the order of worth."""
DRY = (
    Trial("sft, nf4", "summarize-lora", overrides=(
        *_quantized("load_in_4bit: true"), "method.sft.max_length=64",
        "data.audit={max_truncated: 1, max_masked: 1}")),
)  # fmt: skip


def requests(_setting: Setting) -> list[Any]:
    """Ask for no plan."""
    return []


def run(bench: Bench) -> None:
    """Train each, and run the tests that ask for a card."""
    for trial in DRY if bench.is_dry else TRIALS:
        if bench.left() < 0:
            bench.add("left_out", {"name": trial.name, "reason": "no time was left"})
            continue
        attempted(bench, trial.name, partial(_try, trial, bench))
    attempted(bench, "tests marked gpu", partial(_run_tests, bench))


def _try(trial: Trial, bench: Bench) -> None:
    clear(bench.device)
    found = train_and_reload(trial, bench.folder / trial.name.replace(", ", "-"))
    bench.add("trials", {"name": trial.name, "recipe": trial.recipe, **found})
    same = "the same" if found["max_difference"] == 0 else f"{found['max_difference']:.2g} apart"
    bench.say(f"{trial.name}: loss {found['final_loss']:.4f}, read back: logits {same}")


def train_and_reload(trial: Trial, out: Path) -> dict[str, Any]:
    """Train as `peftkit run` does, then compare the model with what is read back from its files."""
    import torch
    from accelerate.utils import extract_model_from_parallel
    from rich.console import Console

    from peftkit.recipe.load import load_recipe
    from peftkit.reporting.trackers.tracking import tracking
    from peftkit.run import begin, train
    from peftkit.rundir.paths import RunDir
    from peftkit.rundir.status import RunStatus, claimed
    from peftkit.system.screen import Screen
    from peftkit.system.signals import catching_signals
    from peftkit.training.load import load_trained
    from peftkit.training.prepare import Session, prepare

    recipe = load_recipe(ROOT / "recipes" / f"{trial.recipe}.yaml", trial.all_overrides)
    run_dir, screen = RunDir(out), Screen(Console(quiet=True))
    status = RunStatus(run_dir)
    with catching_signals() as stop, claimed(run_dir), tracking(run_dir, (), screen) as boards:
        job = prepare(recipe, run_dir, screen)
        begin(job, status, screen, allow_drift=False)
        model = train(job, Session(screen, stop, status, boards))
    # Autocast stays wrapped around the forward of a model that was trained under it.
    trained = _logits(extract_model_from_parallel(model, keep_fp32_wrapper=False), job)
    del model
    again = _logits(load_trained(job, run_dir.trained), job)
    measured = run_dir.read_json(run_dir.measured)
    largest = max(float((trained[k].double() - again[k].double()).abs().max()) for k in trained)
    return {
        "final_loss": measured["final_loss"],
        "peak_bytes": measured["peak_bytes"],
        "max_difference": largest,
        "is_finite": all(bool(torch.isfinite(values).all()) for values in trained.values()),
    }


def _logits(model: Any, job: Job) -> Mapping[str, Any]:
    """Return what a model says of two rows of tokens, whatever its head, on the host."""
    import torch

    model.eval()
    device = model.get_input_embeddings().weight.device
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, len(job.tokenizer) - 1, (2, 16), generator=draw).to(device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    with torch.no_grad():
        said = model(**inputs)
    return {key: values.cpu() for key, values in said.items() if key.endswith("logits")}


def _run_tests(bench: Bench) -> None:
    """Run the tests that need a card, of the files that have any: the others need not be read."""
    files = [
        file
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if _GPU_MARK in file.read_text("utf-8") and file.parent.name != "benchmarks"
    ]
    chosen = [str(file.relative_to(ROOT)) for file in files]
    if bench.is_dry:
        chosen = [name for name in chosen if name.endswith("test_machine.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    seconds = max(10.0, min(_SECONDS_OF_TESTS, bench.left()))
    done = subprocess.run(
        [*command, *chosen], cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
    )
    said = (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()
    failures = [line for line in said if line.startswith(("FAILED", "ERROR", "E  "))][:20]
    bench.keep("tests", {"exit_code": done.returncode, "said": said[-1], "failures": failures})
    bench.say(f"tests marked gpu: {said[-1]}")
