"""Every export is whole or not there, proven or refused, and says where it came from."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_families
from command_line import run_command

from peftkit import plugins
from peftkit.errors import ArtefactError, RecipeError, ResourceError, UsageError
from peftkit.export import export, render_export
from peftkit.plugins.exported import Exported, Proof, Trained


def _adapter(base: Path, folder: Path, **config) -> Path:
    """Save a LoRA whose every number is random beside a tokenizer of its own."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **config}
    attached = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in attached.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    attached.save_pretrained(folder)
    tiny.tiny_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    base = tiny_families.save("llama", folder / "base")
    return _adapter(base, folder / "adapter")


class Writer:
    """Write one file, and report a proof that the test chooses."""

    Config = None
    reads = "model"
    proof = Proof("sameness", 0.0, 0.0, "nothing with nothing")
    error: Exception | None = None

    def __init__(self, config: None) -> None: ...

    def export(self, _: Trained, out: Path) -> Exported:
        (out / "half").write_text("half")
        if self.error:
            raise self.error
        return Exported((out / "half",), (self.proof,), ("a note",))


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> type[Writer]:
    cls = type("Chosen", (Writer,), {"Config": plugins.find("exporters", "safetensors").Config})
    monkeypatch.setattr("peftkit.export.find", lambda *_: cls)
    return cls


def test_an_adapter_is_merged_and_its_logits_are_those_of_base_and_adapter(
    trained: Path, tmp_path: Path
) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    result = export(trained, "safetensors", out=tmp_path / "out")
    ids = torch.arange(5, 60)[None]
    with torch.no_grad():
        wanted = AutoPeftModelForCausalLM.from_pretrained(trained)(ids).logits
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(ids).logits
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=2e-5)
    assert {"config.json", "tokenizer.json", "chat_template.jinja"} <= set(result.files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_the_manifest_lists_every_file_with_its_hash(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the gguf extra is not installed")
    result = export(trained, "gguf", out=tmp_path / "out", options=["outtype=q8_0"])
    manifest = json.loads((tmp_path / "out" / "export.json").read_text())
    assert manifest["schema_version"] == 1
    assert manifest["options"] == ["outtype=q8_0"]
    assert manifest["files"].keys() == {"adapter-q8_0.gguf"} == set(result.files)
    for name, described in manifest["files"].items():
        content = (tmp_path / "out" / name).read_bytes()
        assert described["num_bytes"] == len(content) == result.num_bytes
        assert described["sha256"] == hashlib.sha256(content).hexdigest()
    assert [p["what"] for p in manifest["proofs"]][-2:] == ["tensors", "tokens"]
    assert result.to_json()["proofs"][-1]["measured"] == 0.0


def test_a_whole_model_is_copied_and_stays(tmp_path: Path) -> None:
    folder = tiny_families.save("qwen3", tmp_path / "model")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    export(folder, "safetensors", out=tmp_path / "out")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    copied = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert before.items() <= copied.items()


def test_what_is_not_proven_is_not_kept(writer: type[Writer], trained: Path, tmp_path: Path):
    for measured in (2.0, float("nan")):
        writer.proof = Proof("logits", measured, 1.0, "on 3 rows")
        with pytest.raises(ArtefactError, match=r"logits: .* is above 1"):
            export(trained, "x", out=tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ArtefactError("no"), ArtefactError),
        (OSError(28, "No space left on device"), ResourceError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_an_export_that_breaks_off_leaves_nothing(
    error: BaseException, raised: type, writer: type[Writer], trained: Path, tmp_path: Path
) -> None:
    writer.error = error
    with pytest.raises(raised):
        export(trained, "x", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_error_names_what_was_exported_and_no_folder_that_is_gone(
    writer: type[Writer], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Writer, read: Trained, out: Path) -> Exported:
        raise ArtefactError(f"{read.folder}: no", hint=f"look at {out}")

    monkeypatch.setattr(writer, "export", refuse)
    with pytest.raises(ArtefactError) as caught:
        export(trained, "x", out=tmp_path / "out")
    assert caught.value.message == f"{trained} (merged): no"
    assert caught.value.hint == f"look at {tmp_path / 'out'}"


def test_a_folder_that_holds_something_is_refused_before_any_work(
    trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("keep")
    for out in (tmp_path, tmp_path / "mine"):
        with pytest.raises(UsageError, match="not an empty folder"):
            export(trained, "safetensors", out=out)
    assert (tmp_path / "mine").read_text() == "keep"


def test_too_little_room_is_known_before_the_first_byte(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match=r"the export needs 1\.2 MiB"):
        export(trained, "safetensors", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_options_go_through_the_gate(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean outtype"):
        export(trained, "gguf", out=tmp_path / "out", options=["outype=f16"])
    with pytest.raises(RecipeError, match="q4"):
        export(trained, "gguf", out=tmp_path / "out", options=["outtype=q4"])
    with pytest.raises(UsageError, match="there is no exporter 'ggml'"):
        export(trained, "ggml", out=tmp_path / "out")


def test_a_whole_model_is_no_adapter(tmp_path: Path) -> None:
    folder = tiny_families.save("llama", tmp_path / "model")
    with pytest.raises(ArtefactError, match="not an adapter") as caught:
        export(folder, "adapter", out=tmp_path / "out")
    assert "safetensors" in str(caught.value.hint)


def test_a_run_lends_its_name_and_its_test_prompts(
    writer: type[Writer], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "adapter").symlink_to(trained)
    base = trained.parent / "base"
    recipe = tiny.recipe_text(base, tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(2)))
    (run / "resolved.yaml").write_text(recipe.replace("name: tiny", "name: my-run"))
    samples = [
        {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "question"}]},
        {"prompt": "plain"},
    ]
    tiny.write_jsonl(run / "samples.jsonl", samples)
    seen = []
    writer.export = lambda self, given, out: (
        seen.append(given) or Writer.export(self, given, out)  # type: ignore[func-returns-value]
    )
    monkeypatch.chdir(tmp_path)
    result = export(run, "x")
    assert result.out == Path("exports/my-run-x")
    assert seen[0].name == "my-run"
    assert seen[0].texts == ("question", "plain")
    assert seen[0].is_scratch


def test_the_result_is_shown_with_its_proofs_and_notes(
    writer: type[Writer], trained: Path, tmp_path: Path
) -> None:
    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream, width=100).print(render_export(export(trained, "x", out=tmp_path / "out")))
    text = stream.getvalue()
    for part in (": 1 file, 0 KiB", "sameness", "nothing with nothing", "note: a note"):
        assert part in text


def test_the_command_prints_json_and_refuses_with_its_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_families.save("llama", tmp_path / "model")
    command = ["export", folder, "--json", "--to"]
    done = run_command(capfd, *command, "safetensors", "--out", tmp_path / "out")
    assert (done.code, json.loads(done.out)["to"]) == (0, "safetensors")
    refused = run_command(capfd, *command, "adapter", "--out", tmp_path / "other")
    assert (refused.code, json.loads(refused.out)["exit_code"]) == (4, 4)
