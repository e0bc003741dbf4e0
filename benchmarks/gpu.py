"""Turn a few minutes of one GPU into every number that peftkit asks of it, in one command.

    python benchmarks/gpu.py [--only STAGE] [--skip STAGE] [--minutes 9] [--out FOLDER]
    python benchmarks/gpu.py --dry          # every stage on tiny models, on the CPU
    python benchmarks/report.py             # tables, plots and rows from what was found

Stages, in the order of their worth: rate, smoke, plan, speed, reach, exact, edges. Each is a
process of its own with its share of the time, and writes FOLDER/STAGE.json as soon as it has a
number: stopped anywhere, nothing is lost; one that fails says so, and the next begins. A stage is
imported while the one before it has the card, and plans are made on the processor meanwhile. Models
are made on the device from the configs of real families with random weights: nothing is fetched.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from gpu_stages import facts, planned  # noqa: E402
from gpu_stages.bench import Bench, Setting, found_by, result_file, write  # noqa: E402

from peftkit.errors import first_line  # noqa: E402

STAGES = ("rate", "smoke", "plan", "speed", "reach", "exact", "edges")
MINUTES, DRY_MINUTES = 9.0, 3.0
GRACE = 8.0
"""Seconds after its time in which a stage may end by itself."""
_STACK = ("torch", "transformers.trainer", "peft", "trl.trainer.sft_trainer", "datasets")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line; return the exit code.

    0: all stages are done; 1: one failed or was stopped; 2: none was asked for; 5: no card.
    """
    options = parse(arguments)
    if options.stage:
        name, ready = options.stage
        return serve_stage(name, ready, sys.stdin)
    if options.planner:
        share, folder = options.planner
        planned.serve(share, Path(folder))
        return 0
    begin = time.monotonic()
    setting = look_around(options)
    if setting is None:
        return 5
    minutes = options.minutes or (DRY_MINUTES if setting.is_dry else MINUTES)
    names = [n for n in STAGES if n in (options.only or STAGES) and n not in options.skip]
    if not names:
        print("--only and --skip leave no stage", file=sys.stderr)
        return 2
    return drive(names, setting, deadline=begin + 60 * minutes)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=STAGES, help="repeatable")
    parser.add_argument("--skip", action="append", choices=STAGES, default=[], help="repeatable")
    parser.add_argument(
        "--minutes", type=_above_zero, help=f"{MINUTES:g}; {DRY_MINUTES:g} with --dry"
    )
    parser.add_argument("--dry", action="store_true", help="tiny models on the CPU")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu")
    parser.add_argument("--stage", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--planner", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _above_zero(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is no time: give minutes above 0")
    return value


def look_around(options: argparse.Namespace) -> Setting | None:
    """Say in lines what is here; return the setting, or None where no stage can run."""
    work = Path(tempfile.mkdtemp(prefix="peftkit-gpu-"))
    options.out.mkdir(parents=True, exist_ok=True)
    if options.dry:
        from peftkit.system.machine import describe_machine

        print(
            f"dry run on {describe_machine().name}: no number of it is worth anything", flush=True
        )
        return Setting(describe_machine(), options.out, work, is_dry=True)
    found = facts.gather()
    lines, can_run = facts.examine(found)
    for line in lines:
        print(line, flush=True)
    if not can_run or found.machine is None:
        return None
    return Setting(found.machine, options.out, work, driver=found.driver)


