"""A run of the embedded model, small enough to be made several times over."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftkit.rundir.paths import RunDir

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "summarize-lora.yaml"
SHORT = (
    "data.splits={train: 'train[:96]'}", "evaluate=false", "method.sft.logging_steps=1",
    "method.sft.per_device_train_batch_size=8", "method.sft.warmup_steps=1",
)  # fmt: skip
SHORTER = (
    "method.sft.max_length=64", "method.sft.per_device_train_batch_size=2",
    "data.audit={max_truncated: 1, max_masked: 1}",
)  # fmt: skip
"""What a dry run adds: seconds on one core."""
QLORA = (
    "model.dtype=bfloat16",
    "model.quantize={bitsandbytes: {load_in_4bit: true, bnb_4bit_use_double_quant: true}}",
)


@dataclass(frozen=True)
class Ended:
    """Say how a run ended, as its command would have."""

    run_dir: RunDir
    exit_code: int
    message: str
    """The error with its hint; empty for a run that finished."""
    printed: str


def run_to_end(out: Path, overrides: Sequence[str], *, num_steps: int) -> Ended:
    """Run the recipe in this process, or go on with it; an error is a way to end like another."""
    from rich.console import Console

    from peftkit.errors import PeftkitError
    from peftkit.recipe.load import load_recipe
    from peftkit.run import run
    from peftkit.rundir.paths import RunDir

    screen = io.StringIO()
    steps = (f"method.sft.max_steps={num_steps}", *overrides)
    try:
        recipe = load_recipe(RECIPE, (*SHORT, *steps))
        run(recipe, out=out, console=Console(file=screen, width=200))
    except PeftkitError as error:
        # What raised it would hold the model, and the next run needs the room.
        traceback.clear_frames(error.__traceback__)
        message = "; try: ".join(filter(None, (error.message, error.hint)))
        return Ended(RunDir(out), error.exit_code, message, screen.getvalue())
    return Ended(RunDir(out), 0, "", screen.getvalue())


def losses_of(run_dir: RunDir) -> list[float]:
    """Return the training loss of each step."""
    lines = [json.loads(line) for line in run_dir.metrics.read_text("utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def digest_of(run_dir: RunDir) -> str:
    """Return the hash of what was trained."""
    weights = run_dir.adapter / "adapter_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def cut_back(run_dir: RunDir, out: Path, *, step: int) -> RunDir:
    """Copy a run to what a kill right after a step's checkpoint would have left of it."""
    from peftkit.rundir.paths import RunDir

    shutil.copytree(run_dir.path, out)
    part = RunDir(out)
    shutil.rmtree(part.adapter, ignore_errors=True)
    for file in (part.measured, part.scores, part.samples, part.report):
        file.unlink(missing_ok=True)
    for folder in part.checkpoints.iterdir():
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)
    status = json.loads(part.status.read_text("utf-8"))
    part.status.write_text(json.dumps({**status, "state": "running", "exit_code": None}))
    return part
