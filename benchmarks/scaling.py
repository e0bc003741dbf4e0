"""Count what processes send each other in a step, and write the page of predicted scaling.

    unshare --user --map-root-user --net python benchmarks/scaling.py  # count, then write
    python benchmarks/scaling.py --page                           # write from what was counted

A network namespace of its own has a loopback that nobody else uses: its counters are the traffic of
these processes, headers and acknowledgements included.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

from peftkit.planning.communication import Exchange, communicated_bytes
from peftkit.planning.scaling import DGX_A100, Scaled, scale

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "scaling.json"
REAL = ROOT / "benchmarks" / "results" / "processes.json"
RECORDED = ROOT / "benchmarks" / "results" / "recorded" / "looked-at.json"
FACTS = ROOT / "benchmarks" / "recorded" / "fms-mistral.json"
PAGE = ROOT / "docs" / "scaling.md"
TEMPLATE = ROOT / "benchmarks" / "scaling_page.md"
WIDTH, NUM_LAYERS, NUM_STEPS = 1024, 4, 5
NUM_GPUS = (1, 8, 64, 1024)
BYTES = 2
"""Of a number in bfloat16, as the recorded runs hold weights and gradients."""
WEIGHTS, ROOT_WEIGHTS, LAYERS = 7_241_732_096, 2 * 32_000 * 4_096, 32
"""Of Mistral-7B: all, those of embeddings and head, and its layers."""


def count() -> list[dict[str, Any]]:
    """Count the traffic of real steps, for each strategy and number of processes."""
    raise_loopback()
    counted = [_count(way, n) for way in ("ddp", "fsdp2") for n in (2, 4)]
    for one in counted:
        print(one, formula(one))
    return counted


def raise_loopback() -> None:
    """Bring up the loopback of a new network namespace."""
    set_flags, is_up, is_running = 0x8914, 1, 0x40
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", is_up | is_running)
        fcntl.ioctl(any_socket, set_flags, request)


def sent_on_loopback() -> int:
    """Return the bytes sent over the loopback so far."""
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[8])
    raise OSError("this namespace has no loopback")


def _count(strategy: str, num_processes: int) -> dict[str, Any]:
    """Count a strategy's bytes of one step and process, beside the formula's."""
    from torch.multiprocessing.spawn import spawn

    out = RESULTS.with_suffix(".partial")
    spawn(  # type: ignore[no-untyped-call]
        _be, (strategy, num_processes, str(out)), nprocs=num_processes
    )
    sent = int(out.read_text(encoding="ascii"))
    out.unlink()
    return {
        "strategy": strategy,
        "num_processes": num_processes,
        "sent_bytes": sent / num_processes / NUM_STEPS,
    }


def formula(one: dict[str, Any]) -> int:
    """Return what the formula says of a count; gloo's reduce-scatter sends twice a ring's."""
    weights = NUM_LAYERS * WIDTH * WIDTH * 4
    exchange = Exchange(one["strategy"], weights)
    if one["strategy"] == "fsdp2":
        exchange = Exchange("fsdp2", 2 * weights, weight_bytes=weights, num_units=NUM_LAYERS)
    return communicated_bytes(exchange, one["num_processes"])


def _be(rank: int, strategy: str, num_processes: int, out: str) -> None:
    """Be one of the processes."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29511", GLOO_SOCKET_IFNAME="lo")
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=num_processes)
    layers = [torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(NUM_LAYERS)]
    model: Any = torch.nn.Sequential(*layers)
    if strategy == "ddp":
        model = torch.nn.parallel.DistributedDataParallel(model)
    else:
        from torch.distributed.fsdp import fully_shard

        for layer in layers:
            fully_shard(layer)
        fully_shard(model)

    def steps(num_steps: int) -> None:
        for _ in range(num_steps):
            model(torch.ones(1, WIDTH)).sum().backward()
        dist.barrier()

    steps(2)
    before = sent_on_loopback()
    steps(NUM_STEPS)
    if rank == 0:
        Path(out).write_text(str(sent_on_loopback() - before), encoding="ascii")
    dist.barrier()
    dist.destroy_process_group()