def drive(names: Sequence[str], setting: Setting, *, deadline: float) -> int:
    """Run the stages one after the other, each in its process; return the exit code."""
    stages = {name: stage_of(name) for name in names}
    wanted = [request for stage in stages.values() for request in stage.requests(setting)]
    for name in names:
        result_file(setting, name).unlink(missing_ok=True)
    (setting.out / "snapshots.zip").unlink(missing_ok=True)
    upcoming = [_warm(names[0], setting)]
    num_planners = 1 if setting.is_dry else max(1, (os.cpu_count() or 2) // 2 - 1)
    others = planned.start(setting, wanted, num_planners)
    states = {}
    try:
        for at, name in enumerate(names):
            process = upcoming.pop()
            others.append(process)
            _await(process, name, setting, deadline)
            ahead = [name] if setting.is_dry else names[at:]  # shares are of a card's time
            seconds = share_of(name, ahead, stages, left=deadline - time.monotonic())
            _begin(process, setting, seconds)
            if at + 1 < len(names):
                upcoming.append(_warm(names[at + 1], setting))
            states[name] = _watch(process, name, setting, seconds)
    except KeyboardInterrupt:
        print("stopped; what was found is kept", flush=True)
    finally:
        for process in (*others, *upcoming):
            process.kill()
            process.wait()
    print(f"wrote {', '.join(f'{name}.json' for name in states)} to {setting.out}", flush=True)
    return 0 if [*states.values()] == ["done"] * len(names) else 1


def _watch(process: subprocess.Popen[str], name: str, setting: Setting, seconds: float) -> str:
    """Wait for a stage, at most for its time; return how it ended."""
    begun = time.monotonic()
    print(f"{name}: {seconds:.0f} s", flush=True)
    _wait(process, seconds + GRACE)
    state = settle(setting, name, process.returncode)
    print(f"{name}: {state} after {time.monotonic() - begun:.0f} s", flush=True)
    return state


def stage_of(name: str) -> Any:
    """Return a stage's module."""
    return import_module(f"gpu_stages.{name}")


def share_of(name: str, ahead: Sequence[str], stages: dict[str, Any], *, left: float) -> float:
    """Return a stage's share of the seconds that are left, by its weight among those ahead."""
    weights = {one: float(stages[one].SHARE) for one in ahead}
    return max(0.0, left * weights[name] / sum(weights.values()))


def serve_stage(name: str, ready_file: str, stdin: IO[str]) -> int:
    """Import the stack, wait to be told the setting and the time, and run one stage."""
    from peftkit.system.quiet import quiet_stack

    quiet_stack()
    for module in _STACK:
        import_module(module)
    Path(ready_file).touch()
    line = stdin.readline()
    if not line:
        return 0  # the driver has gone
    content = json.loads(line)
    return run_stage(name, Setting.from_json(content["setting"]), content["seconds"])


def run_stage(name: str, setting: Setting, seconds: float) -> int:
    """Run one stage in this process; return 0, or 1 where it failed."""
    bench = Bench(setting, name, seconds=seconds)
    try:
        stage_of(name).run(bench)
    except Exception as error:
        traceback.print_exc(limit=-6)
        bench.finish("failed", f"{type(error).__name__}: {first_line(error)}")
        return 1
    failures = [one["what"] for one in bench.content.get("failures", [])]
    if failures:
        bench.finish("failed", f"in {', '.join(failures)}")
        return 1
    bench.finish("done")
    return 0


def settle(setting: Setting, name: str, code: int | None) -> str:
    """Return how a stage ended; one that was killed could not say it itself."""
    content = found_by(setting, name)
    if content.get("state") in ("done", "failed"):
        return str(content["state"])
    reason = "its time was over" if code is not None and code < 0 else f"exit code {code}"
    write(
        result_file(setting, name), {"stage": name, **content, "state": "stopped", "reason": reason}
    )
    return f"stopped, {reason}"


def _warm(name: str, setting: Setting) -> subprocess.Popen[str]:
    """Start a stage's process, which imports and waits."""
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    # One card: with two in sight, transformers' Trainer would train on both.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": card, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--stage", name]
    ready = _ready_file(name, setting)
    return subprocess.Popen(
        [*command, str(ready)], stdin=subprocess.PIPE, text=True, env=environment
    )


def _await(process: subprocess.Popen[str], name: str, setting: Setting, deadline: float) -> None:
    """Wait until a stage's process has imported all it needs: that is nobody's share."""
    while not _ready_file(name, setting).exists() and process.poll() is None:
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)


def _ready_file(name: str, setting: Setting) -> Path:
    return setting.work / f"{name}.ready"


def _begin(process: subprocess.Popen[str], setting: Setting, seconds: float) -> None:
    """Tell a waiting stage its setting and its time."""
    told = json.dumps({"setting": setting.to_json(), "seconds": seconds}) + "\n"
    with suppress(BrokenPipeError), process.stdin or nullcontext(io.StringIO()) as stdin:
        stdin.write(told)


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait for a stage's end; past its time, end it."""
    try:
        process.wait(timeout=max(0.0, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
