"""What lies beside the weights: tokenizer, configuration, and the folder's own state."""

from __future__ import annotations

import json

import pytest

from peftkit.errors import ArtefactError, ResourceError, UsageError
from peftkit.merging import folder as folders


@pytest.fixture
def base(tmp_path):
    made = tmp_path / "base"
    made.mkdir()
    for name in (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ):
        (made / name).write_text(json.dumps({"from": "base", "name": name}))
    (made / "pytorch_model.bin").write_bytes(b"\x80")
    (made / "modeling_own.py").write_text("raise SystemExit")
    return made


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_tokenizer_and_generation_config_come_along_and_nothing_else(base, out) -> None:
    written = folders.write_side_files(out, base=base, adapter=None, index={"weight_map": {}})
    assert sorted(written) == sorted(f.name for f in out.iterdir()) == [
        "generation_config.json", "model.safetensors.index.json", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert "modeling_own.py" in folders.notes_on_code(base)[0]


def test_the_tokenizer_that_was_trained_with_comes_whole(base, out, tmp_path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "tokenizer.json").write_text("{}")
    (adapter / "chat_template.jinja").write_text("{{ x }}")
    written = folders.write_side_files(out, base=base, adapter=adapter, index=None)
    assert sorted(written) == ["chat_template.jinja", "generation_config.json", "tokenizer.json"]
    assert (out / "tokenizer.json").read_text() == "{}"


def test_a_link_out_of_the_base_is_not_followed(base, out, tmp_path) -> None:
    (tmp_path / "secret").write_text("secret")
    (base / "vocab.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(ArtefactError, match="a link out of its folder"):
        folders.write_side_files(out, base=base, adapter=None, index=None)


def test_config_is_the_bases_bytes_unless_something_in_it_changes(base, out) -> None:
    folders.write_config(out, base, folders.model_config(base))
    assert (out / "config.json").read_bytes() == (base / "config.json").read_bytes()
    folders.write_config(out, base, {"vocab_size": 3})
    assert json.loads((out / "config.json").read_text()) == {"vocab_size": 3}


def test_an_interrupted_folder_is_recognised_and_a_foreign_one_refused(base, out) -> None:
    folders.prepare_out(out, [base])
    (out / ".merge-journal.jsonl").write_text("")
    (out / "model-00001-of-00002.safetensors.partial").write_text("")
    (out / "README.md").write_text("")
    folders.prepare_out(out, [base])
    (out / "notes.txt").write_text("")
    with pytest.raises(UsageError, match=r"holds something else: notes\.txt"):
        folders.prepare_out(out, [base])


def test_a_model_that_no_merge_wrote_is_not_overwritten(base, tmp_path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"holds something else: config\.json"):
        folders.prepare_out(other, [base])
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        folders.prepare_out(tmp_path / "file", [base])


def test_one_process_writes_to_a_folder_at_a_time(out) -> None:
    with (
        folders.alone_in(out),
        pytest.raises(ResourceError, match="another process is writing to"),
        folders.alone_in(out),
    ):
        pass


def test_complete_means_every_file_at_its_size(out) -> None:
    assert not folders.is_complete(out)
    (out / "model.safetensors").write_bytes(b"1234")
    (out / "merge.json").write_text(json.dumps({"files": {"model.safetensors": 4}}))
    assert folders.is_complete(out)
    (out / "model.safetensors").write_bytes(b"123")
    assert not folders.is_complete(out)
