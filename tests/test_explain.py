"""Any key is explained, and a wrong one is answered with the nearest."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console

from peftkit.errors import UsageError
from peftkit.explain import PLUGIN_KEYS, explain, render
from peftkit.plugins import GROUPS, plugin_names
from peftkit.recipe.docstrings import first_sentence
from peftkit.recipe.schema import ModelSection
from peftkit.recipe.signatures import signature_of


@pytest.mark.parametrize(
    ("key", "type_", "default", "origin"),
    [
        ("adapter.lora.r", "int, at least 1", "8", "LoraConfig (peft 0.21.2)"),
        ("lora.r", "int, at least 1", "8", "LoraConfig (peft 0.21.2)"),
        ("method.sft.max_length", "int or null, at least 1", "1024", "SFTConfig (trl 1.16.0)"),
        ("adapter.lora.eva_config.rho", "float", "2.0", "EvaConfig (peft 0.21.2)"),
        ("model.dtype", "one of 'auto', 'float32', 'bfloat16', 'float16'", "'auto'", "peftkit"),
        ("model.quantize.bitsandbytes.load_in_4bit", "bool", "false",
         "BitsAndBytesConfig (transformers 5.23.0)"),
        ("model.config.llama.hidden_size", "int, at least 1", "4096",
         "LlamaConfig (transformers 5.23.0)"),
        ("model.tokenizer.bpe.vocab_size", "int", "8192", "peftkit"),
        ("evaluate.generation.max_new_tokens", "int or null, at least 1", "null",
         "GenerationConfig (transformers 5.23.0)"),
        ("data.task.summarize.document", "str", "'document'", "peftkit 0.1.0"),
        ("data.audit.max_dropped", "float, at least 0 and at most 1", "0.05", "peftkit"),
        ("memory.budget", "a size like 6 GiB", "null", "peftkit"),
        ("name", "str", "the file's name", "peftkit"),
    ],
)  # fmt: skip
def test_an_option_is_explained(key: str, type_: str, default: str, origin: str) -> None:
    found = explain(key)
    assert (found.type, found.default, found.origin) == (type_, default, origin)
    assert found.doc


@pytest.mark.parametrize(
    ("key", "member"),
    [
        ("recipe", "adapter"),
        ("model", "path"),
        ("data", "splits"),
        ("adapter", "lora"),
        ("adapters", "lora"),
        ("lora", "r"),
        ("sft", "learning_rate"),
        ("data.source", "json"),
        ("sources", "json"),
        ("model.quantize", "bitsandbytes"),
        ("bitsandbytes", "load_in_4bit"),
        ("evaluate.generation", "top_p"),
        ("memory", "budget"),
        ("adapter.lora.eva_config", "rho"),
    ],
)
def test_a_section_or_plugin_lists_what_stands_below(key: str, member: str) -> None:
    found = explain(key)
    assert member in {m.name for m in found.members}
    assert found.doc
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render(found))
    lines = console.export_text().splitlines()
    assert any(line.startswith(member) for line in lines)
    doc = next(m.doc for m in found.members if m.name == member)
    shown = " ".join(" ".join(lines).split())
    assert first_sentence(doc) in shown  # no word is cut at a column's edge


def test_an_owned_key_says_what_to_use() -> None:
    assert "instead: " in explain("method.sft.output_dir").doc
    assert "output_dir" not in {m.name for m in explain("method.sft").members}


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("adaptr", "did you mean adapter?"),
        ("learning_rate", "did you mean method.sft.learning_rate?"),
        ("lora_alpha", "did you mean adapter.lora.lora_alpha?"),
        ("method.sft.learning_rat", "did you mean learning_rate?"),
        ("adapter.lroa", "did you mean lora?"),
        ("model.quantise", "did you mean quantize?"),
        ("model.quantize.bitsandbyte", "did you mean bitsandbytes?"),
        ("memory.bugdet", "did you mean memory.budget?"),
        ("name.x", "peftkit explain name"),
        ("adapter.lora.r.x", "peftkit explain adapter.lora.r"),
        ("zzz", "peftkit explain recipe"),
        ("a..b", "e.g. adapter.lora.r"),
    ],
)
def test_a_wrong_key_is_answered_with_the_nearest(key: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        explain(key)
    assert caught.value.hint == hint


def test_every_plugin_and_each_of_its_options_is_explained() -> None:
    for place, group in PLUGIN_KEYS.items():
        assert group in GROUPS
        for name in plugin_names(group):
            found = explain(f"{place}.{name}")
            assert found.doc, f"{place}.{name} says nothing"
            for member in found.members:
                assert member.type or explain(f"{place}.{name}.{member.name}").members
    for name in signature_of(ModelSection).options:
        assert explain(f"model.{name}").doc


def test_explaining_imports_no_stack() -> None:
    code = (
        "import sys; from peftkit.explain import explain\n"
        "explain('adapter'); explain('method.sft.seed'); explain('recipe')\n"
        "print([m for m in ('torch', 'transformers', 'peft', 'trl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
