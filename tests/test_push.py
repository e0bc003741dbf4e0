"""What a run trained goes to a stand-in of the Hub, whole, and nothing before somebody agreed."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import run_command
from hub_stand_in import HubStandIn, Repo

from peftkit.errors import ArtefactError, NetworkError, UsageError
from peftkit.push import plan_push, push


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    from huggingface_hub import constants

    (tmp_path / "uploads").mkdir()
    with HubStandIn({}, uploads=tmp_path / "uploads") as serving:
        monkeypatch.setattr(constants, "ENDPOINT", serving.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "writes")
        yield serving


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    import numpy as np
    from safetensors.numpy import save_file

    folder = tmp_path / "run" / "adapter"
    folder.mkdir(parents=True)
    save_file({"a": np.zeros(4, np.float32)}, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": "owner/base"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("---\ntags: [peftkit]\n---\n\n# mine\n")
    (folder / ".hidden").write_text("stays")
    (folder.parent / "resolved.yaml").write_text("name: mine\n")
    return folder


def test_a_run_s_adapter_arrives_with_its_card_in_a_private_repository(
    hub: HubStandIn, adapter: Path, tmp_path: Path
) -> None:
    planned = plan_push(adapter.parent, "me/mine")
    assert hub.requests == []
    assert planned.notes == ()
    done = push(planned)
    assert done.is_new
    assert hub.repos["me/mine"].is_private
    there = hub.repos["me/mine"].folder
    assert {f.name for f in there.iterdir()} == set(planned.files) == {
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    for name, num_bytes in planned.files.items():
        assert (there / name).read_bytes() == (adapter / name).read_bytes()
        assert (there / name).stat().st_size == num_bytes
    assert done.url == f"{hub.endpoint}/me/mine"
    assert done.to_json()["files"] == planned.files


def test_a_repository_that_is_there_is_asked_for_by_name(hub: HubStandIn, adapter: Path) -> None:
    push(plan_push(adapter, "me/mine"))
    (adapter / "README.md").write_text("# newer\n")
    with pytest.raises(UsageError, match=r"exists already, with 3 files and README\.md, adapter"):
        push(plan_push(adapter, "me/mine"))
    there = hub.repos["me/mine"].folder
    assert "newer" not in (there / "README.md").read_text()
    assert not push(plan_push(adapter, "me/mine"), existing=True).is_new
    assert "newer" in (there / "README.md").read_text()
    hub.repos["me/open"] = Repo(there)
    with pytest.raises(UsageError, match="me/open is public; nothing was uploaded"):
        push(plan_push(adapter, "me/open"), existing=True)
    assert not push(plan_push(adapter, "me/open", private=False), existing=True).is_new


def test_tokens_and_networks_that_fail_are_said(
    hub: HubStandIn, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", "reads")
    with pytest.raises(NetworkError, match=r"refuses to write to 'me/mine' with this token \(403"):
        push(plan_push(adapter, "me/mine"))
    monkeypatch.setenv("HF_TOKEN", "writes")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match="the Hub cannot be reached"):
        push(plan_push(adapter, "me/mine"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NetworkError, match="HF_HUB_OFFLINE is set"):
        plan_push(adapter, "me/mine")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(adapter / "none"))
    with pytest.raises(NetworkError, match="there is no token of the Hub"):
        plan_push(adapter, "me/mine")


def test_what_must_not_or_cannot_go_is_refused(hub: HubStandIn, adapter: Path, tmp_path: Path):
    for wrong, hint in [("mine", "OWNER/mine"), ("https://huggingface.co/me/mine", "me/mine")]:
        with pytest.raises(UsageError, match="it is owner/name") as caught:
            plan_push(adapter, wrong)
        assert caught.value.hint == hint
    with pytest.raises(ArtefactError, match="is no folder"):
        plan_push(tmp_path / "nowhere", "me/mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtefactError, match="holds no weights"):
        plan_push(tmp_path / "empty", "me/mine")
    (tmp_path / "empty" / "resolved.yaml").write_text("name: a\n")
    with pytest.raises(ArtefactError, match="no trained weights yet"):
        plan_push(tmp_path / "empty", "me/mine")
    pickle = adapter / "optimizer.pt"
    pickle.write_bytes(b"x")
    with pytest.raises(ArtefactError, match=r"optimizer\.pt, which runs code"):
        plan_push(adapter, "me/mine")
    pickle.unlink()
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    with pytest.raises(ArtefactError, match="adapter_model"):
        plan_push(adapter, "me/mine")
    assert hub.requests == []


def test_a_base_of_this_machine_alone_is_noted(hub: HubStandIn, adapter: Path) -> None:
    config = {"base_model_name_or_path": str(adapter)}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (adapter / "README.md").unlink()
    notes = plan_push(adapter, "me/mine").notes
    assert "no README.md" in notes[0]
    assert "which nobody else has" in notes[1]


def test_the_command_lists_the_files_before_anything_is_sent(
    hub: HubStandIn, adapter: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    asked = run_command(capfd, "push", adapter, "me/mine")
    assert asked.code == 2
    assert "nobody is there to answer" in asked.err
    assert "--yes" in asked.err
    assert "adapter_model.safetensors" in asked.out
    assert hub.requests == []
    done = run_command(capfd, "push", adapter, "me/mine", "--yes", "--public")
    assert done.code == 0
    assert done.out.index("adapter_config.json") < done.out.index("uploaded 3 files to")
    assert not hub.repos["me/mine"].is_private
    other = run_command(capfd, "push", adapter, "me/other", "--yes", "--json")
    assert json.loads(other.out)["repo"] == "me/other"
