"""The real Hub path end to end against a local stand-in: commits recorded, refusals explained."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_stand_in import HubStandIn, Repo, commit_of

# A process of its own, since huggingface_hub reads its endpoint and cache when it is imported.
CLIENT = """
import json, sys, warnings
from pathlib import Path
from peftkit.models import load as model
from peftkit.models.base import load_base
from peftkit.models.tokenizer import load_tokenizer
from peftkit.errors import PeftkitError
from peftkit.plugins import CAUSAL_LM
from peftkit.recipe.schema import ModelSection

def run(verb, options):
    section = ModelSection(**options)
    found = model.resolve(section)
    done = {"id": found.path_or_id, "revision": found.revision}
    if verb == "load":
        done["vocabulary"] = len(load_tokenizer(section, Path()))
        base = load_base(section, kind=CAUSAL_LM)
        done["parameters"] = sum(p.numel() for p in base.parameters())
    return done

for verb, options in json.loads(sys.argv[1]):
    try:
        print(json.dumps(run(verb, options)))
    except PeftkitError as error:
        print(json.dumps({"code": error.exit_code, "message": error.message, "hint": error.hint}))
"""


def ask(home: Path, endpoint: str, *asked: tuple[str, dict], **environment: str) -> list[dict]:
    """Run the client on (verb, model section) pairs with a Hub cache of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(asked)],
        env={**kept, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def hub(tmp_path_factory, tiny_model):
    """Serve a good model, a gated one, pickled weights, custom code, an adapter and a subfolder."""
    root = tmp_path_factory.mktemp("hub")

    def variant(name: str) -> Path:
        return Path(shutil.copytree(tiny_model, root / name))

    pickled = variant("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    custom = variant("custom")
    config = json.loads((custom / "config.json").read_text())
    config |= {"model_type": "ours", "auto_map": {"AutoConfig": "ours.OurConfig"}}
    (custom / "config.json").write_text(json.dumps(config))
    (custom / "ours.py").write_text("raise SystemExit('this code must never run')")
    redirecting = variant("redirecting")
    (redirecting / "adapter_config.json").write_text('{"base_model_name_or_path": "o/elsewhere"}')
    below = root / "below"
    shutil.copytree(tiny_model, below / "inner")
    bare = root / "bare"
    bare.mkdir()
    (bare / "README.md").write_text("nothing here")
    repos = {
        "owner/good": Repo(variant("good")),
        "owner/gated": Repo(variant("gated"), is_gated=True),
        "owner/pickled": Repo(pickled),
        "owner/custom": Repo(custom),
        "owner/adapter": Repo(redirecting),
        "owner/below": Repo(below),
        "owner/bare": Repo(bare),
    }
    with HubStandIn(repos, failing=("owner/failing",)) as serving:
        yield serving


NOWHERE = "http://127.0.0.1:9"


def test_loads_one_commit_and_then_works_offline(hub, tmp_path) -> None:
    commit = commit_of(hub.repos["owner/good"].folder)
    good = {"path": "owner/good", "dtype": "float32"}
    loaded, pinned, inner, pickled, custom = ask(
        tmp_path,
        hub.endpoint,
        ("load", good),
        ("resolve", {**good, "revision": commit}),
        ("resolve", {"path": "owner/below", "subfolder": "inner"}),
        ("load", {"path": "owner/pickled"}),
        ("load", {"path": "owner/custom"}),
    )
    assert (loaded["id"], loaded["revision"]) == ("owner/good", commit)
    assert loaded["parameters"] > 100_000
    assert pinned["revision"] == commit
    assert inner["revision"] == commit_of(hub.repos["owner/below"].folder)

    assert pickled["code"] == 4
    assert pickled["message"] == (
        "owner/pickled has no safetensors weights, and pickled ones can run code"
    )
    assert custom["code"] == 4
    assert custom["message"] == "owner/custom comes with Python code of its own"
    assert "model.trust_remote_code: true" in custom["hint"]

    num_requests = len(hub.requests)
    asked = ("load", good), ("resolve", {"path": "owner/absent"})
    offline, absent = ask(tmp_path, hub.endpoint, *asked, HF_HUB_OFFLINE="1")
    assert offline == loaded
    assert absent == {
        "code": 7,
        "message": "model 'owner/absent' is not in the Hub cache, and HF_HUB_OFFLINE is set",
        "hint": "unset HF_HUB_OFFLINE to download it, or name a local folder",
    }
    assert len(hub.requests) == num_requests

    asked = ("resolve", good), ("resolve", {"path": "owner/absent"})
    unreachable, absent = ask(tmp_path, NOWHERE, *asked)
    assert unreachable["revision"] == commit
    assert absent["code"] == 7
    assert absent["message"] == (
        "model 'owner/absent' is not in the Hub cache, and the Hub cannot be reached"
    )
    assert "hf download owner/absent" in absent["hint"]


def test_every_refusal_says_the_way_out(hub, tmp_path) -> None:
    asked = {
        "owner/gated": {},
        "owner/nowhere": {},
        "owner/good": {"revision": "v9"},
        "owner/bare": {},
        "owner/failing": {},
        "owner/adapter": {},
        "not an id": {},
    }
    answers = ask(
        tmp_path,
        hub.endpoint,
        *(("resolve", {"path": path, **more}) for path, more in asked.items()),
    )
    gated, nowhere, revision, bare, failing, adapter, invalid = answers
    page = "https://huggingface.co"
    assert gated == {
        "code": 7,
        "message": "the Hub's model 'owner/gated' is gated, and no valid token was sent (401)",
        "hint": f"accept the licence at {page}/owner/gated, then: hf auth login",
    }
    assert nowhere == {
        "code": 7,
        "message": "the Hub has no model 'owner/nowhere' that these credentials may see",
        "hint": (f"check the spelling at {page}/owner/nowhere; if it is private: hf auth login"),
    }
    assert revision == {
        "code": 7,
        "message": "the Hub's model 'owner/good' has no such revision",
        "hint": f"pick a branch, tag or commit listed at {page}/owner/good",
    }
    assert bare["code"] == 4
    assert bare["message"].startswith("the Hub's model 'owner/bare' lacks a file: ")
    assert failing["code"] == 7
    assert failing["message"] == "the Hub answered 500 for model 'owner/failing'"
    assert adapter["code"] == 4
    assert adapter["message"] == "the Hub's 'owner/adapter' holds an adapter, not a base model"
    assert invalid["code"] == 4
    assert invalid["message"] == "model.path 'not an id': no such folder"


def test_a_licence_not_accepted_with_a_token(hub, tmp_path) -> None:
    token = {"HF_TOKEN": "x"}
    (gated,) = ask(tmp_path, hub.endpoint, ("resolve", {"path": "owner/gated"}), **token)
    assert gated["code"] == 7
    assert "this account has no access (403)" in gated["message"]
    assert "accept the licence at https://huggingface.co/owner/gated" in gated["hint"]
