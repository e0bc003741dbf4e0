"""Chat templates that somebody wrote against us: each ends soon, in little memory, and is named."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import tiny

from peftkit.errors import ArtefactError
from peftkit.system import templates
from peftkit.system.templates import RefusedByTemplateError, render_template

ENDLESS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}",
    "a power": "{{ 9 ** (9 ** 9) }}",
    "a power that is folded": "{% set x = 7 ** 99999999 %}x",
    "doubled texts": "{% set n = namespace(x='xxxxxxxx') %}{% for i in range(60) %}"
    "{% set n.x = n.x ~ n.x %}{% endfor %}",
    "a repeated text": "{{ 'ab' * 5000000000 }}",
    "a wide text": "{{ 'a' | center(9999999999) }}",
    "a macro of itself": "{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('') }}",
    "a macro twice of itself": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(90) }}",
    "a list of itself": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}"
    "{% set n.x = n.x + n.x %}{% endfor %}",
}
MISTAKEN = {
    "a division": "{{ 1 / 0 }}",
    "no such key": "{{ messages[9].content.x }}",
    "its own word": "{{ raise_exception('roles must alternate') }}",
    "no template": "{% for %}",
    "an attribute": "{{ ''.__class__.__mro__ }}{{ messages.append(1) }}",
    "a huge number": "{{ (10 ** 5000) | string }}",
}
SAID = [{"role": "user", "content": "sort keys"}, {"role": "assistant", "content": "by name"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tokenizer")
    tiny.tiny_tokenizer(place)
    return place


@pytest.fixture
def tokenizer(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_without_an_end_is_named(tokenizer, name: str, monkeypatch) -> None:
    monkeypatch.setattr(templates, "SECONDS", 0.2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tokenizer.chat_template = ENDLESS[name]
    with pytest.raises(
        ArtefactError, match=r"the chat template of \S*tokenizer\S* (comp|take|call)"
    ):
        render_template(tokenizer, SAID, tokenize=False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


@pytest.mark.parametrize("name", MISTAKEN)
def test_a_mistake_in_a_template_is_its_refusal(tokenizer, name: str) -> None:
    tokenizer.chat_template = MISTAKEN[name]
    with pytest.raises(RefusedByTemplateError, match="the chat template refuses the messages: "):
        render_template(tokenizer, SAID, tokenize=False)


def test_a_template_renders_what_transformers_has_it_render(tokenizer) -> None:
    wanted = tokenizer.apply_chat_template(SAID, tokenize=False)
    assert render_template(tokenizer, SAID, tokenize=False) == wanted


def test_templates_are_rendered_in_one_place() -> None:
    package = Path(templates.__file__).parents[1]
    found = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if ".apply_chat_template(" in file.read_text(encoding="utf-8")
    }
    assert found == {"system/templates.py"}
