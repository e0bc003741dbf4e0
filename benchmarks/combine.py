"""Measure merges of two adapters: time and memory of each method, into the base and as an adapter.

    python benchmarks/combine.py --folder /path/with/room

Makes a 1 GiB model with two rank-16 LoRAs (as benchmarks/merge.py does) and deletes it afterwards.
Writes benchmarks/results/combine.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import merge as single

METHODS = {
    "cat": "", "svd": "", "linear": "", "ties": ", density: 0.2", "ties_svd": ", density: 0.2",
    "dare_linear_svd": ", density: 0.2",
}  # fmt: skip
TO_ADAPTER = {"cat": "", "svd": ", svd_rank: 16", "ties_svd": ", density: 0.2, svd_rank: 16"}
COMBINE = """
import sys
from pathlib import Path
from peftkit.merging.combine import combine
import numpy, yaml, {extra}
numpy.ones((64, 64), numpy.float32) @ numpy.ones((64, 64), numpy.float32)
anonymous = [l for l in open("/proc/self/status") if l.startswith("RssAnon")][0].split()[1]
print("imports", anonymous, flush=True)
first = Path(sys.argv[1])
result = combine([first, first.with_name("other")], method={method!r}, out=Path(sys.argv[2]),
                 to={to!r}, base=sys.argv[3], verify=False)
print("merged", result.deviation, result.error, flush=True)
"""


def main() -> None:
    """Measure every method once and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gib", type=float, default=1)
    parser.add_argument("--note", default="", help="what else the machine was doing")
    options = parser.parse_args()
    work = options.folder / "combine-benchmark"
    sizes = single.sizes_of(options.gib, with_big_tensor=False)
    base = single.write_model(work / "base", sizes, tied=False)
    first = single.write_adapter(work / "first", base, sizes)
    shutil.copytree(first, work / "other")
    config = json.loads((work / "other" / "adapter_config.json").read_text())
    (work / "other" / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 8}))
    found: dict[str, dict[str, float]] = {
        "one adapter": single.measured(single.MERGE, first, work / "out", base)
    }
    shutil.rmtree(work / "out")
    for to, methods in (("base", METHODS), ("adapter", TO_ADAPTER)):
        for name, rest in methods.items():
            method = f"{{{name}: {{weights: [0.7, 0.3]{rest}}}}}"
            extra = "torch" if to == "adapter" else "peftkit.merging.quantized"
            script = COMBINE.format(method=method, to=to, extra=extra)
            single.settle()
            run = single.measured(script, first, work / "out", base)
            found[f"{name} to {to}"] = {key: round(value, 2) for key, value in run.items()}
            shutil.rmtree(work / "out")
            write_results(options, sizes, found)
    shutil.rmtree(work)


def write_results(
    options: argparse.Namespace, sizes: dict[str, Any], found: dict[str, Any]
) -> None:
    """Write what is measured so far."""
    content = {
        "schema_version": 1, "gib": options.gib, "sizes": sizes, "note": options.note,
        "python": platform.python_version(), "cores": len(os.sched_getaffinity(0)),
        "packages": {name: metadata.version(name) for name in ("numpy", "torch")}, "runs": found,
    }  # fmt: skip
    file = Path(__file__).parent / "results" / "combine.json"
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
