"""Find settings that cannot both be meant, within a section and across stated.

Each rule is a function that reads the sections and yields what it found; the gate gives it a
line. A rule looks only at what the recipe states: silence never contradicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any

from peftkit.errors import UsageError
from peftkit.plugins import find, plugin_names
from peftkit.recipe import (
    lora_contradictions,
    row_contradictions,
    speed,
    token_contradictions,
    trackers,
    training_contradictions,
)
from peftkit.recipe.schema import Choice, DataSection, Part
from peftkit.recipe.split_values import read_split
from peftkit.recipe.stated import Found, Stated, is_count
from peftkit.recipe.strict import Gate, suggest
from peftkit.recipe.yaml_file import parent_of


def find_contradictions(gate: Gate, sections: Mapping[str, Any]) -> None:
    """Note every contradiction in the sections that could be read."""
    known = {problem.key for problem in gate.problems}
    data: DataSection | None = sections["data"]
    is_split_wrong = any(_is_about_splits(key) for key in known if key)
    read = Stated(
        **{name: sections[name] for name in ("model", "data", "adapter", "method", "evaluate")},
        stops_early=sections["early_stopping"] is not None,
        per_epoch=sections["per_epoch"],
        speed=sections["speed"],
        splits=None if data is None or data.source is None or is_split_wrong else data.all_splits,
    )
    for rule in RULES:
        for key, problem, suggestion in rule(read):
            # What is wrong by itself needs no second line about what it would mean.
            if not any(wrong == key or wrong.startswith(f"{key}.") for wrong in known):
                gate.refuse(key, problem, suggestion)


def _is_about_splits(key: str) -> bool:
    parent = parent_of(key)
    return key.startswith("data.source") or parent in ("data", "data.splits")


def _model_origin(stated: Stated) -> Found:
    model = stated.model
    if model is None:
        return
    if model.path is None and model.config is None:
        yield "model", "names no base model", "write path: embedded:docstring-lm, or a Hub id"
    if model.path is not None and model.config is not None:
        yield "model.config", "contradicts model.path", "keep path, or config for a new model"
    is_trained = model.tokenizer is not None and model.tokenizer.name != "path"
    if model.config is None and is_trained:
        yield "model.tokenizer", "is trained for a new model only", "delete it: path brings its own"
    if model.config is not None and model.tokenizer is None and model.path is None:
        yield (
            "model.config",
            "a new model needs a tokenizer",
            "write model.tokenizer: {bpe: {vocab_size: 8192}}, or wordpiece for an encoder",
        )
    # Another kind than text is the gate's to say.
    is_local = isinstance(model.path, str) and model.path.startswith(("/", "embedded:"))
    for name in ("revision", "subfolder"):
        if getattr(model, name) is not None and (is_local or model.path is None):
            yield (
                f"model.{name}",
                "belongs to a model of the Hub",
                f"delete it: {model.path} has none",
            )


def _tokenizer(stated: Stated) -> Found:
    """Compare the tokenizer of a new model with those that the method trains."""
    chosen = stated.model.tokenizer if stated.model else None
    if chosen is None or stated.method is None or chosen.name == "path":
        return
    try:
        able = find("methods", stated.method.name).tokenizers
    except UsageError:
        return
    if chosen.name not in able:
        yield (
            f"model.tokenizer.{chosen.name}",
            f"{stated.method.name} trains a tokenizer of the kind {_either(able)}",
            f"write model.tokenizer: {{{able[0]}: {{vocab_size: 8192}}}}",
        )


def _model_shape(stated: Stated) -> Found:
    config = stated.model.config if stated.model else None
    if not config:
        return
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if is_count(hidden) and is_count(heads) and "head_dim" not in config and hidden % heads:
        yield (
            "model.config.num_attention_heads",
            f"does not divide hidden_size {hidden}",
            "e.g. hidden_size / 64 heads",
        )
    groups = config.get("num_key_value_heads")
    if is_count(heads) and is_count(groups) and heads % groups:
        yield (
            "model.config.num_key_value_heads",
            f"does not divide num_attention_heads {heads}",
            f"write {heads}",
        )


def _quantization(stated: Stated) -> Found:
    choice = stated.model.quantize if stated.model else None
    if choice is None:
        return
    if stated.adapter is not None and stated.adapter.is_full:
        yield (
            "model.quantize",
            "contradicts adapter: full, since quantized weights cannot be trained",
            "delete quantize, or train an adapter: {lora: {r: 16}}",
        )
    if stated.model and stated.model.config is not None:
        yield "model.quantize", "contradicts model.config: a new model is trained as it is", None
    at, plugin = f"model.quantize.{choice.name}", find("quantizers", choice.name)
    for option, problem, suggestion in plugin.conflicts(choice.options):
        yield f"{at}.{option}" if option else at, problem, suggestion


def _adapter(stated: Stated) -> Found:
    adapter, method, model = stated.adapter, stated.method, stated.model
    if adapter is None:
        return
    if model is not None and model.config is not None and not adapter.is_full:
        yield (
            "adapter",
            "a new model has nothing to adapt: all its weights are random",
            "write adapter: full",
        )
    if adapter.choice is None:
        return
    try:
        plugin = find("adapters", adapter.choice.name)
    except UsageError:
        return
    if method is not None:
        options = adapter.choice.options
        for conflict in plugin.conflicts(options, method.name, method.options):
            yield f"adapter.{adapter.choice.name}", conflict, None


def _splits(stated: Stated) -> Found:
    if stated.data is None or stated.splits is None:
        return
    seen = set()
    for part in stated.data.parts:
        key = "data.splits"
        if part.splits is not stated.data.splits and part.key != "data.source":
            key = f"{part.key}.splits"
        if (key, *part.splits.items()) not in seen:
            seen.add((key, *part.splits.items()))
            yield from _splits_of(key, part.splits)


def _splits_of(key: str, splits: Mapping[str, str]) -> Found:
    natives: dict[str, str] = {}
    total = Fraction(0)
    for name, native in splits.items():
        value = read_split(native)
        total += value.share or 0
        if value.is_cut:
            if "train" not in splits:
                yield f"{key}.{name}", "is cut from train, which is not there", "write train: train"
        elif native in natives:
            yield (
                f"{key}.{name}",
                f"is {natives[native]}'s own split {native!r}: scores on trained rows mean nothing",
                "name another split, or cut one: 5%",
            )
        else:
            natives[native] = name
    if total >= 1:
        yield (
            key,
            f"the percentages leave nothing to train on: {float(total * 100):g}%",
            "e.g. 5% each",
        )


def _mixed(stated: Stated) -> Found:
    """Look at a list of sources as a whole."""
    if stated.data is None or stated.data.source is None or not stated.data.is_list:
        return
    parts = stated.data.parts
    if parts and not any("train" in part.splits for part in parts):
        yield "data.source", "no source has a split train", "write train: train"
    split = stated.evaluate.split if stated.evaluate else None
    scored = [part for part in parts if split in part.splits]
    if len({repr(part.task) for part in scored}) > 1:
        names = " and ".join(dict.fromkeys(part.task.name for part in scored))
        yield (
            "evaluate.split",
            f"{split!r} would mix rows of several tasks ({names}), which no one metric scores",
            f"leave {split} to one source: splits: {{train: train}} at {scored[1].key}",
        )


def _evaluate(stated: Stated) -> Found:
    evaluate = stated.evaluate
    if evaluate is None:
        return
    if stated.splits is not None and evaluate.split not in stated.splits:
        known = list(stated.splits)
        yield (
            "evaluate.split",
            f"there is no split {evaluate.split!r} in data.splits",
            suggest(evaluate.split, known) or f"they are {', '.join(known)}",
        )


def _scored(stated: Stated) -> Found:
    """Find an evaluation that nobody can do, before anything is trained for it."""
    if stated.evaluate is None or stated.method is None:
        return
    try:
        method = find("methods", stated.method.name)
    except UsageError:
        return
    if not method.can_score():
        yield (
            "evaluate",
            f"nothing scores what {stated.method.name} trains, a model of {method.kind.auto_class}",
            "delete evaluate; the loss on a validation split is there: eval_strategy: epoch",
        )


_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff",
)  # fmt: skip


def _generation(stated: Stated) -> Found:
    if stated.evaluate is None:
        return
    options, at = stated.evaluate.generation, "evaluate.generation"
    yield from _generated(stated, at)
    if options.get("do_sample") is not True:
        for name in _SAMPLING:
            if options.get(name) is not None:
                yield f"{at}.{name}", "is ignored by greedy decoding", "write do_sample: true"
    if options.get("num_beams") in (None, 1):
        for name in ("length_penalty", "early_stopping"):
            if options.get(name):
                yield f"{at}.{name}", "is used by beam search only", "write num_beams: 4"
    fewest, most = options.get("min_new_tokens"), options.get("max_new_tokens")
    if is_count(fewest) and is_count(most) and fewest > most:
        yield f"{at}.min_new_tokens", f"is more than max_new_tokens {most}", f"write at most {most}"


def _generated(stated: Stated, at: str) -> Found:
    """Refuse options of generation where a model names labels or scores instead."""
    if not (stated.evaluate and stated.evaluate.generation and stated.method):
        return
    with suppress(UsageError):
        if find("methods", stated.method.name).kind.reads_rows:
            yield at, f"method.{stated.method.name} trains what generates nothing", "delete it"


def _examples(stated: Stated) -> Found:
    """Compare what the task makes with what the method trains on."""
    if stated.data is None or stated.data.task is None or stated.method is None:
        return
    for key, task in {part.task_key: part.task for part in _parts(stated.data)}.items():
        yield from _examples_of(key, task, stated.method)


def _parts(data: DataSection) -> tuple[Part, ...]:
    """Return the sources that could be read."""
    return data.parts if data.source is not None else ()


def _examples_of(key: str, task_choice: Choice, method_choice: Choice) -> Found:
    task_name, method_name = task_choice.name, method_choice.name
    try:
        task, method = find("tasks", task_name), find("methods", method_name)
    except UsageError:
        return
    if _can_train(method, task):
        found = method.conflicts(method_choice.options, task, task_choice.options)
        for option, problem, suggestion in found:
            yield f"method.{method_name}.{option}", problem, suggestion
        return
    made, trained = (
        " and ".join(k.__name__ for k in kinds) for kinds in (task.makes, method.examples)
    )
    ways = {
        "method": [name for name, other in _loadable("methods") if _can_train(other, task)],
        "task": [name for name, other in _loadable("tasks") if _can_train(method, other)],
    }
    others = [f"the {noun} {_either(names)}" for noun, names in ways.items() if names]
    yield (
        f"{key}.{task_name}",
        f"makes {made} examples, {method_name} trains on {trained}",
        f"use {', or '.join(others)}" if others else None,
    )


def _can_train(method: Any, task: Any) -> bool:
    return any(issubclass(kind, tuple(method.examples)) for kind in task.makes)


def _loadable(group: str) -> list[tuple[str, Any]]:
    """Load a group's plugins; one that cannot be loaded is refused where a recipe names it."""
    found = []
    for name in plugin_names(group):
        with suppress(UsageError):
            found.append((name, find(group, name)))
    return found


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


RULES: tuple[Callable[[Stated], Found], ...] = (
    _model_origin,
    _tokenizer,
    _model_shape,
    _quantization,
    _adapter,
    *lora_contradictions.RULES,
    *token_contradictions.RULES,
    *training_contradictions.RULES,
    *trackers.RULES,
    *row_contradictions.RULES,
    *speed.RULES,
    _splits,
    _mixed,
    _evaluate,
    _scored,
    _generation,
    _examples,
)
