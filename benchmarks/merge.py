"""Measure the merge: time against cp, memory whatever the size, and peft beside it.

    python benchmarks/merge.py --folder /path/with/room 1 2 4 16
    python benchmarks/merge.py --folder /dev/shm --in-memory 4

Needs three times the largest size in the folder. In memory (a tmpfs) no disk is waited for: that
is the comparison with cp alone. Every model is made here (random bfloat16 weights,
a rank-16 LoRA on every linear layer) and deleted afterwards. Merging and copying take turns, so
that what else the machine does hits both. Writes benchmarks/results/merge.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30
SHARD_BYTES = 4 * GIB
LINEARS = {
    "self_attn.q_proj": ("hidden", "hidden"), "self_attn.k_proj": ("kv", "hidden"),
    "self_attn.v_proj": ("kv", "hidden"), "self_attn.o_proj": ("hidden", "hidden"),
    "mlp.gate_proj": ("inner", "hidden"), "mlp.up_proj": ("inner", "hidden"),
    "mlp.down_proj": ("hidden", "inner"),
}  # fmt: skip
R = 16
PACKAGES = ("numpy", "peft", "torch", "transformers")

MERGE = """
import sys
from pathlib import Path
from peftkit.merge import merge
import numpy, peftkit.merging.quantized, peftkit.merging.card, yaml
numpy.ones((64, 64), numpy.float32) @ numpy.ones((64, 64), numpy.float32)
anonymous = [l for l in open("/proc/self/status") if l.startswith("RssAnon")][0].split()[1]
print("imports", anonymous, flush=True)
result = merge(Path(sys.argv[1]), out=Path(sys.argv[2]), base=sys.argv[3], verify=False)
print("merged", len(result.changed), flush=True)
"""
PEFT = """
import sys, torch
from transformers import AutoModelForCausalLM
from peft import PeftModel
anonymous = [l for l in open("/proc/self/status") if l.startswith("RssAnon")][0].split()[1]
print("imports", anonymous, flush=True)
base = AutoModelForCausalLM.from_pretrained(sys.argv[3], dtype=torch.bfloat16)
merged = PeftModel.from_pretrained(base, sys.argv[1]).merge_and_unload()
merged.save_pretrained(sys.argv[2])
print("merged", flush=True)
"""


def sizes_of(gib: float, *, with_big_tensor: bool) -> dict[str, int]:
    """Choose a Llama's sizes for about so many GiB of bfloat16."""
    hidden = 1024 if gib < 2 else 2048 if gib < 8 else 4096
    sizes = {"hidden": hidden, "kv": hidden // 4, "inner": 7 * hidden // 2}
    sizes["vocabulary"] = (2 * GIB // (2 * hidden)) if with_big_tensor else 32 * 1024
    layer = sum(sizes[a] * sizes[b] for a, b in LINEARS.values())
    rest = gib * GIB / 2 - 2 * sizes["vocabulary"] * hidden * (0.5 if with_big_tensor else 1)
    sizes["layers"] = max(1, round(rest / layer))
    return sizes


def tensors_of(sizes: dict[str, int], *, tied: bool) -> dict[str, tuple[int, ...]]:
    """Name every tensor with its shape."""
    hidden = sizes["hidden"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (sizes["vocabulary"], hidden)
    }
    for layer in range(sizes["layers"]):
        prefix = f"model.layers.{layer}"
        shapes[f"{prefix}.input_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (hidden,)
        for name, (rows, columns) in LINEARS.items():
            shapes[f"{prefix}.{name}.weight"] = (sizes[rows], sizes[columns])
    shapes["model.norm.weight"] = (hidden,)
    if not tied:
        shapes["lm_head.weight"] = (sizes["vocabulary"], hidden)
    return shapes


def largest_tensor_bytes(sizes: dict[str, int], *, tied: bool) -> int:
    """Return the size of the largest tensor."""
    return 2 * max(int(np.prod(shape)) for shape in tensors_of(sizes, tied=tied).values())


def write_safetensors(
    file: Path, shapes: dict[str, tuple[int, ...]], dtype: str, *, size: float = 0.02
) -> None:
    """Write random numbers of some size, a block of them again and again."""
    width = {"BF16": 2, "F32": 4}[dtype]
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + int(np.prod(shape)) * width
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    numbers = (np.random.default_rng(0).standard_normal(8_000_009) * size).astype(np.float32)
    block = (numbers.view(np.uint32) >> 16).astype(np.uint16) if dtype == "BF16" else numbers
    data = block.tobytes()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        while offset > 0:
            stream.write(data[:offset])
            offset -= len(data)


def write_model(folder: Path, sizes: dict[str, int], *, tied: bool) -> Path:
    """Write a Llama's folder in shards of at most 4 GiB."""
    folder.mkdir(parents=True)
    shapes, used = tensors_of(sizes, tied=tied), 0
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in shapes.items():
        num_bytes = 2 * int(np.prod(shape))
        if used and used + num_bytes > SHARD_BYTES:
            shards.append({})
            used = 0
        shards[-1][name] = shape
        used += num_bytes
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(folder / file, shard, "BF16")
        places |= dict.fromkeys(shard, file)
    index = json.dumps({"metadata": {}, "weight_map": places})
    (folder / "model.safetensors.index.json").write_text(index)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
        "hidden_size": sizes["hidden"], "intermediate_size": sizes["inner"],
        "num_hidden_layers": sizes["layers"], "num_attention_heads": 16, "num_key_value_heads": 4,
        "vocab_size": sizes["vocabulary"], "tie_word_embeddings": tied,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_adapter(folder: Path, base: Path, sizes: dict[str, int]) -> Path:
    """Write a rank-16 LoRA, in float32, on every linear layer."""
    folder.mkdir()
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(sizes["layers"]):
        for name, (rows, columns) in LINEARS.items():
            key = f"base_model.model.model.layers.{layer}.{name}"
            shapes[f"{key}.lora_A.weight"] = (R, sizes[columns])
            shapes[f"{key}.lora_B.weight"] = (sizes[rows], R)
    # A change of about 1.6 % of the weights, rather more than training usually makes.
    write_safetensors(folder / "adapter_model.safetensors", shapes, "F32", size=0.0063)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": R, "lora_alpha": 32, "bias": "none",
        "base_model_name_or_path": str(base), "target_modules": [n.split(".")[1] for n in LINEARS],
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def cpu_seconds() -> float:
    """Return the processor time of this process's finished children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def anonymous_kib(process: int) -> int:
    """Read the anonymous memory of a process and its workers now; 0 once they are gone.

    What workers share with the process that forked them counts once: Pss, not Rss.
    """
    total = 0
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon"):
                total += int(line.split()[1])
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return total
    return total + sum(anonymous_kib(int(child)) for child in children)


def measured(
    script: str, adapter: Path, out: Path, base: Path, *, python: str = sys.executable
) -> dict[str, float]:
    """Run a merge in a process of its own: whole seconds, and anonymous memory beyond imports."""
    start, cpu = time.perf_counter(), cpu_seconds()
    process = subprocess.Popen(
        [python, "-c", script, str(adapter), str(out), str(base)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
    )  # fmt: skip
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_kib(process.pid))
        time.sleep(0.2)  # reading it holds up who is read
    seconds = time.perf_counter() - start
    cpu = cpu_seconds() - cpu
    output = process.stdout.read() if process.stdout else ""
    if "merged" not in output:
        raise SystemExit(f"the merge failed: {output}")
    imports = int(re.findall(r"^imports (\d+)", output, re.MULTILINE)[0])
    return {
        "seconds": seconds, "cpu_seconds": cpu, "mib_beyond_imports": (peak - imports) / 1024,
    }  # fmt: skip


def copied(base: Path, out: Path) -> dict[str, float]:
    """Copy the same files by cp, and put them on the disk."""
    start, cpu = time.perf_counter(), cpu_seconds()
    subprocess.run(["cp", "-r", str(base), str(out)], check=True)
    warm = time.perf_counter() - start
    for file in out.iterdir():
        subprocess.run(["sync", str(file)], check=True)
    return {
        "cp_seconds": warm, "cp_sync_seconds": time.perf_counter() - start,
        "cpu_seconds": cpu_seconds() - cpu,
    }  # fmt: skip


def settle() -> None:
    """Let what was written before reach the disk."""
    subprocess.run(["sync"], check=True)


def compare(
    folder: Path, gib: float, repeats: int, *, big: bool = False, peft_repeats: int = 0
) -> dict[str, object]:
    """Measure one size."""
    work = folder / f"merge-{gib}"
    shutil.rmtree(work, ignore_errors=True)
    sizes = sizes_of(gib, with_big_tensor=big)
    base = write_model(work / "base", sizes, tied=big)
    adapter = write_adapter(work / "adapter", base, sizes)
    num_bytes = sum(file.stat().st_size for file in base.iterdir())
    runs: dict[str, list[dict[str, float]]] = {"merge": [], "copy": [], "peft": []}
    loads = []
    for number in range(max(repeats, peft_repeats)):
        for kind in ("copy", "merge", "peft"):
            if number >= (peft_repeats if kind == "peft" else repeats):
                continue
            settle()
            loads.append(os.getloadavg()[0])
            out = work / "out"
            if kind == "copy":
                runs[kind].append(copied(base, out))
            else:
                runs[kind].append(measured(MERGE if kind == "merge" else PEFT, adapter, out, base))
            shutil.rmtree(out)
    shutil.rmtree(work)
    found = {
        "gib": round(num_bytes / GIB, 2),
        "largest_tensor_gib": round(largest_tensor_bytes(sizes, tied=big) / GIB, 2),
        "repeats": repeats,
        "load_average": [round(load, 1) for load in loads],
        **summary(runs),
    }
    print(json.dumps(found), flush=True)
    return found


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    """Give medians, all values, and the ratios that were promised."""
    found: dict[str, object] = {}
    median = {}
    for kind, some in runs.items():
        for name in some[0] if some else ():
            values = [round(run[name], 3) for run in some]
            median[kind, name] = statistics.median(values)
            found[f"{kind}_{name}"] = {"median": median[kind, name], "all": values}
    merge = median["merge", "seconds"]
    found["merge_over_cp_and_sync"] = round(merge / median["copy", "cp_sync_seconds"], 2)
    found["merge_over_cp"] = round(merge / median["copy", "cp_seconds"], 2)
    if runs["peft"]:
        found["peft_over_merge_seconds"] = round(median["peft", "seconds"] / merge, 2)
        found["peft_over_merge_mib"] = round(
            median["peft", "mib_beyond_imports"] / median["merge", "mib_beyond_imports"], 1
        )
    return found


def main() -> None:
    """Measure every size that was asked for and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gib", nargs="+", type=float, help="2: beside peft, 4: a 2 GiB tensor")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--in-memory", action="store_true", help="the folder is a tmpfs")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--note", default="", help="what else the machine was doing")
    options = parser.parse_args()
    file = ROOT / "benchmarks" / "results" / "merge.json"
    content: dict[str, Any] = {"schema_version": 1, "sizes": {}}
    if file.exists():
        content = json.loads(file.read_text())
    for gib in options.gib:
        repeats = options.repeats if gib < 10 else 1
        found = compare(
            options.folder, gib, repeats, big=gib == 4, peft_repeats=3 if gib == 2 else 0
        )
        place = " in memory" if options.in_memory else ""
        content["sizes"][f"{gib:g}{place}"] = {**found, "note": options.note}
        filesystem = subprocess.run(
            ["stat", "-f", "-c", "%T", str(options.folder)],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        content["sizes"][f"{gib:g}{place}"]["filesystem"] = filesystem
        content |= {
            "python": platform.python_version(),
            "cores": len(os.sched_getaffinity(0)),
            "packages": {name: metadata.version(name) for name in PACKAGES},
        }  # fmt: skip
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
