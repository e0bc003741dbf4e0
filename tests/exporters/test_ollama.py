"""A Modelfile holds its template and stops and nothing else, and prompts are the trained ones."""

from __future__ import annotations

import json
from pathlib import Path

import chat_templates
import go_renderer
import pytest
import tiny
import tiny_families

from peftkit.errors import ArtefactError
from peftkit.exporters.ollama import Ollama
from peftkit.plugins.exported import Trained
from peftkit.testing import check_exporter

gguf = pytest.importorskip("gguf", reason="the gguf extra is not installed")


def _model(tmp_path: Path, template: str | None) -> Path:
    folder = tiny_families.save("llama", tmp_path / "model")
    tiny.tiny_tokenizer(folder, template)
    if template is None:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    (tmp_path / "out").mkdir()
    return folder


def read_modelfile(text: str) -> list[tuple[str, str]]:
    """Read a Modelfile as Ollama does: a word, then a value to the end of the line or of quotes."""
    commands, rest = [], text
    while rest.strip():
        word, _, rest = rest.lstrip().partition(" ")
        name = word.lower()
        if name == "parameter":
            name, _, rest = rest.partition(" ")
        if rest.startswith('"""'):
            value, _, rest = rest[3:].partition('"""\n')
        else:
            value, _, rest = rest.partition("\n")
            value = value[1:-1] if value.startswith('"') else value
        commands.append((name, value))
    return commands


@pytest.mark.parametrize("name", list(chat_templates.TRANSLATABLE))
def test_prompts_are_the_trained_ones_token_by_token(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = _model(tmp_path, chat_templates.TRANSLATABLE[name])
    texts = ("Sum two numbers.", "Read a file.\n\nThen close it.")
    trained = Trained("tiny", folder, texts=texts)
    exported = check_exporter(Ollama, {}, trained, tmp_path / "out")
    assert [proof.what for proof in exported.proofs] == ["tensors", "tokens", "prompts"]
    commands = read_modelfile((tmp_path / "out" / "Modelfile").read_text())
    assert [name for name, _ in commands] == ["from", "template", "stop"]
    assert commands[0][1] == "./model.gguf"
    assert commands[2][1] == "<|endoftext|>"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [
        {"role": "user", "content": texts[0]},
        {"role": "assistant", "content": "return a+b"},
        {"role": "user", "content": texts[1]},
    ]
    prompt = go_renderer.ollama(commands[1][1], messages)
    wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert tokenizer(prompt, add_special_tokens=False).input_ids == wanted
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    assert reader.get_field("tokenizer.ggml.add_bos_token").contents() is False


def test_limits_are_told(tmp_path: Path) -> None:
    folder = _model(tmp_path, chat_templates.NO_SYSTEM)
    notes = check_exporter(Ollama, {}, Trained("tiny", folder), tmp_path / "out").notes
    assert any("strips white space" in note for note in notes)
    assert any("no system message" in note for note in notes)


def test_a_model_without_a_template_gets_the_bare_prompt(tmp_path: Path) -> None:
    folder = _model(tmp_path, None)
    exported = check_exporter(Ollama, {}, Trained("tiny", folder), tmp_path / "out")
    assert 'TEMPLATE """{{ .Prompt }}"""' in (tmp_path / "out" / "Modelfile").read_text()
    assert "no chat template" in exported.notes[-1]


def test_a_template_out_of_reach_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = _model(tmp_path, chat_templates.REFUSED["numbers its turns"][0])
    with pytest.raises(ArtefactError, match="chat template"):
        Ollama(Ollama.Config()).export(Trained("tiny", folder), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_stops_and_sampling_come_from_the_generation_config(tmp_path: Path) -> None:
    folder = _model(tmp_path, chat_templates.CHATML)
    stated = {"eos_token_id": [0, 4], "do_sample": True, "temperature": 0.6, "top_k": 20,
              "repetition_penalty": 1.05}  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps(stated))
    check_exporter(Ollama, {}, Trained("tiny", folder), tmp_path / "out")
    commands = read_modelfile((tmp_path / "out" / "Modelfile").read_text())
    assert commands[2:] == [
        ("stop", "<|endoftext|>"), ("stop", "<|assistant|>"), ("temperature", "0.6"),
        ("top_k", "20"), ("repeat_penalty", "1.05"),
    ]  # fmt: skip


@pytest.mark.parametrize("token", ['<end"\nSYSTEM evil', "<a\nb>", '"""', "<\u2028>"])
def test_a_stop_that_could_leave_its_line_is_refused(token: str, tmp_path: Path) -> None:
    folder = _model(tmp_path, chat_templates.CHATML)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"eos_token": token})
    tokenizer.save_pretrained(folder)
    with pytest.raises(ArtefactError, match="cannot stand in a Modelfile"):
        Ollama(Ollama.Config()).export(Trained("tiny", folder), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
