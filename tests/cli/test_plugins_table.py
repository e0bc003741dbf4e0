"""The table of plugins fits a narrow terminal and leaves none out."""

from __future__ import annotations

import io

from rich.console import Console

from peftkit.cli.plugins_table import render_plugins
from peftkit.plugins import PluginInfo, all_plugins


def test_every_plugin_is_shown_whole_in_80_columns() -> None:
    foreign = PluginInfo("rows", "sources", "acme", "1.5", "acme:Rows", problem="claimed twice")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render_plugins([*all_plugins(), foreign]))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    line = next(line for line in lines if "acme" in line)
    assert line.split() == ["sources", "acme", "1.5", "rows", "(claimed", "twice)"]
    shown = " ".join(lines).replace(",", " ").split()
    assert all(info.name in shown for info in all_plugins())
