"""The one command for a GPU: what it says beforehand, its sums, and every stage on the CPU."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from peftkit.plugins import Machine
from peftkit.system.machine import describe_machine

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
GIB = 1 << 30


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield


def stage(name: str) -> Any:
    return importlib.import_module(f"gpu_stages.{name}")


def card(total: int = 140, free: int = 140, *, name: str = "a card", bf16: bool = True) -> Machine:
    return Machine("cuda", bf16, total * GIB, free * GIB, name)


def said(machine: Machine | None, **facts: Any) -> tuple[str, bool]:
    facts = {"driver": "580.159", "cuda": "13.0", **facts}
    lines, can_run = stage("facts").examine(stage("facts").Facts(machine, **facts))
    return "\n".join(lines), can_run


def test_a_free_card_of_today_is_named_and_used() -> None:
    assert said(card()) == ("a card, 140.00 GiB, driver 580.159", True)


@pytest.mark.parametrize(
    ("machine", "facts", "line"),
    [
        (None, {}, "no NVIDIA GPU answers nvidia-smi; --dry tries every stage on the CPU"),
        (card(), {"driver": "535.54.03"}, "driver 535.54.03 is too old for torch's CUDA 13.0"),
        (card(), {"cuda": None}, "this torch is a build without CUDA"),
        (card(), {"missing": ["trl"]}, "trl is not installed: install it"),
        (card(bf16=False), {}, "no bfloat16 arithmetic"),
    ],
)
def test_what_keeps_the_stages_from_running(machine: Any, facts: Any, line: str) -> None:
    text, can_run = said(machine, **facts)
    assert line in text and not can_run


def test_a_busy_card_and_a_small_one_run_and_say_what_that_means() -> None:
    text, can_run = said(card(free=105), neighbours=["python (12, 35.00 GiB)"])
    assert can_run
    assert "busy: 35.00 GiB are taken by python (12, 35.00 GiB)" in text
    assert "held against the 105.00 GiB that are free, 25% less" in text
    text, can_run = said(card(total=8, free=8))
    assert can_run and "the grid shrinks to what is planned to fit in 8.00 GiB" in text


def test_nvidia_smi_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    facts, asked = stage("facts"), []

    def answer(command: list[str], **_: Any) -> Any:
        asked.append(command)
        line = "NVIDIA H200, 143771, 143000, 580.159.04, 9.0\n"
        if "compute-apps" in command[1]:
            line = "77, /usr/bin/python3, 1024\n78, [Not Found], [N/A]\n"
        return SimpleNamespace(stdout=line)

    monkeypatch.setattr(facts.subprocess, "run", answer)
    found = facts.gather()
    assert found.machine == Machine("cuda", True, 143771 << 20, 143000 << 20, "NVIDIA H200")
    assert (found.driver, found.missing) == ("580.159.04", [])
    assert found.neighbours == ["python3 (77, 1.00 GiB)", "[Not Found] (78, an unknown size)"]
    assert facts.read_card("Tesla T4, 15360, 15000, 535.1, 7.5")[0].supports_bfloat16 is False
    monkeypatch.setattr(facts.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="\n"))
    assert facts.gather().machine is None
    slice_of_one = SimpleNamespace(stdout="A100, [N/A], [N/A], 580.1, 8.0\n")
    monkeypatch.setattr(facts.subprocess, "run", lambda *_, **__: slice_of_one)
    assert facts.gather().machine is None


def test_time_is_shared_by_weight_and_what_is_saved_goes_to_the_later_ones() -> None:
    gpu = importlib.import_module("gpu")
    stages = {name: gpu.stage_of(name) for name in gpu.STAGES}
    left, spent = 540.0, []
    for at, name in enumerate(gpu.STAGES):
        spent.append(gpu.share_of(name, gpu.STAGES[at:], stages, left=left))
        left -= spent[-1]
    assert left == pytest.approx(0) and min(spent) > 15
    assert gpu.share_of("edges", ["edges"], stages, left=100.0) == 100.0
    assert gpu.share_of("exact", gpu.STAGES[5:], stages, left=-1.0) == 0.0


def test_what_held_the_peak_is_found_in_the_allocator_s_record() -> None:
    snapshot = stage("snapshot")
    held = snapshot.holders_at_peak(snapshot.reduce_snapshot(snapshot.MADE_UP))
    assert held == {
        "peak_bytes": 3072,
        "num_blocks": 2,
        "holders": [
            {"num_bytes": 2048, "num_blocks": 1,
             "asked_by": ["without a Python line, 2,048 bytes"]},
            {"num_bytes": 1024, "num_blocks": 1, "asked_by": ["modules/linear.py:1 forward"]},
        ],
    }  # fmt: skip
    freed_before_the_record = [[0, 5, 100, 0], [1, 5, 7, 0]]
    reduced = {"stacks": [[]], "events": freed_before_the_record}
    assert snapshot.holders_at_peak(reduced)["peak_bytes"] == 7


def test_errors_are_summed_up_and_the_worst_come_first() -> None:
    plan = stage("plan")

    def cell(name: str, planned: int | None, real: int | None) -> dict[str, Any]:
        measured = None if real is None else {"peak_bytes": real + 5, "baseline_bytes": 3}
        one = {"name": name, "planned_bytes": planned, "measured": measured, "left_over_bytes": 2,
               "fitted": real is not None}  # fmt: skip
        return {**one, "error": plan.error_of(one)}

    cells = [cell("a", 102, 100), cell("b", 96, 100), cell("c", 100, 100), cell("d", 9, None),
             cell("e", None, 100)]  # fmt: skip
    summary = plan.summarize(cells)
    assert summary["mean_error"] == pytest.approx(0.02)
    assert (summary["worst_error"], summary["ran_out"]) == (pytest.approx(0.04), ["d"])
    assert [one["name"] for one in plan.worst(cells)] == ["b", "a"]


def test_variants_are_held_against_trl() -> None:
    def one(variant: str, speed: float, loss: float) -> dict[str, Any]:
        return {"contest": "LoRA", "variant": variant, "model": "8b", "tokens_per_second": speed,
                "loss": loss, "share_of_rate": 0.5, "peak_bytes": 1}  # fmt: skip

    runs = [one("trl", 90, 2.0), one("peftkit", 130, 2.001), one("trl", 110, 2.0),
            {"contest": "LoRA", "variant": "peftkit", "reason": "ran out"}]  # fmt: skip
    trl, own = stage("speed").summarize(runs)
    assert (trl["tokens_per_second"], trl["times_trl"]) == (100, 1.0)
    assert (own["times_trl"], own["has_same_loss"]) == (1.3, True)


def test_a_length_is_bracketed() -> None:
    reach = stage("reach")
    tries = [{"length": n, "fitted": n < 1010} for n in (980, 1030, 1000, 1080)]
    assert reach.bracket(tries) == {"longest_fitted": 1000, "shortest_failed": 1030}
    setting = SimpleNamespace(is_dry=False, machine=card(total=24, free=23))
    assert [size / GIB for size in reach.sizes(setting)] == [8, 12, 16, 23]


def test_packed_rows_are_blocks_of_documents_that_need_no_more() -> None:
    cases = stage("cases")
    packed = cases.Case("tiny", "lora-packed", 256, 2, num_steps=3)
    lengths = cases.document_lengths(packed)
    assert 256 * 8 <= sum(lengths) <= 256 * 10 and max(lengths) < 256
    assert cases.document_lengths(cases.Case("tiny", "lora", 64, 2, num_steps=1)) == [64] * 4
    assert cases.Case.from_json(json.loads(json.dumps(packed.to_json()))) == packed


def test_every_case_is_one_that_the_gate_lets_through(tmp_path: Path) -> None:
    """Recipes of all stages are checked here, so that no minute of a card goes to a typo."""
    from peftkit.recipe.load import load_recipe

    cases, plan, speed, reach, smoke, small = map(
        stage, ("cases", "plan", "speed", "reach", "smoke", "small_run")
    )
    setting = SimpleNamespace(is_dry=False, machine=card())
    requests = [*plan.requests(setting), *speed.requests(setting), *reach.requests(setting)]
    assert {request.case.method for request in requests} <= set(cases.METHODS)
    for request in requests:
        cases.write_recipe(request.case, tmp_path / request.name)
    for trial in smoke.TRIALS:
        load_recipe(ROOT / "recipes" / f"{trial.recipe}.yaml", trial.all_overrides)
    for options in stage("exact").RECIPES.values():
        load_recipe(small.RECIPE, (*small.SHORT, "method.sft.max_steps=6", *options))
    methods = {trial.method for trial in smoke.TRIALS}
    from peftkit.plugins import plugin_names

    assert methods >= set(plugin_names("methods")) - {
        "pretrain_mlm",
        "plain_loop",
    }  # the last is of a benchmark


class Event:
    """Stand for a mark in the device's queue: each lies 2 ms after the one before."""

    made = 0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.made += 1
        self.at = Event.made

    def elapsed_time(self, end: Event) -> float:
        return 2.0 * (end.at - self.at)


