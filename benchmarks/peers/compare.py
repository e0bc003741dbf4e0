"""Train the same LoRA on the same rows with peftkit and its peers, in turns.

    python benchmarks/peers/compare.py trl transformers litgpt --size 5M --lengths even

peftkit, trl and transformers run in this Python's environment, every other peer in its own: say
where its Python is by `PEERS_LITGPT_PYTHON=...`, or have environments made (`--make-envs FOLDER`,
then `--envs FOLDER`). Peers that are not named and have an environment all run. Every repeat takes
the tools one after another in another order. Tokens must be equal and so must first losses, or the
run is refused. Writes benchmarks/results/peers_cpu.json, one entry a setting.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import envs
import material
from given import Work
from watch import watch

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "results" / "peers_cpu.json"
OWN = ("peftkit", "trl", "transformers")
"""What this environment has."""
PEERS = (*OWN, *envs.PACKAGES, "unsloth")
MEASURES = ("loop_seconds", "wall_seconds", "processor_seconds", "peak_bytes")
FIRST_LOSS_TOLERANCE = 1e-3
"""How far first losses may lie apart, of their size: the same sums, rounded otherwise."""


class PeerError(Exception):
    """A peer did not do the work."""


def run_once(peer: str, python: str, work: Work, num_threads: int) -> dict[str, Any]:
    """Have a peer train once.

    Raises:
        PeerError: it failed, with the end of what it printed.
    """
    shutil.rmtree(work.path, ignore_errors=True)
    work.path.mkdir(parents=True)
    file = work.path / "work.json"
    file.write_text(json.dumps(asdict(work)), encoding="utf-8")
    runner = str(HERE / f"run_{peer}.py")
    environment = {
        **os.environ, "OMP_NUM_THREADS": str(num_threads), "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(HERE), "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    _untimed([python, runner, "prepare", str(file)], environment, work.path)
    command = json.loads((work.path / "prepare.json").read_text("utf-8"))["command"]
    log = work.path / "log.txt"
    used = watch(command, environment=environment, log=log, folder=work.path)
    if used.exit_code:
        raise PeerError(f"exit code {used.exit_code}: {_end_of(log)}")
    _untimed([python, runner, "collect", str(file)], environment, work.path)
    found = json.loads((work.path / "collect.json").read_text("utf-8"))
    losses = found.pop("losses")
    return {
        **found, "first_loss": losses[0], "final_loss": losses[-1], "num_losses": len(losses),
        **asdict(used),
    }  # fmt: skip


def _untimed(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
    log = folder / "untimed.txt"
    with log.open("wb") as stream:
        done = subprocess.run(
            command, env=environment, stdout=stream, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        raise PeerError(f"{command[2]}: {_end_of(log)}")


def _end_of(log: Path, num_lines: int = 8) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "\n".join(lines[-num_lines:])


def check_same(runs: Mapping[str, Mapping[str, Any]], num_tokens: int, *, best: bool) -> None:
    """Refuse runs that were not the same work; at their best, peers may begin with other rows.

    Raises:
        PeerError: somebody read other tokens, or began from another loss.
    """
    for name, run in runs.items():
        if run["num_tokens"] != num_tokens:
            raise PeerError(f"{name} read {run['num_tokens']:,} tokens, not {num_tokens:,}")
    losses = {name: run["first_loss"] for name, run in runs.items()}
    middle = statistics.median(losses.values()) if losses else 0.0
    for name, loss in losses.items():
        if not best and abs(loss - middle) > FIRST_LOSS_TOLERANCE * middle:
            raise PeerError(f"{name} began at a loss of {loss:.4f}, the others at {middle:.4f}")


def sum_up(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return every peer's medians, extremes and ratios to peftkit, repeat by repeat."""
    summary: dict[str, Any] = {}
    for name, repeats in runs.items():
        last = repeats[-1]
        entry: dict[str, Any] = {
            "versions": last["versions"],
            "note": last["note"],
            "num_tokens": last["num_tokens"],
            "first_loss": last["first_loss"],
            "final_loss": statistics.median(run["final_loss"] for run in repeats),
            "tokens_per_second": round(
                statistics.median(run["num_tokens"] / run["loop_seconds"] for run in repeats), 1
            ),
        }
        for measure in MEASURES:
            values = [run[measure] for run in repeats]
            entry[measure] = {
                "median": statistics.median(values), "min": min(values), "max": max(values),
                "all": values,
            }  # fmt: skip
            ours = [run[measure] for run in runs.get("peftkit", ())]
            if len(ours) == len(values):
                ratios = [theirs / mine for theirs, mine in zip(values, ours, strict=True)]
                entry[measure]["ratio_to_peftkit"] = {
                    "median": statistics.median(ratios), "min": min(ratios), "max": max(ratios),
                }  # fmt: skip
        summary[name] = entry
    return summary


