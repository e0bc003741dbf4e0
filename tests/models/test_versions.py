"""versions.json records what ran, in a form that runs it again."""

from __future__ import annotations

import platform
import shlex
from importlib import metadata
from pathlib import Path

import tiny

from peftkit.models.versions import STACK, describe_versions
from peftkit.plugins import Machine
from peftkit.recipe.load import load_recipe

CPU = Machine("cpu", supports_bfloat16=False, total_bytes=1, free_bytes=1, name="A CPU")


def test_the_record_names_the_stack_and_a_command_that_parses_to_the_same_run(
    tmp_path: Path, tiny_model: Path, tiny_data: Path
) -> None:
    from peftkit.cli.app import app

    file = tmp_path / "a recipe.yaml"
    file.write_text(tiny.recipe_text(tiny_model, tiny_data), encoding="utf-8")
    overrides = ("adapter.lora.r=8", "data.task.summarize.instruction=It's short.")
    found = describe_versions(load_recipe(file, overrides), CPU, out=tmp_path / "out")

    assert found["python"] == platform.python_version()
    assert set(found["packages"]) == set(STACK)
    assert all(found["packages"][name] == metadata.version(name) for name in STACK)
    assert (found["device"], found["model"]["path"]) == ("A CPU", str(tiny_model))
    program, verb, *arguments = shlex.split(found["command"])
    assert (program, verb) == ("peftkit", "run")
    import typer

    command = typer.main.get_command(app).commands[verb]
    with command.make_context(verb, list(arguments)) as context:
        assert Path(context.params["recipe"]) == file
        assert context.params["overrides"] == list(overrides)
        assert Path(context.params["out"]) == tmp_path / "out"


def test_a_model_from_scratch_has_no_base_to_record(tmp_path: Path, tiny_data: Path) -> None:
    file = tmp_path / "new.yaml"
    text = tiny.recipe_text(Path("unused"), tiny_data)
    config = (
        "  config: {model_type: llama, hidden_size: 64, intermediate_size: 128,"
        " num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 128}\n"
        "  tokenizer: {bpe: {vocab_size: 300}}"
    )
    text = text.replace("  path: unused", config)
    text = text.replace("  lora: {r: 4, lora_alpha: 8, target_modules: all-linear}", "")
    text = text.replace("adapter:\n", "adapter: full\n")
    file.write_text(text, encoding="utf-8")
    found = describe_versions(load_recipe(file), CPU, out=tmp_path)
    assert found["model"] == {"path": None, "revision": None}
