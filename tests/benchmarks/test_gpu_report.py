"""A card's findings as tables and rows: predicted and measured apart, dry runs left out."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30


@pytest.fixture(scope="module")
def report() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("gpu_report")


def found(stage: str, **content: Any) -> dict[str, Any]:
    versions = {"torch": "2.11", "transformers": "5.23", "peft": "0.21", "trl": "1.16"}
    device = {"name": "NVIDIA H200", "total_bytes": 140 * GIB, "driver": "580.1"}
    return {"stage": stage, "is_dry": False, "device": device, "versions": versions,
            "date": "2027-01-02 03:04 UTC", "state": "done", **content}  # fmt: skip


def rate(dtype: str, tera: float) -> dict[str, Any]:
    return {"dtype": dtype, "edge": 8192, "flops_per_second": tera * 1e12}


CASE = {"model": "8b", "method": "qlora", "micro_batch": 2, "length": 2048}
SPEED = {"contest": "LoRA", "model": "8b", "num_runs": 2, "least": 12900.0, "most": 13100.0,
         "share_of_rate": 0.41, "peak_bytes": 40 * GIB, "loss_apart": 0.0}  # fmt: skip
STAGES = {
    "rate": found(
        "rate",
        matrix=[rate("bfloat16", 790), rate("float16", 780), rate("tf32", 400),
                rate("float32", 50)],
        copy=[{"dtype": "uint8", "bytes_per_second": 4.3e12}],
        nf4=[{"bytes_per_second": 2e12}],
        host=[{"way": "to the host", "bytes_per_second": 5.2e10}],
    ),
    "plan": found(
        "plan", state="stopped", reason="its time was over",
        cells=[{
            "case": CASE, "planned_bytes": 10 * GIB, "error": -0.01,
            "predicted": {"speed": {"seconds_per_step": 0.5}},
            "measured": {"peak_bytes": 11 * GIB, "reserved_bytes": 12 * GIB,
                         "step_seconds": [0.7, 0.6, 0.8]},
        }, {
            "case": CASE, "planned_bytes": None, "error": None, "predicted": None, "measured": None,
        }],
        summary={"num_cells": 1, "mean_error": 0.01, "worst_error": 0.02, "ran_out": ["x"]},
        evaluations=[{"case": CASE, "planned_bytes": GIB, "error": None, "measured": {}}],
        left_out=[{"name": "8b_full", "reason": "planned to take 150.00 GiB"}],
    ),
    "speed": found(
        "speed",
        summary=[{**SPEED, "variant": "trl", "tokens_per_second": 10000.0, "times_trl": 1.0},
                 {**SPEED, "variant": "peftkit", "tokens_per_second": 13000.0, "times_trl": 1.3}],
        generation={"num_rows": 16, "length": 256, "model": "8b",
                    "tokens_per_second": {"model.generate": 400.0, "peftkit": 420.0}},
    ),
    "reach": found("reach", sizes=[{"total_bytes": 24 * GIB, "planned_length": 30974,
                                    "longest_fitted": 30354, "shortest_failed": None}]),
    "exact": found("exact", recipes=[{"name": "LoRA", "said": "the same bits twice, and resumed"}]),
    "smoke": found(
        "smoke", trials=[{"name": "dpo", "final_loss": 0.69, "max_difference": 0.0}],
        tests={"said": "3 passed"}, failures=[{"what": "kto", "reason": "ValueError: no"}],
    ),
    "edges": found("edges", budget={"exit_code": 5, "message": "too much; try: less"}),
}  # fmt: skip


def write(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    for name, content in STAGES.items():
        (folder / f"{name}.json").write_text(json.dumps({**content, **changes}))
    return folder


def test_every_stage_is_a_table_that_says_what_was_measured(report: Any, tmp_path: Path) -> None:
    stages = report.load(write(tmp_path / "gpu"))
    page = "\n".join(report.make_section(stages))
    for line in (
        "on NVIDIA H200 (140.00 GiB, driver 580.1), torch 2.11, transformers 5.23, peft 0.21,"
        " trl 1.16, 2027-01-02 03:04 UTC.",
        "| product of 8,192 x 8,192, bfloat16 | 790 TFLOP/s |",
        "| pinned memory to the host | 52 GB/s |",
        "1 cells: the planned peak is 1.00% off in the mean and 2.00% at worst;",
        "| model | method | tokens | planned | allocated | reserved | error | predicted s |"
        " measured s |",
        "| 8b | qlora | 2 x 2,048 | 10.00 GiB | 11.00 GiB | 12.00 GiB | -1.00% | 0.500 | 0.700 |",
        "| 8b | qlora | 2 x 2,048 | - | ran out | - | - | - | - |",
        "Not measured: 8b_full: planned to take 150.00 GiB; stopped: its time was over.",
        "| LoRA | peftkit | 8b | 13,000 | 12,900 to 13,100 | 1.30 | 41% | 40.00 GiB | 0 |",
        "| 24.00 GiB | 30,974 | 30,354 | - |",
        "| LoRA | the same bits twice, and resumed |",
        "| dpo | 0.6900 | the same |",
        "Not measured: kto failed: ValueError: no.",
        "| budget | 5 | too much |",
    ):
        assert line in page, line


def test_without_a_card_it_says_so_and_a_dry_run_is_no_card(report: Any, tmp_path: Path) -> None:
    assert report.load(tmp_path) == {}
    assert report.load(write(tmp_path / "dry", is_dry=True)) == {}
    assert "No card has run it yet." in "\n".join(report.make_section({}))
    assert report.points({}) == [] and not report.plot_speed({}, tmp_path / "x.png")
    assert report.points(STAGES) == [(10 * GIB, 11 * GIB, "one GPU")]
    assert report.plot_speed(STAGES, tmp_path / "x.png") and (tmp_path / "x.png").stat().st_size


def test_readme_gets_a_table_between_its_marks(report: Any) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.put_into_readme(readme, {}) == readme, "as it stands without a card"
    written = report.put_into_readme(readme, STAGES)
    assert (
        "| planned against allocated peaks on a NVIDIA H200, 1 trainings | 1.00% apart" in written
    )
    assert "| LoRA of 8b on a NVIDIA H200, peftkit | 13,000 tokens/s, 1.30 times plain" in written
    assert "on 24.00 GiB | planned 30,974 tokens, trained 30,354 |" in written
    assert "not measured yet" not in written
    assert report.put_into_readme(written, {}) == readme
    with pytest.raises(ValueError, match="README has no"):
        report.put_into_readme("nothing", STAGES)


def test_the_catalogue_learns_a_card_s_rates(report: Any, tmp_path: Path) -> None:
    from peftkit.planning import devices

    file = Path(shutil.copy(ROOT / "peftkit" / "planning" / "devices.json", tmp_path / "d.json"))
    assert report.put_into_catalogue(file, STAGES["rate"])
    lines = file.read_text().splitlines()
    given = (ROOT / "peftkit" / "planning" / "devices.json").read_text().splitlines()
    changed = [line for line, before in zip(lines, given, strict=True) if line != before]
    entry = json.loads(changed[0].strip().rstrip(","))
    device, _ = devices._read(entry)
    assert len(changed) == 1 and device.is_measured
    assert (device.bfloat16_flops, device.bandwidth) == (790e12, 4.3e12)
    assert device.source == "benchmarks/results/gpu/rate.json, 2027-01-02 03:04 UTC"
    other = {**STAGES["rate"], "device": {"name": "a card"}}
    assert not report.put_into_catalogue(file, other)
    assert report.measured_rates(found("rate")) is None


def test_a_wheel_is_repacked_with_a_record_that_is_true(report: Any, tmp_path: Path) -> None:
    wheels = importlib.import_module("gpu_wheels")
    file = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("x/a.so", "x/b.so", "x/c.py", "x-1.dist-info/RECORD"):
            archive.writestr(name, name)
    wheels.repack(file, lambda name: not name.endswith("a.so"))
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["x/b.so", "x/c.py", "x-1.dist-info/RECORD"]
        record = archive.read("x-1.dist-info/RECORD").decode().splitlines()
    digest = wheels.base64.urlsafe_b64encode(hashlib.sha256(b"x/c.py").digest()).rstrip(b"=")
    assert record[1] == f"x/c.py,sha256={digest.decode()},6"
    assert record[-1] == "x-1.dist-info/RECORD,,"


def test_every_wheel_is_pinned(report: Any, tmp_path: Path) -> None:
    wheels = importlib.import_module("gpu_wheels")
    assert {name.lower() for name in wheels.NAMES} <= set(wheels.pins(ROOT / "constraints.txt"))
    with pytest.raises(SystemExit, match="nonesuch"):
        wheels.collect(tmp_path, ["nonesuch"], python="3.12", cuda="130")
