"""Rules speak only of what a recipe states; the corpus in `wrong` tests each rule's refusal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from wrong.cases import GOOD, write_files

from peftkit.errors import RecipeError
from peftkit.plugins import find, only_builtins, plugin_names
from peftkit.recipe.build import construct
from peftkit.recipe.load import load_recipe

FINE = [
    ("max_steps: 10", "max_steps: -1\n    num_train_epochs: 3"),
    ("max_steps: 10", "eval_strategy: 'no'\n    eval_delay: 0"),
    ("max_steps: 10", "bf16: true\n    fp16: false\n    use_cpu: true"),
    ("max_steps: 10", "lr_scheduler_type: constant_with_warmup\n    warmup_steps: 5"),
    ("max_steps: 10", "save_strategy: steps\n    save_steps: 5"),
    ("max_steps: 10", "dataloader_num_workers: 2\n    dataloader_prefetch_factor: 2"),
    ("limit: 4", "generation: {do_sample: true, temperature: 0.7, top_p: 0.9}"),
    ("limit: 4", "generation: {num_beams: 4, length_penalty: 0.8}"),
    ("dtype: float32", "quantize: {bitsandbytes: {load_in_4bit: true}}"),
    ("all-linear", "[q_proj]\n    layers_to_transform: [0]"),
    ("all-linear", "all-linear\n    init_lora_weights: loftq\n    loftq_config: {loftq_bits: 4}"),
]


@pytest.mark.parametrize(("old", "new"), FINE)
def test_what_belongs_together_passes(old: str, new: str, tmp_path: Path) -> None:
    file = write_files(tmp_path)
    file.write_text(GOOD.replace(old, new))
    load_recipe(file)


def test_what_is_wrong_by_itself_is_said_once(tmp_path: Path) -> None:
    file = write_files(tmp_path)
    file.write_text(GOOD.replace("splits:", "splitz:"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert [p.key for p in caught.value.problems] == ["data.splitz"]


def test_an_evaluation_that_nobody_can_do_is_refused(tmp_path: Path, monkeypatch) -> None:
    from peftkit.methods.sft import SFT
    from peftkit.plugins import PRETRAINING

    file = write_files(tmp_path)
    file.write_text(GOOD)
    load_recipe(file)
    monkeypatch.setattr(SFT, "kind", PRETRAINING)
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    (problem,) = [one for one in caught.value.problems if one.key == "evaluate"]
    assert "nothing scores what sft trains" in problem.problem
    monkeypatch.setattr(SFT, "evaluator", lambda *_: None)
    load_recipe(file)


TASKS = {
    "chat": ({}, {"messages": [{"role": r, "content": "sort"} for r in ("user", "assistant")]}),
    "classify": ({}, {"text": "sort the keys", "label": "right"}),
    "feedback": ({}, {"prompt": "sort", "completion": "keys", "label": True}),
    "image_chat": (
        {},
        {"messages": [{"role": r, "content": "sort"} for r in ("user", "assistant")],
         "images": [b"a picture"]},
    ),
    "image_text": ({}, {"image": b"a picture", "question": "what", "answer": "keys"}),
    "preference": ({}, {"prompt": "sort", "chosen": "keys", "rejected": "rows"}),
    "prompt_completion": ({}, {"prompt": "sort", "completion": "keys"}),
    "question_answering": (
        {"answers": "answer", "search": True},
        {"question": "what", "context": "sort the keys", "answer": "keys"},
    ),
    "regress": ({}, {"text": "sort the keys", "label": 0.5}),
    "summarize": ({}, {"document": "sort the keys", "summary": "sort"}),
    "text": ({}, {"text": "sort the keys"}),
    "translate": ({"source": "en", "target": "de"}, {"en": "key", "de": "Schlüssel"}),
}  # fmt: skip
"""Options of every built-in task, and a row of it."""


@pytest.mark.parametrize("name", TASKS)
def test_check_takes_a_task_for_a_method_that_can_train_its_examples(
    name: str, tmp_path: Path
) -> None:
    """Compared with the example that the task really makes of a row."""
    file = write_files(tmp_path)
    file.write_text(GOOD)
    options, row = TASKS[name]
    task = find("tasks", name)
    example = task(construct(task.Config, options)).example(row)
    with only_builtins():
        methods = plugin_names("methods")
        fitting = [m for m in methods if isinstance(example, find("methods", m).examples)]
    assert fitting
    for method in methods:
        overrides = [f"data.task={json.dumps({name: options})}", f"method={{{method}: {{}}}}"]
        if method in fitting:
            load_recipe(file, overrides)
            continue
        with pytest.raises(RecipeError) as caught:
            load_recipe(file, overrides)
        (problem,) = caught.value.problems
        assert problem.key == f"data.task.{name}"
        assert problem.problem.startswith(f"makes {type(example).__name__} examples, {method} ")
        able, _, tasks = problem.suggestion.partition(", or the task ")
        assert re.split(", | or ", able.removeprefix("use the method ")) == fitting
        others = re.split(", | or ", tasks)
        for other in others:
            load_recipe(file, [f"data.task={json.dumps({other: TASKS[other][0]})}", overrides[1]])


def test_every_built_in_task_is_compared() -> None:
    with only_builtins():
        assert plugin_names("tasks") == sorted(TASKS)
