"""The batch script is run, with stand-ins for Slurm's commands, and signalled as Slurm does."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from peftkit.launching.slurm import Config, Slurm
from peftkit.plugins import Work
from peftkit.testing import check_scheduler

RUN = ("peftkit", "run", "it's a recipe.yaml")
TASK = """#!/bin/bash
echo "$@" > {folder}/command
trap 'sleep 0.3; exit ${{CODE:-75}}' TERM
touch {folder}/ready
for _ in $(seq 100); do sleep 0.1; done
"""


def script(folder: Path, work: Work, **options: object) -> Path:
    file = folder / "job.sh"
    file.write_text(Slurm(Config(**options)).render(work).text, encoding="utf-8")
    subprocess.run(["bash", "-n", file], check=True)
    return file


def stand_ins(folder: Path) -> dict[str, str]:
    """Put commands of Slurm's, and peftkit, into a folder that comes first."""
    bin_ = folder / "bin"
    bin_.mkdir()
    commands = {
        # srun hands a signal on to its tasks, as the real one does
        "srun": '#!/bin/bash\nshift\nSLURM_NODEID=1 "$@" & trap "kill -TERM $!" TERM; t=$!\n'
        "wait $t; c=$?; while kill -0 $t 2>/dev/null; do wait $t; c=$?; done; exit $c",
        "scontrol": f'#!/bin/bash\n[ "$1" = show ] && echo n1 && echo n2 && exit\n'
        f'echo "$@" > {folder}/scontrol',
        "peftkit": TASK.format(folder=folder),
    }
    for name, text in commands.items():
        (bin_ / name).write_text(text, encoding="utf-8")
        (bin_ / name).chmod(0o755)
    path = f"{bin_}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}


@pytest.mark.parametrize(
    ("number", "code", "is_queued"),
    [(signal.SIGUSR1, 75, True), (signal.SIGTERM, 75, False), (signal.SIGUSR1, 3, False)],
    ids=["limit", "cancelled", "failed"],
)
def test_a_job_saves_at_its_limit_and_queues_itself_again(
    number: int, code: int, is_queued: bool, tmp_path: Path
) -> None:
    file = script(tmp_path, Work("name", RUN))
    process = subprocess.Popen(
        ["bash", file], env={**stand_ins(tmp_path), "CODE": str(code)}, start_new_session=True
    )
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(10) == code
    assert (tmp_path / "command").read_text() == "run it's a recipe.yaml\n"
    queued = tmp_path / "scontrol"
    assert (queued.read_text() if queued.exists() else "") == "requeue 7\n" * is_queued


def test_each_machine_knows_its_rank_and_the_first(tmp_path: Path) -> None:
    work = Work("name", RUN, ("--launch", "accelerate"), 2, 8)
    environment = stand_ins(tmp_path)
    (tmp_path / "bin" / "peftkit").write_text(f'#!/bin/bash\necho "$@" > {tmp_path}/command')
    file = script(tmp_path, work, setup="export A=1\n")
    assert subprocess.run(["bash", file], env=environment, check=False).returncode == 0
    assert (tmp_path / "command").read_text().split(" -- ")[1] == (
        "--num_processes 16 --num_machines 2 --machine_rank 1 --main_process_ip n1"
        " --main_process_port 29500\n"
    )


def test_options_are_sbatch_s() -> None:
    work = Work("a run", RUN, ("--launch", "accelerate"), 1, 8, grace_seconds=300)
    config = Config(partition="gpu", cpus_per_task=32, more=("--exclude=n7",))
    lines = Slurm(config).render(work).text.splitlines()
    options = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    assert options == [
        "--job-name=a-run", "--output=a-run-%j.log", "--open-mode=append", "--nodes=1",
        "--ntasks-per-node=1", "--gpus-per-node=8", "--partition=gpu", "--cpus-per-task=32",
        "--requeue", "--signal=B:USR1@300", "--exclude=n7",
    ]  # fmt: skip


def test_it_keeps_the_contract() -> None:
    check_scheduler(Slurm, {"time": "1:00:00"})
