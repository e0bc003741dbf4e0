"""The commands about artefacts end in the documented codes, and say what to try."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.cli import main


@pytest.mark.parametrize("command", [["merge"], ["export", "--to", "safetensors"]])
def test_what_is_no_model_is_refused(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *options = command
    with pytest.raises(SystemExit) as ended:
        main([verb, str(tmp_path / "nothing"), *options, "--out", str(tmp_path / "out")])
    assert ended.value.code in (2, 4)
    assert "nothing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unknown_format_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(tmp_path), "--to", "gguff"])
    assert ended.value.code == 2
    assert "gguff" in capsys.readouterr().err
