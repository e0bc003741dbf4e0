"""What a trainer switches in a configuration is put back before it is scored and saved."""

from __future__ import annotations

import json
from pathlib import Path

import tiny
from small_models import small_model
from training_fixture import train, write_recipe


def test_a_model_with_experts_is_scored_and_saved_as_it_was_loaded(tmp_path: Path) -> None:
    """trl has it return its routers' logits, of which generation cannot compute a loss."""
    base, rows = tmp_path / "base", tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(4))
    small_model("mixtral").save_pretrained(base)
    tiny.tiny_tokenizer(base)
    recipe = write_recipe(
        tmp_path / "recipe.json", base, rows, sft={"max_steps": 1, "save_strategy": "no"},
        adapter="full", evaluate=True,
    )  # fmt: skip
    run = train(recipe, tmp_path / "run")
    assert run.scores.is_file()
    before, after = (
        json.loads((folder / "config.json").read_text()) for folder in (base, run.trained)
    )
    keys = ("output_router_logits", "router_aux_loss_coef", "use_cache")
    assert [after[key] for key in keys] == [before[key] for key in keys] == [False, 0.001, True]
