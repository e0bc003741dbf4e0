"""The comparison with peers: the same rows for all, and sums that add up."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "peers"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that imports a file of the benchmarks, which import one another by name."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def one(file: Path) -> Any:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, file.stem, module)
        spec.loader.exec_module(module)
        return module

    for name in ("given", "material", "envs", "watch"):
        one(FOLDER / f"{name}.py")
    return one


def run(seconds: float, **content: Any) -> dict[str, Any]:
    return {
        "loop_seconds": seconds, "wall_seconds": seconds + 2, "processor_seconds": seconds,
        "peak_bytes": 100, "num_tokens": 60, "first_loss": 8.0, "final_loss": 7.0, "note": "",
        "versions": {}, **content,
    }  # fmt: skip


def test_rows_are_the_same_for_all_and_as_long_as_asked(load: Any, tmp_path: Path) -> None:
    material, given = load(FOLDER / "material.py"), load(FOLDER / "given.py")
    rows = material.draw_rows(400, material.SIGMAS["even"], 4096)
    assert rows == material.draw_rows(400, material.SIGMAS["even"], 4096)
    lengths = sorted(len(row["ids"]) for row in rows)
    assert lengths[200] == pytest.approx(material.MEDIAN_LENGTH, rel=0.05)
    uneven = sorted(
        len(row["ids"]) for row in material.draw_rows(400, material.SIGMAS["uneven"], 4096)
    )
    assert uneven[360] / uneven[40] > 2 * lengths[360] / lengths[40]
    trained = sum(row["num_trained"] for row in rows) / sum(lengths)
    assert trained == pytest.approx(1 / 8, rel=0.05)
    assert {row["ids"][-1] for row in rows} == {material.END}
    material.write_rows(tmp_path / "rows.jsonl", rows)
    work = given.Work(model="", rows=str(tmp_path / "rows.jsonl"), folder="", steps=3, batch=8)
    read = given.read_rows(work)
    assert given.count(read) == sum(len(row["ids"]) for row in rows[:24])
    padded = given.pad(read[:8])
    assert sum(map(sum, padded["attention_mask"])) == given.count(read[:8])
    assert sum(label >= 0 for label in padded["labels"][0]) == rows[0]["num_trained"]


def test_ratios_are_of_the_same_repeat(load: Any) -> None:
    compare = load(FOLDER / "compare.py")
    summary = compare.sum_up(
        {"peftkit": [run(1.0), run(2.0), run(1.0)], "trl": [run(3.0), run(4.0), run(2.5)]}
    )
    assert summary["trl"]["loop_seconds"]["ratio_to_peftkit"] == {
        "median": 2.5, "min": 2.0, "max": 3.0
    }  # fmt: skip
    assert summary["trl"]["tokens_per_second"] == 20.0
    assert summary["peftkit"]["wall_seconds"]["ratio_to_peftkit"]["median"] == 1.0


def test_other_work_is_refused(load: Any) -> None:
    compare = load(FOLDER / "compare.py")
    same = {"a": run(1.0), "b": run(1.0), "c": run(1.0, first_loss=8.001)}
    compare.check_same(same, 60, best=False)
    with pytest.raises(compare.PeerError, match="c read 61 tokens, not 60"):
        compare.check_same({**same, "c": run(1.0, num_tokens=61)}, 60, best=False)
    odd = {**same, "c": run(1.0, first_loss=8.4)}
    with pytest.raises(compare.PeerError, match=r"c began at a loss of 8\.4000"):
        compare.check_same(odd, 60, best=False)
    compare.check_same(odd, 60, best=True)


def test_settings_measured_anew_replace_the_old(load: Any, tmp_path: Path) -> None:
    compare = load(FOLDER / "compare.py")
    out = tmp_path / "out.json"
    entry = {"size": "80M", "lengths": "even", "best": False, "peers": 1}
    compare.write(out, [entry])
    compare.write(out, [{**entry, "peers": 2}, {**entry, "size": "5M"}])
    settings = json.loads(out.read_text(encoding="utf-8"))["settings"]
    assert [(one["size"], one["peers"]) for one in settings] == [("5M", 1), ("80M", 2)]


def test_a_command_is_measured_with_its_children(load: Any, tmp_path: Path) -> None:
    watch = load(FOLDER / "watch.py")
    grow = "x = b'1' * 60_000_000; import time; time.sleep(0.4)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grow!r}])"
    used = watch.watch(
        [sys.executable, "-c", code], environment=os.environ, log=tmp_path / "log",
        folder=tmp_path,
    )  # fmt: skip
    assert used.exit_code == 0
    assert used.peak_bytes > 65_000_000
    assert used.wall_seconds > 0.4


def test_the_share_of_the_machine_is_least_operations_over_the_rate(load: Any) -> None:
    limits = load(ROOT / "benchmarks" / "limits.py")
    # By hand, a layer: q and o 256 x 256, k and v 256 x 128, three of 256 x 768.
    assert limits.adapter_weights(limits.material.SIZES["5M"], 8) == 5 * 8 * (1024 + 768 + 3072)
    setting = {
        "size": "5M", "bf16": False, "num_tokens": 1000, "num_trained_tokens": 0, "rank": 0,
        "num_matmul_weights": 4096 * 256 + 500, "sum_squared_lengths": 0,
        "peers": {"peftkit": {"loop_seconds": {"median": 2.0}}},
    }  # fmt: skip
    assert limits.operations(setting) == 4 * 500 * 1000
    assert limits.shares(setting, {"float32_flops_per_second": 2e6}) == {"peftkit": 0.5}


@pytest.mark.peer
@pytest.mark.parametrize("size", ["5M"])
def test_peers_of_this_environment_do_the_same_work(load: Any, tmp_path: Path, size: str) -> None:
    compare = load(FOLDER / "compare.py")
    given = compare.read_options(["--steps", "2", "--batch", "2", "--repeats", "1"])
    setting = compare.argparse.Namespace(**{**vars(given), "size": size, "lengths": "even"})
    pythons = compare.find_pythons(["peftkit", "trl", "transformers"], None)
    entry = compare.compare(pythons, setting, tmp_path)
    assert not entry["failed"]
    assert set(entry["peers"]) == {"peftkit", "trl", "transformers"}


def test_what_was_measured_becomes_tables_rows_and_a_picture(load: Any, tmp_path: Path) -> None:
    compare, report = load(FOLDER / "compare.py"), load(ROOT / "benchmarks" / "peers_report.py")
    runs = {"peftkit": [run(1.0), run(2.0)], "trl": [run(3.0), run(4.0)]}
    setting = {
        "size": "5M", "lengths": "even", "best": False, "rank": 8, "steps": 100, "batch": 8,
        "threads": 2, "repeats": 2, "num_tokens": 60, "device": {"name": "a CPU"},
        "peers": compare.sum_up(runs), "failed": {"litgpt": "it broke"},
    }  # fmt: skip
    shares = {
        "float32_flops_per_second": 1.78e11, "bfloat16_flops_per_second": 7e11,
        "settings": [{"size": "5M", "lengths": "even", "best": False, "shares": {"peftkit": 0.5}}],
    }  # fmt: skip
    page = "\n".join(report.make_section([setting], shares))
    assert "| peftkit  | 45 | 1.5 (1.0 to 2.0) | 3.5 (3.0 to 4.0) | 0 | 7.0000 | 50% |  |" in page
    assert "litgpt could not be run." in page
    assert "178 GFLOP/s" in page
    readme = f"a\n{report.BEGIN}\nold\n{report.END}\nb"
    assert report.put_into_readme(readme, []) == readme
    assert "old" not in report.put_into_readme(readme, [setting])
    assert report.plot_speed([setting], tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 1000
    assert report.load(tmp_path) == []
