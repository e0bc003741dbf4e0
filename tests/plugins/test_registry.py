"""Plugins are found by metadata, picked by name, and refused by their distribution's name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from peftkit.errors import UsageError
from peftkit.plugins import (
    GROUPS,
    PluginInfo,
    all_plugins,
    available,
    find,
    missing_members,
    only_builtins,
    plugin_names,
)

SOURCE = """
from peftkit.plugins import Source as Base
class Source(Base):
    '''Give nothing.'''
    Config = None
    def __init__(self, config): pass
    def splits(self): return ()
    def load(self, split): return None
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes a distribution with entry points importable."""

    def make(name: str, *entries: str, module: str = SOURCE, group: str = "sources") -> None:
        info = tmp_path / f"{name}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        lines = [f"{entry} = {name}_module:Source" for entry in entries]
        (info / "entry_points.txt").write_text("\n".join([f"[peftkit.{group}]", *lines]))
        (tmp_path / f"{name}_module.py").write_text(module)
        monkeypatch.delitem(sys.modules, f"{name}_module", raising=False)
        # The path grows, so that what was found before this distribution came is not reused.
        monkeypatch.syspath_prepend(str(tmp_path))

    return make


def test_a_package_s_plugin_is_found_by_its_entry_point(install) -> None:
    install("acme", "rows")
    assert "rows" in plugin_names("sources")
    assert find("sources", "rows").__name__ == "Source"
    info = PluginInfo("rows", "sources", "acme", "1.5", "acme_module:Source")
    assert info in available("sources")
    assert info.to_json()["distribution"] == "acme"


def test_listing_imports_nothing(install) -> None:
    install("broken", "rows", module="raise RuntimeError('imported')")
    assert [i.distribution for i in available("sources") if i.name == "rows"] == ["broken"]


def test_a_failing_import_names_the_distribution(install) -> None:
    install("broken", "rows", module="raise RuntimeError('no luck')")
    with pytest.raises(UsageError) as caught:
        find("sources", "rows")
    assert str(caught.value) == (
        "the plugin 'rows' (broken_module:Source) of broken cannot be imported:"
        " RuntimeError: no luck\n  try: update or uninstall broken, or use --no-plugins"
    )


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (
            "from peftkit.plugins import Source as Base\nclass Source(Base):\n    Config = None\n",
            "lacks load, splits\n",
        ),
        (
            "class Source:\n    Config = None\n    def splits(self): return ()\n",
            "is no subclass of peftkit.plugins.Source, and lacks load\n",
        ),
        ("def Source(): pass\n", "is not a class\n"),
        ("class Other: pass\n", "cannot be imported: AttributeError"),
    ],
)
def test_a_missing_member_names_the_distribution(install, module: str, problem: str) -> None:
    install("short", "rows", module=module)
    with pytest.raises(UsageError, match=f"of short {problem}") as caught:
        find("sources", "rows")
    assert "imported" in problem or caught.value.hint == "docs/plugins.md says what sources need"


def test_a_task_that_does_not_say_what_it_makes_names_the_distribution(install) -> None:
    module = (
        "from peftkit.plugins import Task\nclass Source(Task):\n    Config = None\n"
        "    columns = ()\n    def example(self, row): ...\n"
    )
    install("silent", "rows", module=module, group="tasks")
    with pytest.raises(UsageError, match="of silent lacks makes\n"):
        find("tasks", "rows")


def test_two_packages_with_one_name_are_refused(install) -> None:
    install("acme", "rows")
    install("bolt", "rows")
    with pytest.raises(UsageError, match="the source 'rows' is claimed by acme and bolt"):
        find("sources", "rows")
    problems = {i.distribution: i.problem for i in available("sources") if i.name == "rows"}
    assert problems == {"acme": "claimed by bolt too", "bolt": "claimed by acme too"}


def test_a_built_in_cannot_be_shadowed(install) -> None:
    install("acme", "json")
    assert find("sources", "json").__module__.startswith("peftkit.")
    problems = {i.distribution: i.problem for i in available("sources") if i.name == "json"}
    assert problems == {"peftkit": None, "acme": "peftkit's own plugin has this name and wins"}


def test_without_plugins_only_built_ins_are_seen(install) -> None:
    install("acme", "rows", "json")
    with only_builtins():
        assert "rows" not in plugin_names("sources")
        assert {info.distribution for info in all_plugins()} == {"peftkit"}
        with pytest.raises(UsageError, match="there is no source 'rows'"):
            find("sources", "rows")
    assert "rows" in plugin_names("sources")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match="peftkit plugins lists the tasks"):
        find("tasks", "nothing")
    with pytest.raises(ValueError, match="is not one of"):
        available("things")


def test_every_built_in_has_its_members() -> None:
    with only_builtins():
        for info in all_plugins():
            assert missing_members(find(info.group, info.name), info.group) == []


def test_finding_built_ins_imports_no_stack() -> None:
    code = (
        f"import sys; from peftkit.plugins import find, plugin_names\n"
        f"for g in {GROUPS!r}:\n    for n in plugin_names(g): find(g, n)\n"
        "print([m for m in ('torch', 'transformers', 'peft', 'trl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
