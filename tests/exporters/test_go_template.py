"""The Go template says what the chat template says, by a renderer of its own and by Go."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import chat_templates
import go_renderer
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from peftkit.exporters.chat_turns import Turns, held_out, learn_turns, render
from peftkit.exporters.go_template import escape, go_template

MAIN = """package main

import ("encoding/json"; "os"; "text/template")

type Message struct { Role, Content string }

func main() {
	var cases []struct { Template string; Messages []*Message }
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil { panic(err) }
	for _, c := range cases {
		t := template.Must(template.New("").Option("missingkey=zero").Parse(c.Template))
		var out string
		w := writer{&out}
		if err := t.Execute(w, map[string]any{"Messages": c.Messages}); err != nil { panic(err) }
		json.NewEncoder(os.Stdout).Encode(out)
	}
}

type writer struct { s *string }

func (w writer) Write(b []byte) (int, error) { *w.s += string(b); return len(b), nil }
"""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, list, str]]:
    """Template in Go's language, conversation, what the chat template renders."""
    tokenizer = tiny.tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    found = []
    for source in chat_templates.TRANSLATABLE.values():
        tokenizer.chat_template = source
        turns = learn_turns(tokenizer)
        template = go_template(turns)
        found += [(template, m, render(tokenizer, m)) for m in held_out(turns)]
    assert len(found) > 50
    return found


def test_a_renderer_of_go_renders_the_same(cases: list) -> None:
    for template, messages, wanted in cases:
        assert go_renderer.ollama(template, messages) == wanted


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
def test_go_itself_renders_the_same(cases: list, tmp_path: Path) -> None:
    (tmp_path / "main.go").write_text(MAIN)
    content = [
        {"Template": t, "Messages": [{"Role": x["role"], "Content": x["content"]} for x in m]}
        for t, m, _ in cases
    ]
    done = subprocess.run(
        ["go", "run", "main.go"], cwd=tmp_path, input=json.dumps(content), text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    rendered = [json.loads(line) for line in done.stdout.splitlines()]
    assert rendered == [wanted for _, _, wanted in cases]


def test_a_system_message_that_the_template_refuses_is_left_out(tmp_path: Path) -> None:
    tokenizer = tiny.tiny_tokenizer(tmp_path, chat_templates.NO_SYSTEM)
    turns = learn_turns(tokenizer)
    user = {"role": "user", "content": "sum"}
    messages = [{"role": "system", "content": "Be brief."}, user]
    rendered = go_renderer.ollama(go_template(turns), messages)
    assert rendered == render(tokenizer, [user]) == turns.render(messages)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_leaves_its_string(text: str) -> None:
    escaped = escape(text)
    assert escaped.isascii() and escaped.isprintable()
    assert not set('"{}') & set(escaped)
    template = go_template(Turns({("start", "user"): text, ("user", "end"): text}))
    assert '"""' not in template
    rendered = go_renderer.ollama(template, [{"role": "user", "content": "x"}])
    assert rendered == f"{text}x{text}"
