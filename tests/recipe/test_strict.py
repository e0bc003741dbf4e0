"""The gate finds every problem, and lets everything pass that can work."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from peftkit.plugins import find, plugin_names
from peftkit.recipe.kinds import from_hint
from peftkit.recipe.signatures import signature_of
from peftkit.recipe.strict import Gate, bound_of, suggest


@dataclass(frozen=True)
class Inner:
    """Hold one nested option."""

    depth: int = 1


@dataclass(frozen=True)
class Options:
    """Hold one option of each sort."""

    needed: str
    rank: int = 4
    share: float = 0.5
    mode: Literal["fast", "exact"] = "fast"
    names: list[str] = field(default_factory=list)
    inner: Inner | None = None
    wrong: int = None  # type: ignore[assignment]  # upstream writes such hints too


def check(options: Any, **owned: str) -> list[tuple[str, str, str | None]]:
    gate = Gate("x.yaml", {})
    gate.check_options("a", options, signature_of(Options), owned=owned)
    return [(p.key, p.problem, p.suggestion) for p in gate.sorted_problems()]


def test_what_fits_passes() -> None:
    assert check({"needed": "x"}) == []
    assert check({"needed": "x", "share": 1, "inner": {"depth": 2}, "names": ["a"]}) == []


def test_a_value_equal_to_the_default_passes_even_where_its_hint_forbids_it() -> None:
    assert check({"needed": "x", "wrong": None}) == []
    assert check({"needed": "x", "rank": 4.0}) == [("a.rank", "expected int, got 4.0", "write 4")]


def test_every_problem_is_found_at_once() -> None:
    found = check({"rank": "4", "mode": "fst", "inner": {"depht": 1}, "shaer": 1, "names": "a"})
    assert found == [
        ("a.rank", "expected int, got '4'", "write 4 without quotes"),
        ("a.mode", "expected one of 'fast', 'exact', got 'fst'", "did you mean fast?"),
        ("a.inner.depht", "inner has no such key", "did you mean depth?"),
        ("a.shaer", "a has no such key", "did you mean share?"),
        ("a.names", "expected a list of str, got 'a'", "write [a]"),
        ("a.needed", "a requires this key", "write needed: str"),
    ]


def test_owned_keys_are_refused_with_what_to_use() -> None:
    assert check({"needed": "x", "rank": 4}, rank="the other rank") == [
        ("a.rank", "peftkit sets this key itself", "use instead: the other rank")
    ]
    assert check({"rank": 4}, needed="nothing: it is known", rank="nothing: it is set") == [
        ("a.rank", "peftkit sets this key itself", "delete it: it is set")
    ]


def test_what_is_no_mapping_is_refused() -> None:
    assert check([1]) == [("a", "expected a mapping of a's keys, got [1]", None)]


@pytest.mark.parametrize(
    ("value", "hint", "suggestion"),
    [
        ("16", int, "write 16 without quotes"),
        ("1e3", int, "write 1000 without quotes"),
        ("2e-4", float, "write 2e-4 without quotes"),
        ("1_000", int, "write 1000"),
        ("1,000", int, "write 1000"),
        ("1,000,000", int, "write 1000000"),
        ("2,0e-3", float, "write 2.0e-3"),
        ("0,001", float, "write 0.001"),
        ("0,5", float, "write 0.5"),
        ("1,5,2", float, None),
        ("0x10", int, "write 16"),
        ("0o17", int, "write 15"),
        ("010", int, "write 10"),
        ("1.5", int, None),
        ("10%", float, "write 0.1"),
        ("10%", int, None),
        ("no", bool, "write false"),
        ("True", bool, "write true"),
        ("maybe", bool, None),
        (3.0, int, "write 3"),
        (True, str, "write 'true' in quotes"),
        (3, str, "write '3' in quotes"),
        ("x", list[str], "write [x]"),
        ([3], int, "write 3"),
        (None, int, "delete the key to take its default"),
        (math.nan, int, None),
        ("None", int | None, "delete the key, or write null"),
        (False, Literal["false", "true"], "write 'false' in quotes"),
    ],
)
def test_the_way_out_is_named_where_it_is_clear(
    value: Any, hint: Any, suggestion: str | None
) -> None:
    gate = Gate("x.yaml", {})
    assert not gate.check_value("k", value, from_hint(hint))
    assert gate.problems[0].suggestion == suggestion


def test_following_the_suggestion_is_accepted() -> None:
    gate = Gate("x.yaml", {})
    for written in (16, 1000, 15, 10):
        assert gate.check_value("k", written, from_hint(int))
    assert gate.check_value("k", 0.1, from_hint(float))


@pytest.mark.parametrize(
    ("name", "known", "answer"),
    [
        ("lroa", ["road", "lora", "loha"], "did you mean lora?"),
        ("LoRA", ["lora"], "did you mean lora?"),
        ("num-steps", ["num_steps"], "did you mean num_steps?"),
        ("max_seq_length", ["max_length"], "did you mean max_length?"),
        ("zzz", ["lora"], None),
    ],
)
def test_the_nearest_word_is_suggested(name: str, known: list[str], answer: str | None) -> None:
    assert suggest(name, known) == answer


def test_bounds_hold_by_name_and_by_ending() -> None:
    assert str(bound_of("max_steps")) == "at least 1, or -1"
    assert str(bound_of("any_dropout")) == "at least 0 and below 1"
    assert bound_of("scale") is None


def test_lines_are_the_key_s_or_the_nearest_above() -> None:
    gate = Gate("x.yaml", {"a": 1, "a.b": 2}, {"c", "d.e"})
    for key in ("a.b.c", "a.x", "c.x", "d", "z"):
        gate.refuse(key, "wrong")
    assert [(p.key, p.place) for p in gate.problems] == [
        ("a.b.c", "line 2"), ("a.x", "line 1"), ("c.x", "override"), ("d", "override"), ("z", "-"),
    ]  # fmt: skip


def test_paths_start_at_the_recipe_s_folder(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    gate = Gate(str(tmp_path / "x.yaml"), {})
    hint = from_hint(Path | list[Path] | dict[str, Path])
    rows = str(tmp_path / "rows.jsonl")
    assert gate.resolve_paths("k", "rows.jsonl", hint) == rows
    assert gate.resolve_paths("k", ["rows.jsonl"], hint) == [rows]
    assert gate.resolve_paths("k", {"a": rows}, hint) == {"a": rows}
    assert gate.resolve_paths("k", "*.jsonl", hint) == str(tmp_path / "*.jsonl")
    assert gate.resolve_paths("k", "owner/name", from_hint(str | Path)) == "owner/name"
    assert gate.resolve_paths("k", "rows.jsonl", from_hint(str | Path)) == rows
    assert gate.problems == []
    gate.resolve_paths("k", "row.jsonl", hint)
    gate.resolve_paths("k", "*.csv", hint)
    assert [p.suggestion for p in gate.problems] == [
        "did you mean rows.jsonl?", f"paths start at {tmp_path}"
    ]  # fmt: skip


@pytest.mark.parametrize("group", ["adapters", "methods"])
def test_the_defaults_of_every_native_config_pass(group: str) -> None:
    checked = 0
    for name in plugin_names(group):
        plugin = find(group, name)
        if plugin.Config is None:
            continue
        signature = signature_of(plugin.Config)
        defaults = {o.name: o.default for o in signature.options.values() if o.has_default}
        gate = Gate("x.yaml", {})
        gate.check_options(group, defaults, signature)
        missing = {o.name for o in signature.options.values() if o.is_required}
        wrong = [p for p in gate.problems if p.key.rpartition(".")[2] not in missing]
        assert wrong == [], name
        checked += 1
    assert checked >= {"adapters": 45, "methods": 2}[group]


@pytest.mark.parametrize(
    ("adapter", "options"),
    [
        ("lora", {"init_lora_weights": "pissa_niter_16"}),
        ("lora", {"init_lora_weights": "eva", "eva_config": {"rho": 1.5}}),
        ("lora", {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}),
        ("lora", {"target_modules": ["q_proj"], "rank_pattern": {"model.layers.0": 4}}),
        ("lora", {"layer_replication": [[0, 2], [1, 3]]}),
        ("lora", {"lora_alpha": 16, "use_rslora": True, "bias": "lora_only"}),
        ("lora", {"trainable_token_indices": {"embed_tokens": [1, 2]}}),
        ("p_tuning", {"num_virtual_tokens": 4, "encoder_reparameterization_type": "LSTM"}),
        ("prompt_tuning", {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "Sum up"}),
        ("adalora", {"total_step": 10, "init_r": 8, "target_r": 4}),
        ("ia3", {"target_modules": ["k_proj"], "feedforward_modules": []}),
    ],
)
def test_values_that_hints_refuse_or_nest_pass(adapter: str, options: dict[str, Any]) -> None:
    gate = Gate("x.yaml", {})
    gate.check_options("adapter", options, signature_of(find("adapters", adapter).Config))
    assert gate.problems == []


def test_a_misplaced_key_is_sent_home() -> None:
    gate = Gate("x.yaml", {})
    gate.elsewhere["model"] = ("path", "dtype")
    gate.check_options("a", {"needed": "x", "dtype": "float32"}, signature_of(Options))
    assert [p.suggestion for p in gate.sorted_problems()] == ["dtype is a key of model"]


def test_thousands_of_unknown_keys_are_all_named_and_the_first_explained() -> None:
    began = time.process_time()
    gate = Gate("r.yaml", {})
    options = {f"learning_rat{number}": 1 for number in range(19_000)}
    gate.check_options("method.sft", options, signature_of("trl:SFTConfig"))
    assert len(gate.sorted_problems()) == 19_000
    assert gate.problems[0].suggestion == "did you mean learning_rate?"
    assert time.process_time() - began < 5


@pytest.mark.parametrize("text", ["x" * 5000, "~nobody-of-this-name/x", "a\0b"])
def test_what_can_be_no_path_is_refused(tmp_path: Path, text: str) -> None:
    gate = Gate(str(tmp_path / "r.yaml"), {})
    gate.resolve_path("data.source.json.files", text)
    assert len(gate.problems) == 1
