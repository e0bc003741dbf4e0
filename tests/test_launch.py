"""`peftkit launch` renders a job system's file, and refuses what cannot run before it is queued."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run_command

from peftkit.errors import RecipeError, UsageError
from peftkit.launch import Machines, launch
from peftkit.recipe.load import load_recipe

RECIPE = Path("recipes/summarize-lora.yaml")
K8S = ("image=peftkit:1", "claim=work")


def test_the_job_runs_what_the_command_line_would() -> None:
    text = launch(
        RECIPE,
        load_recipe(RECIPE),
        "slurm",
        Machines(1, 8, "fsdp2"),
        overrides=("seed=3",),
        out=Path("runs/x"),
    ).text
    assert (
        f"peftkit run {RECIPE} seed=3 --out runs/x --launch accelerate --engine fsdp2 --"
        " --num_processes 8"
    ) in text


def test_a_cpu_run_asks_for_no_gpu() -> None:
    cpu = load_recipe(RECIPE, ("method.sft.use_cpu=true",))
    assert "gpus" not in launch(RECIPE, cpu, "slurm", Machines()).text


@pytest.mark.parametrize(
    ("on", "machines", "says"),
    [
        ("ray", Machines(2, 8), "at most 1 machine a job"),
        ("slurm", Machines(engine="fsdp2"), "this job has one"),
        ("slurm", Machines(1, 8, "fsdp"), "is none of"),
        ("pbs", Machines(), "no scheduler 'pbs'"),
    ],
)
def test_what_cannot_run_is_refused(on: str, machines: Machines, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        launch(RECIPE, load_recipe(RECIPE), on, machines, options=K8S if on == "ray" else ())


def test_an_engine_that_cannot_is_refused() -> None:
    quantized = load_recipe(RECIPE, ("model.quantize={bitsandbytes: {load_in_8bit: true}}",))
    with pytest.raises(UsageError, match="4 bits only"):
        launch(RECIPE, quantized, "slurm", Machines(1, 8, "fsdp2"))


def test_options_go_through_the_gate() -> None:
    with pytest.raises(RecipeError) as refused:
        launch(RECIPE, load_recipe(RECIPE), "kubernetes", Machines(), options=("imag=x",))
    said = [str(problem) for problem in refused.value.problems]
    assert any("did you mean image" in problem for problem in said)
    assert any("requires this key" in problem for problem in said)


def test_the_file_is_printed_or_written(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    printed = run_command(capfd, "launch", RECIPE, "--on", "slurm", "-o", "time=1:00:00")
    assert printed.out.startswith("#!/bin/bash\n#SBATCH --job-name=summarize-lora")
    assert printed.err == "(submit it: sbatch FILE)\n"
    file = tmp_path / "new" / "job.yaml"
    where = ("--out", file, "-o", K8S[0], "-o", K8S[1])
    written = run_command(capfd, "launch", RECIPE.resolve(), "--on", "kubernetes", *where)
    assert (written.code, written.out) == (0, "")
    assert f"kubectl apply -f {file}" in written.err
    assert "must lead there" in written.err
    assert "kind: Job" in file.read_text()
    full = run_command(capfd, "launch", RECIPE, "--on", "slurm", "--out", tmp_path)
    assert (full.code, "cannot write" in full.refusal) == (5, True)
