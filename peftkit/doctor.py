"""Say what this environment is and what works in it, each thing really tried."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module, metadata, resources
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import PeftkitError, UsageError, first_line
from peftkit.models.versions import STACK
from peftkit.plugins import all_plugins, find
from peftkit.system.units import gibibytes
from peftkit.training.trials import (
    Trial,
    multiply,
    quantizations,
    small_base,
    train_lora,
    write_safetensors,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

LITTLE_BYTES = 2 << 30
"""Free memory or disk below which even a small run may not fit."""
ALREADY_QUANTIZED = "pre-quantized"
"""What transformers says of a quantization that it only loads, and cannot make of a base."""
HUB_TIMEOUT_SECONDS = 10.0
MOST_MISSING_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """Hold one line of the examination."""

    group: str
    name: str
    state: str
    """`ok`; `warn`: it works, with a caveat; `no`: it is not to be had here, which may be fine;
    `fail`: no run works without it."""
    detail: str = ""


@dataclass(frozen=True)
class Examination:
    """Hold everything that was found."""

    findings: tuple[Finding, ...]

    @property
    def is_healthy(self) -> bool:
        """Tell whether nothing failed that every run needs."""
        return all(finding.state != "fail" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "schema_version": 1,
            "is_healthy": self.is_healthy,
            "findings": [asdict(finding) for finding in self.findings],
        }


def doctor(*, hub: bool = False) -> Examination:
    """Examine the versions, the device, quantization, files and plugins.

    Args:
        hub: also try to reach the Hub; nothing else touches the network.
    """
    from peftkit.system.quiet import quiet_stack

    quiet_stack()
    versions = list(_versions())
    findings = [*versions, *_plugins()]
    if all(finding.state != "fail" for finding in versions):
        findings += [*_machine(), *_training(), *_files()]
    findings.append(_hub() if hub else Finding("hub", "hub", "no", "not tried; --hub tries it"))
    return Examination(tuple(findings))


def _versions() -> Iterator[Finding]:
    """Import the stack, and compare its versions with those that peftkit is tested with."""
    tested = pinned_versions()
    yield Finding("stack", "python", "ok", f"{platform.python_version()}, {platform.platform()}")
    for package in STACK:
        try:
            version = metadata.version(package)
            import_module(package)
        except metadata.PackageNotFoundError:
            yield Finding("stack", package, "fail", "is not installed: pip install peftkit")
        except Exception as error:
            yield Finding("stack", package, "fail", f"cannot be imported: {first_line(error)}")
        else:
            yield _compare(package, version, tested.get(package))


def pinned_versions() -> dict[str, str]:
    """Return the versions of the stack that peftkit is tested with."""
    text = (
        resources.files("peftkit.embedded").joinpath("constraints.txt").read_text(encoding="utf-8")
    )
    pins = [line.partition("==") for line in text.splitlines() if "==" in line]
    return {name.strip().lower(): version.strip() for name, _, version in pins}


def _compare(package: str, version: str, tested: str | None) -> Finding:
    from packaging.requirements import Requirement
    from packaging.version import Version

    needed = [Requirement(text) for text in metadata.requires("peftkit") or ()]
    for requirement in needed:
        wanted = requirement.name == package and requirement.marker is None
        if wanted and not requirement.specifier.contains(version, prereleases=True):
            detail = f"{version}, but peftkit needs {requirement.specifier}"
            return Finding("stack", package, "fail", detail)
    if tested is None or Version(version).public == Version(tested).public:
        return Finding("stack", package, "ok", version)
    return Finding("stack", package, "warn", f"{version}; tested with {tested}")


def _plugins() -> Iterator[Finding]:
    """Import the plugins of other packages; peftkit's own are covered by the trials."""
    others = [info for info in all_plugins() if info.distribution != "peftkit"]
    for info in others:
        name, where = f"{info.group}: {info.name}", f"{info.distribution} {info.version}"
        try:
            find(info.group, info.name)
        except PeftkitError as error:
            yield Finding("plugins", name, "warn", error.message)
        else:
            state = "warn" if info.problem else "ok"
            yield Finding("plugins", name, state, info.problem or where)


def _machine() -> Iterator[Finding]:
    """Multiply on the device that a run would use, and look at its memory."""
    import torch

    from peftkit.system.machine import describe_machine, host_memory

    machine = describe_machine()
    threads = f", threads: {torch.get_num_threads()}" if machine.device == "cpu" else ""
    yield Finding("device", machine.device, "ok", f"{machine.name}{threads}")
    state = "ok" if machine.free_bytes >= LITTLE_BYTES else "warn"
    memory = f"{gibibytes(machine.free_bytes)} free of {gibibytes(machine.total_bytes)}"
    yield Finding("device", "memory", state, memory)
    if machine.device != "cpu":
        total, free = host_memory()
        yield Finding(
            "device", "host memory", "ok", f"{gibibytes(free)} free of {gibibytes(total)}"
        )
    plain = multiply(machine.device, "float32")
    yield _finding("device", plain, otherwise="fail")
    for dtype in ("bfloat16", "float16"):
        trial = multiply(machine.device, dtype)
        if trial.works and trial.gflops < plain.gflops:
            trial = replace(trial, detail=f"{trial.detail}; slower than float32 here")
        yield _finding("device", trial, otherwise="no")


