"""YAML of job systems as a person would write it: text over several lines stays so."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Write equal parts twice, not as anchors, and text of several lines as a block."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Take no part for one that stands elsewhere."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump_document(data: Mapping[str, Any]) -> str:
    """Write one document; commands stay on one line, however long."""
    text: str = yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, width=sys.maxsize)
    return text
