"""What somebody made against us runs no code, takes no time or memory, and is told from a bug."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
from pathlib import Path

import hostile
import pytest
import tiny
from forked_runs import call

CODES = {0, 2, 3, 4, 5, 6, 7}
SECONDS = 10.0
"""Of computing, imports that a verb makes among it, on a machine with other work."""
LEAST_BYTES = 1 << 30
NAMES = {
    "base": [name for name, _ in hostile.bases()],
    "adapter": [name for name, _ in hostile.adapters()],
    "recipe": [name for name, _ in hostile.recipes("")],
    "rows": [name for name, _, _ in hostile.rows()],
}
VERBS = {
    "base": (
        "generate base hi -o max_new_tokens=2",
        "merge base --out out --no-verify",
        "run r.yaml --dry-run",
        "export base --to ollama --out exported",
    ),
    "adapter": (
        "generate adapter hi --base base -o max_new_tokens=2",
        "merge adapter --base base --out out --no-verify",
        "export adapter --base base --to adapter --out exported",
        "run continued.yaml --dry-run",
    ),
    "recipe": ("check r.yaml", "plan r.yaml", "run r.yaml --dry-run"),
    "rows": ("data r.yaml", "init {file}", "run r.yaml --dry-run"),
}


def test_there_are_enough() -> None:
    assert sum(len(names) for names in NAMES.values()) >= 200
    assert all(len(set(names)) == len(names) for names in NAMES.values())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_run: Path) -> Path:
    """Return a folder with a base, an adapter, rows and recipes over them; nobody changes it."""
    folder = tmp_path_factory.mktemp("sound")
    shutil.copytree(tiny_model, folder / "base")
    shutil.copytree(tiny_run / "adapter", folder / "adapter")
    (folder / "adapter" / "trained.json").unlink()  # as an adapter of another program
    tiny.write_jsonl(folder / "rows.jsonl", tiny.rows(6))
    text = tiny.recipe_text(Path("base"), Path("rows.jsonl"))
    (folder / "r.yaml").write_text(text)
    lora = "adapter:\n  lora: {r: 4, lora_alpha: 8, target_modules: all-linear}\n"
    assert lora in text
    (folder / "continued.yaml").write_text(text.replace(lora, "adapter: {from: adapter}\n"))
    return folder


@pytest.fixture
def place(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "place"
    shutil.copytree(sound, folder)
    monkeypatch.chdir(folder)
    return folder


def harm(place: Path, kind: str, name: str) -> str:
    """Put one hostile thing in the place of the sound one; return the file of rows."""
    if kind in ("base", "adapter"):
        dict(hostile.bases() if kind == "base" else hostile.adapters())[name](place / kind)
    elif kind == "recipe":
        content = dict(hostile.recipes((place / "r.yaml").read_text()))[name]
        raw = content.encode() if isinstance(content, str) else content
        (place / "r.yaml").write_bytes(raw.replace(b"CANARY", str(place).encode()))
    else:
        (file, content) = next((file, raw) for one, file, raw in hostile.rows() if one == name)
        (place / "rows.jsonl").unlink()
        (place / file).write_bytes(content)
        text = (place / "r.yaml").read_text().replace("rows.jsonl", file)
        source = {"csv": "csv", "parquet": "parquet", "arrow": "arrow"}.get(Path(file).suffix[1:])
        (place / "r.yaml").write_text(
            text.replace("{json: {files", f"{{{source or 'json'}: {{files")
        )
        return file
    return "rows.jsonl"


def run_child(words: list[str], said: Path) -> tuple[int, float, int]:
    """Run a command in a fork: its exit code, its seconds of computing and its most memory."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            stream = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
            code = call(words)
        finally:
            os._exit(code)
    _, status, used = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss << 10


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def check(place: Path, tmp_path: Path, kind: str, name: str) -> list[str]:
    """Have every verb that can be handed it meet a hostile thing; return what went wrong."""
    file = harm(place, kind, name)
    before, around = sorted(place.iterdir()), sorted(tmp_path.iterdir())
    wrong = []
    for verb in VERBS[kind]:
        said, held, began = tmp_path / "said", resident(), time.monotonic()
        code, seconds, most = run_child(verb.format(file=file).split(), said)
        text = said.read_text(errors="replace")[-1500:]
        said.unlink()
        told = f"{kind}: {name}: {verb}"
        if code not in CODES or "Traceback" in text:
            wrong.append(f"{told} left with {code}: {text}")
        if seconds > SECONDS:
            wrong.append(f"{told} took {seconds:.0f} s ({time.monotonic() - began:.0f} s)")
        if most - held > LEAST_BYTES:
            wrong.append(f"{told} took {(most - held) >> 20} MiB")
        for out in ("out", "exported", "rows.yaml"):
            shutil.rmtree(place / out, ignore_errors=True)
            (place / out).unlink(missing_ok=True)
    left = {*place.iterdir(), *tmp_path.iterdir()} - {*before, *around}
    wrong += [f"{kind}: {name} left {one.name}" for one in left if one.suffix != ".yaml"]
    if (place / "RAN").exists():
        wrong.append(f"{kind}: {name} ran code")
    return wrong


@pytest.mark.parametrize(
    ("kind", "name"),
    [("adapter", "a pickle"), ("base", "template doubled"), ("recipe", "aliases")],
)
def test_some_of_the_corpus(place: Path, tmp_path: Path, kind: str, name: str) -> None:
    harm(place, kind, name)
    code, _, _ = run_child(VERBS[kind][0].split(), tmp_path / "said")
    assert code in (2, 4), (tmp_path / "said").read_text()
    assert not (place / "RAN").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, names in NAMES.items() for n in names])
def test_the_hostile_corpus(place: Path, tmp_path: Path, kind: str, name: str) -> None:
    import peft  # noqa: F401 - once, for all forks
    import transformers  # noqa: F401
    import trl  # noqa: F401

    assert check(place, tmp_path, kind, name) == []