def recorded() -> dict[str, dict[str, Any]]:
    """Return recorded runs of one A100: seconds a step, the backward's share, what is trained."""
    cells = json.loads(RECORDED.read_text(encoding="utf-8"))["cells"]
    facts = json.loads(FACTS.read_text(encoding="utf-8"))["runs"]
    found = {}
    for cell in cells:
        if cell["name"] not in ("full-4", "lora-4", "qlora-4"):
            continue
        flops = {phase: work["num_flops"] for phase, work in cell["plan"]["work"].items()}
        found[cell["name"]] = {
            "seconds": cell["plan"]["num_tokens"] / cell["recorded_tokens_per_second"],
            "backward": flops["backward"] / sum(flops.values()),
            "gradient_bytes": BYTES * facts[cell["name"]]["num_trained"],
        }
    return found


def cases() -> list[tuple[str, str, Exchange, dict[str, Any]]]:
    """Name what is shown: a recorded run, and how its processes would share the model."""
    runs = recorded()
    cut = {
        "weight_bytes": BYTES * WEIGHTS,
        "root_bytes": BYTES * ROOT_WEIGHTS,
        "num_units": LAYERS,
    }
    shown = [
        *(("full fine-tuning", "full-4", way) for way in ("ddp", "fsdp2")),
        *(("LoRA", "lora-4", way) for way in ("ddp", "fsdp2")),
        ("QLoRA", "qlora-4", "ddp"),
    ]
    return [
        (
            title,
            way,
            Exchange(way, runs[name]["gradient_bytes"], **(cut if way == "fsdp2" else {})),
            runs[name],
        )
        for title, name, way in shown
    ]


def predicted() -> list[tuple[str, str, Scaled]]:
    """Predict every case on every number of GPUs."""
    return [
        (title, way, scale(run["seconds"], run["backward"], exchange, DGX_A100, num_gpus))
        for title, way, exchange, run in cases()
        for num_gpus in NUM_GPUS
    ]


def page(counted: list[dict[str, Any]], real: dict[str, Any]) -> str:
    """Return the page.

    Args:
        real: what `processes.py` measured of a whole run.
    """
    rows = [
        f"| {title} | {way.upper()} | {one.num_gpus:,} | {one.sent_bytes / 1e9:.3f} |"
        f" {one.exchange_seconds:.3f} | {one.best_seconds:.2f} to {one.worst_seconds:.2f} |"
        f" {one.worst_efficiency:.0%} to {one.best_efficiency:.0%} |"
        for title, way, one in predicted()
    ]
    counts = [
        f"| {one['strategy'].upper()} | {one['num_processes']} | {formula(one):,} |"
        f" {one['sent_bytes']:,.0f} | {one['sent_bytes'] / formula(one) - 1:+.2%} |"
        for one in counted
    ]
    return TEMPLATE.read_text(encoding="utf-8").format(
        rows="\n".join(rows),
        counts="\n".join(counts),
        counts_of=f"{NUM_LAYERS} layers of {WIDTH:,} x {WIDTH:,}",
        links=DGX_A100,
        within=1e6 * DGX_A100.seconds_within,
        between=1e6 * DGX_A100.seconds_between,
        hops=NUM_GPUS[-1] - 1,
        real=_real(real),
    )


def _real(found: dict[str, Any]) -> str:
    """Say what a run in two processes sent, and how long it took beside one."""
    sent, speed = found["bytes"], found["speed"]
    turns = speed["turns"]
    each = [f"{one:.0%}" for one in sorted(speed["efficiencies"])]
    seconds = {n: min(turn["seconds"][n] for turn in turns) for n in ("1", "2")}
    return (
        f"`summarize-lora` in two processes sends {sent['sent_bytes']:,.0f} bytes a step from each,"
        f" {sent['sent_bytes'] / sent['formula_bytes'] - 1:+.1%} beside the formula's"
        f" {sent['formula_bytes']:,}: losses and counts of tokens\nare gathered too. On two cores,"
        f" one thread a process, {speed['num_steps']} steps of {speed['rows']} rows took"
        f" {seconds['1']:.1f} s in one process and {seconds['2']:.1f} s\nin two (the best of"
        f" {len(turns)} turns): {speed['efficiency']:.0%} of twice the speed in the median"
        f" ({each[0]} to {each[-1]}). The largest difference\nof a step's loss was"
        f" {max(turn['loss_apart'] for turn in turns):.1g}."
    )


def main() -> None:
    """Count, unless told not to, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="write from what was counted")
    if not parser.parse_args().page:
        RESULTS.write_text(json.dumps(count(), indent=2) + "\n", encoding="utf-8")
    counted, real = (json.loads(file.read_text(encoding="utf-8")) for file in (RESULTS, REAL))
    PAGE.write_text(page(counted, real), encoding="utf-8")


if __name__ == "__main__":
    main()