def test_the_device_s_own_marks_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    runs: list[int] = []
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(Event=Event, synchronize=lambda: None))
    seconds = stage("bench").seconds_of(lambda: runs.append(1), "cuda", repeats=5)
    assert (seconds, len(runs)) == (0.002, 7), "two warm up"


class FakeCuda:
    """Stand for torch.cuda, and remember what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        def call(*values: Any, **options: Any) -> Any:
            self.told.append((name, *values, *options.items()))
            answers = {
                "get_device_properties": SimpleNamespace(total_memory=100 * GIB),
                "memory_allocated": 25 * GIB,
            }
            return answers.get(name)

        return call


def test_a_smaller_card_is_enforced_and_a_card_is_pinched(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from peftkit.memory.runtime import CONTEXT_BYTES

    cuda = FakeCuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None, raising=False)
    with stage("bench").capped("cuda", 24 * GIB):
        share = (24 * GIB - CONTEXT_BYTES) / (100 * GIB)
        assert cuda.told[-1] == ("set_per_process_memory_fraction", share)
    assert cuda.told[-1] == ("set_per_process_memory_fraction", 1.0)
    undo = stage("edges")._pinch_card()
    assert ("set_per_process_memory_fraction", 0.25) in cuda.told
    assert cuda.told[-1] == ("empty_cache",)
    undo()
    assert cuda.told[-1] == ("set_per_process_memory_fraction", 1.0)
    assert stage("bench").clear("cuda") == 25 * GIB


def test_the_allocator_s_record_is_switched_on_and_read_and_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch.cuda import memory

    told: list[Any] = []
    monkeypatch.setattr(memory, "_record_memory_history", lambda **options: told.append(options))
    monkeypatch.setattr(memory, "_snapshot", lambda: told.append("read") or {"x": 1})
    with stage("snapshot").recording("cuda") as recorded:
        pass
    assert recorded.snapshot == {"x": 1}
    assert told[0]["enabled"] == "all" and told[1] == "read" and told[2] == {"enabled": None}


@pytest.fixture
def setting(tmp_path: Path) -> Any:
    (tmp_path / "out").mkdir()
    make = stage("bench").Setting
    return make(describe_machine(), tmp_path / "out", tmp_path / "work", is_dry=True)


def test_a_stage_keeps_its_numbers_as_they_come_and_says_what_failed(
    setting: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    gpu, rate = importlib.import_module("gpu"), stage("rate")
    monkeypatch.setattr(rate, "_nf4", lambda *_: 1 / 0)
    assert gpu.run_stage("rate", setting, 30.0) == 1
    content = json.loads((setting.out / "rate.json").read_text())
    assert content["state"] == "failed" and "ZeroDivisionError" in content["reason"]
    assert [one["dtype"] for one in content["matrix"]] == [
        "bfloat16", "float16", "float32", "tf32"
    ]  # fmt: skip
    assert len(content["copy"]) == 3 and content["versions"]["torch"] and content["date"]
    assert rate.matrix_rate(setting) == content["matrix"][0]["flops_per_second"] > 0


def test_a_stage_that_was_killed_keeps_what_it_had(setting: Any) -> None:
    gpu = importlib.import_module("gpu")
    file = setting.out / "plan.json"
    file.write_text(json.dumps({"stage": "plan", "state": "running", "cells": [1]}))
    assert gpu.settle(setting, "plan", -9) == "stopped, its time was over"
    assert json.loads(file.read_text())["cells"] == [1]
    assert gpu.settle(setting, "reach", 1) == "stopped, exit code 1", "it never began"


def test_a_case_trains_and_running_out_is_a_finding(
    setting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import peftkit.benching.trial as trials

    case = stage("cases").Case("tiny", "lora-kept-packed", 64, 2, num_steps=1)
    bench = stage("bench").Bench(setting, "plan", seconds=60.0)
    found = stage("trials").train(case, bench)
    assert found["fitted"] and 100 < found["measured"]["num_tokens"] <= 128

    def run_out(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(trials, "run_trial", run_out)
    found = stage("trials").train(case, bench)
    assert (found["fitted"], found["measured"]) == (False, None)
    assert "out of memory" in found["reason"]
    monkeypatch.setattr(trials, "run_trial", lambda *_, **__: 1 / 0)
    assert (
        stage("trials").attempted(bench, "it", lambda: stage("trials").train(case, bench)) is None
    )
    assert bench.content["failures"][0]["what"] == "it"


def test_without_a_card_a_line_and_exit_code_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    gpu = importlib.import_module("gpu")
    monkeypatch.setattr(stage("facts"), "_card", lambda: (None, None))
    assert gpu.main(["--out", str(tmp_path)]) == 5
    assert "no NVIDIA GPU answers nvidia-smi" in capsys.readouterr().out
    assert gpu.main(["--dry", "--only", "rate", "--skip", "rate", "--out", str(tmp_path)]) == 2
    with pytest.raises(SystemExit):
        gpu.main(["--minutes", "-1"])
    assert "-1 is no time: give minutes above 0" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_dry_run_executes_every_stage(tmp_path: Path) -> None:
    """At most 3 minutes on 2 quiet cores; with the fakes of the card above, 95 % of all lines."""
    coverage = pytest.importorskip("coverage")
    settings = tmp_path / "coveragerc"
    settings.write_text(
        f"[run]\ninclude =\n  {BENCHMARKS}/gpu.py\n  {BENCHMARKS}/gpu_stages/*\n"
        f"parallel = true\npatch = subprocess\ndata_file = {tmp_path}/coverage\n"
    )
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}"]
    began = time.monotonic()
    done = subprocess.run(
        [*command, str(BENCHMARKS / "gpu.py"), "--dry", "--minutes", "40", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    sys.stdout.write(f"{done.stdout}{time.monotonic() - began:.0f} s\n")
    subprocess.run(
        [*command, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", __file__],
        check=True,
        cwd=ROOT,
    )
    for name in importlib.import_module("gpu").STAGES:
        content = json.loads((tmp_path / f"{name}.json").read_text())
        assert (content["state"], content["is_dry"]) == ("done", True), content
    measured = coverage.Coverage(config_file=str(settings))
    measured.combine([str(tmp_path)])
    assert measured.report(show_missing=True) >= 95
