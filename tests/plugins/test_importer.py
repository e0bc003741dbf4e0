"""What importers share: where a config's paths are, and whose a config is."""

from __future__ import annotations

from peftkit.plugins import Foreign, Imported, Importer


class Mine(Importer):
    """A tool of one key."""

    title = "mine"
    version = "1.0"
    keys = telling = frozenset({"my_key"})

    def convert(self, foreign, folder):
        return Imported({"name": str(folder / foreign.file)}, ())


def test_a_path_is_looked_for_above_the_config(tmp_path):
    (tmp_path / "rows").mkdir()
    foreign = Foreign(tmp_path / "a" / "b" / "c.yaml", {})
    assert foreign.place_of("rows") == tmp_path / "rows"
    assert foreign.place_of("nowhere") is None


def test_keys_of_its_own_and_commands_tell_a_tool(tmp_path):
    assert Mine.recognise(Foreign(tmp_path, {"my_key": 1, "x": 2})) == 1
    assert Mine.recognise(Foreign(tmp_path, {}, command="mine train")) == 10