def _training() -> Iterator[Finding]:
    """Train an adapter on a small base: plain, and on every quantization."""
    from peftkit.system.machine import describe_machine

    with small_base(describe_machine().device) as bench:
        yield _finding("training", train_lora(bench, "lora"), otherwise="fail")
        for trial in quantizations(bench):
            is_loader = ALREADY_QUANTIZED in trial.detail
            detail = "only loads a base that is quantized already" if is_loader else trial.detail
            yield _finding("quantization", replace(trial, detail=detail), otherwise="no")


def _files() -> Iterator[Finding]:
    """Write where runs would live, and look at the disks."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from peftkit.embedded import model_path

    here = Path.cwd()
    yield _finding("files", write_safetensors(here), otherwise="fail")
    for name, folder in (("disk", here), ("hub cache", Path(HF_HUB_CACHE))):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        state = "ok" if free >= LITTLE_BYTES else "warn"
        yield Finding("files", name, state, f"{gibibytes(free)} free for {folder}")
    try:
        folder = model_path("docstring-lm")
    except PeftkitError as error:
        yield Finding("files", "embedded base", "fail", error.message)
    else:
        yield Finding("files", "embedded base", "ok", str(folder))


def _finding(group: str, trial: Trial, *, otherwise: str) -> Finding:
    return Finding(group, trial.name, "ok" if trial.works else otherwise, trial.detail)


def _hub() -> Finding:
    """Knock at the Hub, and show it the token where there is one."""
    from huggingface_hub import HfApi, get_session, get_token
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE
    from huggingface_hub.errors import HfHubHTTPError

    if HF_HUB_OFFLINE:
        return Finding("hub", "hub", "no", "HF_HUB_OFFLINE switches the network off")
    started = time.perf_counter()
    try:
        get_session().head(ENDPOINT, timeout=HUB_TIMEOUT_SECONDS)
        seconds = time.perf_counter() - started
        token = get_token()
        name = HfApi(token=token).whoami()["name"] if token else None
    except HfHubHTTPError:
        return Finding("hub", "hub", "warn", f"{ENDPOINT} refuses this token: hf auth login")
    except Exception as error:
        return Finding("hub", "hub", "no", f"{ENDPOINT} is out of reach: {first_line(error)}")
    who = f"as {name}" if name else "without a token, so no gated models"
    return Finding("hub", "hub", "ok", f"{ENDPOINT} answers in {seconds:.1f} s, {who}")


def write_problem_report(found: Examination, run: Path | None) -> Path:
    """Write one file about a problem into the current folder, beside earlier ones.

    Args:
        run: the run that went wrong, where one did.

    Raises:
        UsageError: there is no such run.
        ResourceError: the file cannot be written.
    """
    from peftkit.reporting.problem_report import problem_report
    from peftkit.rundir.paths import RunDir, write_atomically
    from peftkit.system.last_failure import last_failure

    run_dir = None if run is None else RunDir(run)
    if run_dir is not None and not run_dir.is_begun:
        raise UsageError(f"{run} is no run", hint="peftkit runs lists them")
    findings = [asdict(finding) for finding in found.findings]
    names = ("peftkit-report.txt", *(f"peftkit-report-{number}.txt" for number in range(2, 1000)))
    file = next(Path(name) for name in names if not Path(name).exists())
    write_atomically(file, problem_report(findings, run_dir, last_failure()))
    return file


def render_doctor(found: Examination) -> RenderableType:
    """Lay the findings out for a terminal, a block for each group."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1, 0, 0))
    for overflow in ("ellipsis", "ellipsis", "fold"):
        table.add_column(no_wrap=overflow == "ellipsis", overflow=overflow)
    for group, members in groupby(found.findings, key=lambda finding: finding.group):
        table.add_row("", Text(group, style="bold"), "")
        for finding in _shortened(list(members)):
            mark, style = _MARKS[finding.state]
            dim = "dim" if finding.state == "no" else ""
            table.add_row(Text(mark, style), Text(finding.name, dim), Text(finding.detail, dim))
    return Group(table, Text(f"\n{_verdict(found.findings)}", style="bold"))


_MARKS = {"ok": ("ok", "green"), "warn": ("!", "yellow"), "no": ("-", "dim"),
          "fail": ("FAIL", "bold red")}  # fmt: skip


def _shortened(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Gather what a group does not have into one line, where that is many things."""
    missing = [finding for finding in findings if finding.state == "no"]
    if len(missing) <= MOST_MISSING_SHOWN:
        yield from findings
        return
    yield from (finding for finding in findings if finding.state != "no")
    names = ", ".join(finding.name for finding in missing)
    yield Finding(missing[0].group, "not here", "no", f"{names} (--json says why)")


def _verdict(findings: Sequence[Finding]) -> str:
    failed = [finding.name for finding in findings if finding.state == "fail"]
    if failed:
        return f"No run works here before this is mended: {', '.join(failed)}."
    warned = [finding.name for finding in findings if finding.state == "warn"]
    return f"Runs work here; worth a look: {', '.join(warned)}." if warned else "Runs work here."
