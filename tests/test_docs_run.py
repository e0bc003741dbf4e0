"""Every command and every Python block of README and docs is run; what a page shows comes out.

Each page has a fresh folder, as a clone of peftkit. Trainings are shortened to two steps, and their
scores to a few short answers: numbers of a training or of its scores are not compared.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fences import COMMANDS, PAGES, ROOT, Fence, fences, why_not_run

SHIM = """#!{python}
import sys
from pathlib import Path

import yaml

words = sys.argv[1:]
file = Path(words[1]) if words[:1] == ["run"] else Path()
if file.is_file():
    recipe = yaml.safe_load(file.read_text())
    ((method, options),) = recipe["method"].items()
    short = [f"method.{{method}}.max_steps=2"]
    if "warmup_steps" in options:
        short.append(f"method.{{method}}.warmup_steps=1")
    if recipe.get("evaluate"):
        short.append("evaluate.limit=32")
        if recipe["evaluate"].get("generation"):
            short.append("evaluate.generation.max_new_tokens=4")
    words[2:2] = short
sys.argv[1:] = words
from peftkit.__main__ import main

main()
"""
TYPOS = {
    "bnb_4bit_quant_type": "bnb_4bit_quant_typ",
    "r: 16": "r: '16'",
    "max_length": "max_seq_length",
}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a fresh folder with what a clone has, and files that pages call the reader's own."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("recipes", "benchmarks", "examples", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    rows = [
        {
            "article": f"Function number {at} reads line {at} of a file and returns its words.",
            "highlights": f"Read line {at}.",
        }
        for at in range(80)
    ]
    (folder / "articles.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (recipe,) = fences(ROOT / "README.md", "yaml")
    text = recipe.text
    for right, wrong in TYPOS.items():
        assert right in text
        text = text.replace(right, wrong)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    shim = tmp_path / "bin" / "peftkit"
    shim.parent.mkdir()
    shim.write_text(SHIM.format(python=sys.executable), encoding="utf-8")
    shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "300")
    return folder


def run(folder: Path, command: str) -> tuple[int, str]:
    """Run a command as a shell does, and return its exit code and what it printed."""
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command],
        cwd=folder, text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


def plain(line: str) -> str:
    """Return a line without what is another on every machine, or in a shorter training."""
    line = re.sub(r"\s+", " ", line).strip()
    line = re.sub(r"(trained \(.*\)) on .*", r"\1", line)
    if re.match(r"trained |ROUGE-L |Perplexity|The gain in", line):
        line = re.sub(r"(\d+ h )?(\d+ min )?\d+(\.\d+)? s\b", "#", line)
        line = re.sub(r"-?\d[\d.,]*", "#", line)
    return line


def check_shown(fence: Fence, printed: str) -> None:
    """Find the lines that a page shows in what was printed, in their order."""
    lines = iter([plain(line) for line in printed.splitlines()])
    for shown in fence.shown:
        if shown.strip() != "...":
            # pytest is told the line, and all that came.
            assert plain(shown) in lines, f"{fence}: {shown!r} is not in\n{printed}"


def not_run(fence: Fence) -> str | None:
    """Say why a Python block is not run here."""
    if fence.page.name == "plugins.md":
        return "tests/test_plugins_page.py imports the blocks as one module, and uses them"
    return "needs the Hub" if '"Qwen/' in fence.text else None


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_can_be_pasted(clone: Path, page: Path) -> None:
    printed, is_whole = "", True
    for fence in fences(page, *COMMANDS, "text", "python"):
        if fence.language == "text":
            if is_whole:  # else a command that is not run here prints it
                check_shown(fence, printed)
        elif fence.language == "python" and not_run(fence) is None:
            code, out = run(clone, f"{sys.executable} - <<'END'\n{fence.text}\nEND")
            assert code == 0, f"{fence}\n{out}"
        is_commands = fence.language in COMMANDS
        if is_commands:
            is_whole = not any("--launch" in command for command in fence.commands)
        for command in fence.commands if is_commands else ():
            if why_not_run(page, command):
                continue
            code, out = run(clone, command)
            printed += out
            is_refusal = fence.language == "console" and re.search(
                r"^peftkit: |\d problems?$", fence.text, re.MULTILINE
            )
            assert (code != 0) == bool(is_refusal), f"{fence}: {command}\n{out}"
            assert "Traceback" not in out
            if fence.language == "console":
                check_shown(fence, out)