def print_table(setting: str, summary: Mapping[str, Any], failed: Mapping[str, str]) -> None:
    """Print a setting's medians."""
    print(f"\n{setting}\n{'':13} tokens/s   loop s   wall s    cpu s  peak MB   loss  peftkit is")
    for name, entry in summary.items():
        loop, wall, cpu, peak = (entry[measure]["median"] for measure in MEASURES)
        ratio = entry["loop_seconds"].get("ratio_to_peftkit")
        times = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else ""
        print(
            f"{name:13} {entry['tokens_per_second']:8,.0f} {loop:8.2f} {wall:8.2f} {cpu:8.2f}"
            f" {peak / 1e6:8,.0f} {entry['final_loss']:6.3f}  {times} {entry['note']}"
        )
    for name, why in failed.items():
        print(f"{name:13} failed: {why.splitlines()[-1] if why else ''}")


def compare(pythons: Mapping[str, str], given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one setting, all repeats."""
    rows = material.draw_rows(
        given.steps * given.batch, material.SIGMAS[given.lengths],
        material.SIZES[given.size]["vocab_size"],
    )  # fmt: skip
    material.write_rows(folder / "rows.jsonl", rows)
    num_weights = material.write_model(folder / "model", given.size)
    num_tokens = sum(len(row["ids"]) for row in rows)
    runs, failed = _in_turns(pythons, given, folder, num_tokens)
    check_same({name: some[0] for name, some in runs.items()}, num_tokens, best=given.best)
    return {
        "size": given.size, "lengths": given.lengths, "best": given.best,
        "bf16": given.best and has_bf16(), "steps": given.steps,
        "batch": given.batch, "num_rows": len(rows), "num_tokens": num_tokens,
        "num_trained_tokens": sum(row["num_trained"] for row in rows),
        "sum_squared_lengths": sum(len(row["ids"]) ** 2 for row in rows), "rank": Work.rank,
        "num_matmul_weights": num_weights, "threads": given.threads, "repeats": given.repeats,
        "peers": sum_up(runs), "failed": failed,
    }  # fmt: skip


def _in_turns(
    pythons: Mapping[str, str], given: argparse.Namespace, folder: Path, num_tokens: int
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Return the runs of those that did all of them, and why others did not."""
    names = list(pythons)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    for repeat in range(given.repeats):
        turn = repeat % len(names)
        for name in [*names[turn:], *names[:turn]]:
            if name in failed:
                continue
            work = Work(
                model=str(folder / "model"), rows=str(folder / "rows.jsonl"),
                folder=str(folder / f"{name}-{repeat}"), steps=given.steps, batch=given.batch,
                best=given.best, bf16=given.best and has_bf16(), max_length=material.MAX_LENGTH,
            )  # fmt: skip
            try:
                run = run_once(name, pythons[name], work, given.threads)
                check_same({name: run}, num_tokens, best=given.best)
            except PeerError as error:
                failed[name] = str(error)
                print(f"  {name}: {error}", flush=True)
                continue
            finally:
                if not given.keep:
                    shutil.rmtree(work.path, ignore_errors=True)
            runs[name].append(run)
            print(
                f"  {repeat + 1}  {name:13} loop {run['loop_seconds']:7.2f} s,"
                f" wall {run['wall_seconds']:7.2f} s, {run['peak_bytes'] / 1e6:6,.0f} MB,"
                f" loss {run['first_loss']:.4f} to {run['final_loss']:.4f}", flush=True,
            )  # fmt: skip
    return {name: some for name, some in runs.items() if name not in failed}, failed


def has_bf16() -> bool:
    """Say whether this machine multiplies bfloat16 in hardware."""
    file = Path("/proc/cpuinfo")
    flags = file.read_text(encoding="utf-8") if file.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def device() -> dict[str, Any]:
    """Name the machine."""
    text = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    )
    names = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")]
    return {
        "name": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peers", nargs="*", choices=[*PEERS, []], metavar="PEER")
    parser.add_argument("--size", choices=material.SIZES, nargs="+", default=["5M"])
    parser.add_argument("--lengths", choices=material.SIGMAS, nargs="+", default=["even"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--best", action="store_true", help="every tool at its own best")
    parser.add_argument("--folder", type=Path, help="where to work (a temporary one)")
    parser.add_argument("--keep", action="store_true", help="keep what peers wrote")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--envs", type=Path, help="a folder of environments")
    parser.add_argument("--make-envs", type=Path, help="make them, of the peers named, and stop")
    return parser.parse_args(arguments)


def find_pythons(named: Sequence[str], folder: Path | None) -> dict[str, str]:
    """Return the Python of every peer that is to run."""
    found = dict.fromkeys(OWN, sys.executable)
    for name in envs.PACKAGES:
        inside = folder and envs.python_of(folder / name)
        given = os.environ.get(f"PEERS_{name.upper()}_PYTHON")
        if given or (inside and inside.exists()):
            found[name] = given or str(inside)
    if "unsloth" in named:
        found["unsloth"] = sys.executable
    if missing := [name for name in named if name not in found]:
        raise SystemExit(
            f"no environment of {', '.join(missing)}: set PEERS_{missing[0].upper()}_PYTHON, or"
            f" make it: --make-envs FOLDER {' '.join(missing)}, then --envs FOLDER"
        )
    return {name: found[name] for name in PEERS if name in (named or found)}


def write(file: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Put settings into the results; those measured anew replace what was there."""
    keys = ("size", "lengths", "best")
    before = json.loads(file.read_text("utf-8"))["settings"] if file.exists() else []
    new = {tuple(entry[key] for key in keys) for entry in entries}
    kept = [entry for entry in before if tuple(entry[key] for key in keys) not in new]
    order = [*material.SIZES, *material.SIGMAS]
    settings = sorted(
        [*kept, *entries],
        key=lambda one: (one["best"], order.index(one["size"]), order.index(one["lengths"])),
    )
    content = {"schema_version": 1, "settings": settings}
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Compare as the command line says."""
    given = read_options()
    if given.make_envs:
        envs.make(given.make_envs, given.peers or list(envs.PACKAGES))
        return
    pythons = find_pythons(given.peers, given.envs)
    entries = []
    for size in given.size:
        for lengths in given.lengths:
            setting = argparse.Namespace(**{**vars(given), "size": size, "lengths": lengths})
            with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
                folder = given.folder / f"{size}-{lengths}" if given.keep else Path(temporary)
                folder.mkdir(parents=True, exist_ok=True)
                entry = {**compare(pythons, setting, folder), "device": device()}
            entries.append(entry)
            kind = "at its best" if given.best else "rows in order, float32"
            print_table(f"{size}, {lengths}, {kind}", entry["peers"], entry["failed"])
            write(given.out, entries)


if __name__ == "__main__":
    main()
