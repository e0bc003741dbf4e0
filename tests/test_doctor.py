"""The examination names what is broken, and nothing of it touches the network unasked."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from hub_stand_in import HubStandIn
from rich.console import Console

from peftkit import doctor as examining
from peftkit.doctor import Examination, Finding, doctor, pinned_versions, render_doctor
from peftkit.models.versions import STACK
from peftkit.training.trials import Trial

ROOT = Path(__file__).resolve().parent.parent


def _shown(found: Examination) -> list[str]:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render_doctor(found))
    return console.export_text().splitlines()


def test_this_environment_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctor()
    states = {finding.name: finding.state for finding in found.findings}
    assert found.is_healthy
    assert {states[package] for package in STACK} <= {"ok", "warn"}
    for name in ("float32", "lora", "nf4", "int8", "write here", "embedded base"):
        assert states[name] == "ok", name
    assert states["hub"] == "no"
    content = json.loads(json.dumps(found.to_json()))
    assert (content["schema_version"], content["is_healthy"]) == (1, True)
    assert list(tmp_path.iterdir()) == []
    lines = _shown(found)
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("Runs work here")
    # Many things that are not to be had here share a line.
    assert sum(line.startswith("-") for line in lines) == 2


def test_the_pinned_versions_are_those_of_the_constraints() -> None:
    pins = pinned_versions()
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert len(pins) == text.count("==")
    assert f"peft=={pins['peft']}" in text
    assert set(STACK) - {"peftkit"} <= set(pins)


@pytest.mark.parametrize(
    ("version", "state", "detail"),
    [
        ("0.21.2", "ok", "0.21.2"),
        ("0.21.2+local", "ok", "0.21.2+local"),
        ("0.21.9", "warn", "0.21.9; tested with 0.21.2"),
        ("0.20.0", "fail", "0.20.0, but peftkit needs "),
    ],
)
def test_a_version_is_compared_with_what_is_needed_and_what_is_tested(
    version: str, state: str, detail: str
) -> None:
    finding = examining._compare("peft", version, "0.21.2")
    assert finding.state == state
    assert finding.detail.startswith(detail)


def test_a_stack_that_cannot_be_imported_is_named_and_nothing_further_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = metadata.version

    def version(package: str) -> str:
        if package == "trl":
            raise metadata.PackageNotFoundError(package)
        return real(package)

    def refuse(name: str) -> ModuleType:
        if name == "datasets":
            raise RuntimeError("binary incompatibility\nmore")
        return sys

    monkeypatch.setattr(examining.metadata, "version", version)
    monkeypatch.setattr(examining, "import_module", refuse)
    found = doctor()
    failed = {f.name: f.detail for f in found.findings if f.state == "fail"}
    assert failed == {
        "trl": "is not installed: pip install peftkit",
        "datasets": "cannot be imported: binary incompatibility",
    }
    assert not found.is_healthy
    assert "device" not in {finding.group for finding in found.findings}
    assert _shown(found)[-1].startswith("No run works here before this is mended: trl, datasets")


def test_little_memory_or_disk_deserves_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(1 << 40, 1 << 40, 1 << 20)
    monkeypatch.setattr(examining.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(
        examining, "write_safetensors", lambda _: Trial("write here", False, "full")
    )
    found = {finding.name: finding for finding in examining._files()}
    assert found["disk"].state == "warn"
    assert found["disk"].detail.startswith("1.0 MiB free")
    assert found["write here"].state == "fail"


def test_a_plugin_that_cannot_be_imported_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[peftkit.sources]\nrows = no_such_module:Source\n")
    monkeypatch.syspath_prepend(tmp_path)
    (finding,) = [f for f in examining._plugins() if "rows" in f.name]
    assert finding.state == "warn"
    assert "of broken cannot be imported" in finding.detail


HUB = "from peftkit.doctor import _hub; f = _hub(); print(f.state, '|', f.detail)"


def _ask_hub(tmp_path: Path, **environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", HUB], capture_output=True, text=True, check=True,
        env={**kept, "HF_HOME": str(tmp_path), **environment},
    )  # fmt: skip
    return done.stdout.strip()


def test_the_hub_is_knocked_at_only_when_asked(tmp_path: Path) -> None:
    with HubStandIn({}) as hub:
        found = _ask_hub(tmp_path, HF_ENDPOINT=hub.endpoint)
        assert found.startswith(f"ok | {hub.endpoint} answers in ")
        assert found.endswith("without a token, so no gated models")
        assert hub.requests
    closed = _ask_hub(tmp_path, HF_ENDPOINT=hub.endpoint)
    assert closed.startswith(f"no | {hub.endpoint} is out of reach: ")
    offline = _ask_hub(tmp_path, HF_HUB_OFFLINE="1")
    assert offline == "no | HF_HUB_OFFLINE switches the network off"


def test_a_broken_thing_stands_out() -> None:
    found = Examination(
        (Finding("files", "disk", "warn", "1 MiB free"), Finding("files", "x", "fail", "why"))
    )
    lines = _shown(found)
    assert [line.split() for line in lines if line.startswith(("!", "FAIL"))] == [
        ["!", "disk", "1", "MiB", "free"], ["FAIL", "x", "why"],
    ]  # fmt: skip
    healthy = Examination(found.findings[:1])
    assert _shown(healthy)[-1] == "Runs work here; worth a look: disk."
