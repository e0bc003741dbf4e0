"""Merge the same adapter with peftkit, peft, mergekit, axolotl and LLaMA-Factory, in turns.

    python benchmarks/merge_peers.py --folder /path/with/room --gib 2 \
        mergekit=/path/to/its/venv/bin/python axolotl=... llamafactory=...

Each peer runs in the environment of the Python that is named for it, as its own documentation has
it. Besides time and memory, every element that a peer wrote is compared with the correctly rounded
one, which is peftkit's (`tests/merge` holds it against float64). Writes
benchmarks/results/merge_peers.json.
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
from pathlib import Path

import numpy as np
from merge import GIB, MERGE, PEFT, ROOT, measured, settle, sizes_of, write_adapter, write_model

from peftkit.embedded import model_path

IMPORTS = """
anonymous = [l for l in open("/proc/self/status") if l.startswith("RssAnon")][0].split()[1]
print("imports", anonymous, flush=True)
"""
MERGEKIT = f"""
import sys, pathlib
from mergekit.scripts.run_yaml import main
{IMPORTS}
adapter, out, base = sys.argv[1:]
file = pathlib.Path(out + ".yaml")
file.write_text(
    "models: [{{model: " + base + "+" + adapter + "}}]\\n"
    "merge_method: passthrough\\ndtype: bfloat16\\n"
)
main([str(file), out, "--quiet", "--lora-merge-cache", out + ".cache"], standalone_mode=False)
print("merged", flush=True)
"""
AXOLOTL = f"""
import sys
from axolotl.cli.utils.lora_merge import merge_lora_sharded_efficient
{IMPORTS}
adapter, out, base = sys.argv[1:]
merge_lora_sharded_efficient(
    base_model_path=base, lora_adapter_path=adapter, output_path=out, device="cpu"
)
print("merged", flush=True)
"""
LLAMAFACTORY = f"""
import os, sys
os.environ["DISABLE_VERSION_CHECK"] = "1"
from llamafactory.train.tuner import export_model
{IMPORTS}
adapter, out, base = sys.argv[1:]
export_model({{
    "model_name_or_path": base, "adapter_name_or_path": adapter, "template": "empty",
    "finetuning_type": "lora", "export_dir": out, "export_size": 5, "export_device": "cpu",
}})
print("merged", flush=True)
"""
SCRIPTS = {
    "peftkit": MERGE, "peft": PEFT, "mergekit": MERGEKIT, "axolotl": AXOLOTL,
    "llamafactory": LLAMAFACTORY,
}  # fmt: skip
PACKAGES = ("torch", "transformers", "peft", "mergekit", "axolotl", "llamafactory")


def read_bits(folder: Path) -> dict[str, np.memmap]:
    """Map every tensor of a model as 16-bit words."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                if entry["dtype"] != "BF16":
                    raise SystemExit(f"{file}: {name} is {entry['dtype']}")
                found[name] = np.memmap(
                    file, np.uint16, "r", 8 + length + begin, ((end - begin) // 2,)
                )
    return found


def compare(reference: Path, other: Path) -> dict[str, int]:
    """Count the elements of another merge that are not the correctly rounded ones."""
    expected, found = read_bits(reference), read_bits(other)
    shared = expected.keys() & found.keys()
    return {
        "elements": sum(int(expected[name].size) for name in shared),
        "not_correctly_rounded": sum(
            int(np.count_nonzero(expected[name] != found[name])) for name in shared
        ),
        "missing_tensors": len(expected.keys() - found.keys()),
    }


def versions_of(python: str) -> dict[str, str]:
    """Ask another environment for the versions that matter."""
    code = (
        "import importlib.metadata as m, json, sys\n"
        f"names = {PACKAGES!r}\n"
        "have = {d.metadata['Name'].lower() for d in m.distributions()}\n"
        "print(json.dumps({n: m.version(n) for n in names if n in have}))"
    )
    printed = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    versions: dict[str, str] = json.loads(printed.stdout)
    return versions


def main() -> None:
    """Merge in turns, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", nargs="*", help="NAME=PYTHON of mergekit, axolotl, llamafactory")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gib", type=float, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    pythons = {"peftkit": sys.executable, "peft": sys.executable}
    pythons |= dict(peer.split("=", 1) for peer in options.peers)
    work = options.folder / "merge-peers"
    shutil.rmtree(work, ignore_errors=True)
    sizes = sizes_of(options.gib, with_big_tensor=False)
    base = write_model(work / "base", sizes, tied=False)
    for file in model_path("docstring-lm").glob("*token*"):
        shutil.copy(file, base)  # LLaMA-Factory asks for one
    adapter = write_adapter(work / "adapter", base, sizes)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    exactness = {}
    for _ in range(options.repeats):
        for name, python in pythons.items():
            settle()
            out = work / name
            runs[name].append(measured(SCRIPTS[name], adapter, out, base, python=python))
            if name not in exactness:
                exactness[name] = compare(work / "peftkit", out)
            for made in work.glob(f"{name}*"):
                if made.is_file():
                    made.unlink()
                elif made != work / "peftkit":
                    shutil.rmtree(made)
        shutil.rmtree(work / "peftkit", ignore_errors=True)
    num_bytes = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    shutil.rmtree(work)
    content = {
        "schema_version": 1,
        "gib": round(num_bytes / GIB, 2),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "peers": {
            name: {
                **{key: [round(run[key], 2) for run in some] for key in some[0]},
                **exactness[name],
                "versions": versions_of(pythons[name]),
            }
            for name, some in runs.items()
        },
    }
    ours = statistics.median(run["seconds"] for run in runs["peftkit"])
    for name, some in runs.items():
        seconds = statistics.median(run["seconds"] for run in some)
        mib = statistics.median(run["mib_beyond_imports"] for run in some)
        found = exactness[name]
        print(
            f"{name:13} {seconds:6.1f} s ({seconds / ours:.1f} times) {mib:8,.0f} MiB,"
            f" {found['not_correctly_rounded']:,} of {found['elements']:,} not rounded correctly"
        )
    out = ROOT / "benchmarks" / "results" / "merge_peers.json"
    out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
