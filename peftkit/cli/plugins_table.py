"""Plugins as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftkit.plugins import PluginInfo

if TYPE_CHECKING:
    from rich.table import Table


def render_plugins(plugins: Sequence[PluginInfo]) -> Table:
    """Lay plugins out as a table: a row for what one package brings to one group."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("group", "package", "names"):
        table.add_column(column, no_wrap=column != "names")
    names: dict[tuple[str, str], list[str]] = {}
    for info in plugins:
        shown = f"{info.name} ({info.problem})" if info.problem else info.name
        names.setdefault((info.group, f"{info.distribution} {info.version}"), []).append(shown)
    for (group, package), found in names.items():
        table.add_row(group, package, ", ".join(found))
    return table
