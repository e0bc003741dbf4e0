"""The conformance checks pass what is sound, ours included, and name what is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny

from peftkit.errors import DataError
from peftkit.plugins import (
    Conversation,
    Exporter,
    Labeled,
    Merge,
    Source,
    Task,
    Text,
    find,
)
from peftkit.plugins.combined import Compression
from peftkit.plugins.exported import Exported, Proof, Trained
from peftkit.testing import (
    check_adapter,
    check_exporter,
    check_merge,
    check_method,
    check_source,
    check_task,
)

ROWS = [{"question": "a b", "answer": "c d"}, {"question": "e", "answer": "f g"}]


@dataclass(frozen=True)
class Config:
    """Name the columns."""

    question: str = "question"
    """Column of the question."""
    answer: str = "answer"
    """Column of the answer."""


class Echo(Task):
    """Answer questions."""

    Config: Any = Config
    headline = "exact"
    makes: Any = (Conversation,)

    @property
    def columns(self) -> Sequence[str]:
        return (self.config.question, self.config.answer)

    def example(self, row: Mapping[str, Any]) -> Conversation:
        values = [row.get(column) for column in self.columns]
        if not all(values):
            raise DataError("a column is empty")
        roles = ("user", "assistant")
        messages = [{"role": r, "content": v} for r, v in zip(roles, values, strict=True)]
        return Conversation(tuple(messages))  # type: ignore[arg-type]

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        same = [p == r for p, r in zip(predictions, references, strict=True)]
        return {"exact": sum(same) / len(same)}

    def baselines(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        return {"question": [row["question"] for row in rows]}


def asked(text: str) -> Conversation:
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
    return Conversation(tuple(turns))


def test_a_sound_task_passes() -> None:
    assert check_task(Echo, {}, ROWS) == {"exact": 1.0}
    assert check_task(find("tasks", "text"), {}, [{"text": "a"}, {"text": "b"}]) == {}


@pytest.mark.parametrize(
    ("member", "value", "problem"),
    [
        ("example", lambda _s, r: asked(r["question"].strip()), "raises AttributeError"),
        ("example", lambda *_: asked("x"), "is not refused with DataError"),
        ("example", lambda *_: Text("x"), "made a Text, which makes lacks"),
        ("makes", (), "makes is \\(\\), not a tuple of classes"),
        ("makes", Text, "not a tuple of classes"),
        ("example", lambda *_: "x", "gave a str"),
        ("example", lambda *_: Labeled(("x",), ""), "gave a Labeled that has no label"),
        ("example", lambda _s, r: Conversation(asked(r["question"]).prompt),
         "a Conversation that ends in a message that is not the assistant's"),
        ("score", lambda *_: {}, "names no metric"),
        ("score", lambda *_: {"other": 1.0}, "headline 'exact' is not among"),
        ("score", lambda *_: {"exact": float("nan")}, "is nan, not a number"),
        ("score", lambda _s, p, r: {"exact": float(p != r)}, "better than that of the references"),
        ("score", lambda *_: {"exact": 1.0}, "the headline does not see answers"),
        ("score", lambda _s, p, r: {"exact": float(p == r) * len(r[0] + "x" * (r[0] > "d"))},
         "depends on the order"),
        ("baselines", lambda *_: {"x": ["one"]}, "has 1 answers"),
        ("headline", "missing", "headline 'missing' is not among"),
        ("Config", type("Loose", (), {}), "is not a dataclass"),
    ],
)  # fmt: skip
def test_an_unsound_task_is_named(member: str, value: Any, problem: str) -> None:
    broken = type("Broken", (Echo,), {member: value, "__doc__": "Break one thing."})
    with pytest.raises(AssertionError, match=problem):
        check_task(broken, {}, ROWS)


def test_what_every_plugin_shares_is_checked() -> None:
    undocumented = type("Silent", (Echo,), {"__doc__": None})
    with pytest.raises(AssertionError, match="has no docstring"):
        check_task(undocumented, {}, ROWS)
    with pytest.raises(AssertionError, match="the gate refuses the options"):
        check_task(Echo, {"questin": "x"}, ROWS)

    @dataclass
    class Thawed:
        x: int = 1

    thawed = type("Warm", (Echo,), {"Config": Thawed, "__doc__": "Hold a config that changes."})
    with pytest.raises(AssertionError, match="is not frozen"):
        check_task(thawed, {}, ROWS)
    with pytest.raises(AssertionError, match=r"no subclass of .*Source, and lacks load, splits"):
        check_source(Echo, {})  # type: ignore[arg-type]


def test_a_heavy_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_task.py").write_text("import datasets\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    heavy = type("Heavy", (Echo,), {"__module__": "heavy_task", "__doc__": "Import much."})
    with pytest.raises(AssertionError, match="import heavy_task imports datasets"):
        check_task(heavy, {}, ROWS)


SUMMARIES = [{"document": f"Text {i}. More.", "summary": f"Summary {i} of it."} for i in range(4)]
PAIRS = [{"prompt": f"Say {i}.", "completion": f"Number {i} is said."} for i in range(4)]


@pytest.mark.parametrize(
    ("name", "options", "rows"),
    [
        ("summarize", {}, SUMMARIES),
        ("prompt_completion", {}, PAIRS),
        ("text", {}, [{"text": "one"}, {"text": "two"}]),
    ],
)
def test_our_tasks_conform(name: str, options: dict[str, Any], rows: list[dict[str, str]]) -> None:
    check_task(find("tasks", name), options, rows)


def test_our_sources_conform(tmp_path: Path) -> None:
    file = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(4))
    splits = check_source(find("sources", "json"), {"files": str(file)}, columns=["summary"])
    assert len(splits["train"]) == 4
    check_source(find("sources", "embedded"), {"name": "docstring-summaries"})


def test_an_unsound_source_is_named() -> None:
    class Repeating(Source):
        """Give no rows."""

        Config: Any = Config

        def splits(self) -> list[str]:
            return ["train", "train"]

        def load(self, split: str) -> list[Any]:
            return [split]

    with pytest.raises(AssertionError, match="repeats"):
        check_source(Repeating, {})


def test_adapters_conform_and_one_that_changes_the_base_does_not(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = tiny.tiny_llama(tmp_path / "model")
    make = partial(AutoModelForCausalLM.from_pretrained, folder, dtype=torch.float32)
    lora = find("adapters", "lora")
    check_adapter(lora, {"r": 2, "target_modules": ["q_proj"]}, make)
    check_adapter(find("adapters", "full"), {}, make)
    # PiSSA takes the principal part out of the base weight: exactly what must be told apart.
    with pytest.raises(AssertionError, match="changes the base"):
        options = {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": "pissa"}
        check_adapter(lora, options, make)


def test_methods_conform(tmp_path: Path) -> None:
    tokenizer = tiny.tiny_tokenizer(tmp_path)
    talk = Conversation(
        ({"role": "user", "content": "return the sum"}, {"role": "assistant", "content": "a sum"})
    )
    check_method(find("methods", "sft"), {"max_length": 64}, tokenizer, [talk, Text("a file")])
    texts = [Text("read a file from disk " * 20)]
    check_method(find("methods", "pretrain_lm"), {"max_length": 16}, tokenizer, texts)


class Former:
    """Train on texts, by the contract of peftkit 0.1."""

    Config = "transformers:TrainingArguments"
    auto_class = "AutoModelForCausalLM"
    examples = (Text,)
    owned: Any = None

    def __init__(self, config: Any) -> None:
        self.config = config

    def encode(self, example: Text, tokenizer: Any) -> dict[str, list[int]]: ...
    def arrange(self, rows: Any, tokenizer: Any) -> Any: ...


def test_a_method_of_the_former_contract_hears_which_member_and_which_page() -> None:
    with pytest.raises(AssertionError) as caught:
        check_method(Former, {}, None, [Text("a file")])
    assert str(caught.value) == (
        "Former is no subclass of peftkit.plugins.Method, and lacks kind:"
        " docs/plugins.md says what methods need"
    )


@dataclass(frozen=True)
class Votes:
    """Weigh."""

    weights: list[float]
    """One for each adapter."""


class Average(Merge):
    """Add what it is given, weighted."""

    Config: Any = Votes
    combines = "deltas"
    is_linear = True

    def combine(self, parts: Sequence[Any], weights: Sequence[float], _name: str) -> Any:
        return sum(part * weight for part, weight in zip(parts, weights, strict=True))


def _write_into(_self: Any, parts: Sequence[Any], weights: Sequence[float], _name: str) -> Any:
    parts[0][:] = weights[0] * parts[0]
    return parts[0]


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"combine": lambda _s, p, _w, _n: 2 * p[0]}, "one part at weight 1 is not itself"),
        ({"combine": lambda _s, p, _w, _n: p[0]}, "is_linear, but combine.. is not"),
        ({"combine": lambda _s, p, _w, _n: p[0][0] if len(p) > 1 else p[0]}, "gives the shape"),
        ({"combine": _write_into, "is_linear": False}, "writes into its parts|called twice"),
        ({"combines": "nothing"}, "combines is 'nothing'"),
        ({"compression": 8}, "compression is 8"),
        ({"combines": "factors", "compression": Compression(8)}, "factors are not compressed"),
    ],
)
def test_merges_are_checked(changed: dict[str, Any], complaint: str) -> None:
    check_merge(Average, {"weights": [1.0]})
    with pytest.raises(AssertionError, match=complaint):
        check_merge(type("Twice", (Average,), {"__doc__": "X.", **changed}), {"weights": [1.0]})


class Copy(Exporter):
    """Copy one file."""

    Config = None
    reads = "model"

    def export(self, trained: Trained, out: Path) -> Exported:
        out.mkdir(exist_ok=True)
        (out / "a").write_bytes((trained.folder / "a").read_bytes())
        return Exported((out / "a",), (Proof("bytes", 0, 0, "compared"),))


def _exporter(doc: str, export) -> type:
    return type("Other", (Copy,), {"__doc__": doc, "export": export})


def test_exporters_are_checked(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    (run / "a").write_text("weights")
    trained = Trained("tiny", run)
    assert check_exporter(Copy, {}, trained, out).files == (out / "a",)
    with pytest.raises(AssertionError, match="changed what it read"):
        check_exporter(Copy, {}, trained, run)
    proofs = (Proof("bytes", 0, 0, "compared"),)
    for doc, export, complaint in (
        ("Do nothing.", lambda *_: Exported((), proofs), "wrote nothing"),
        ("Prove nothing.", lambda *_: Exported((out / "a",), ()), "proves nothing"),
        ("Fail.", lambda *_: Exported((out / "a",), (Proof("x", 2, 1, ""),)), "2 is above 1"),
        ("Hide.", lambda *_: Exported((run / "a",), proofs), "lies outside"),
    ):
        with pytest.raises(AssertionError, match=complaint):
            check_exporter(_exporter(doc, export), {}, trained, out)
    (out / "b").write_text("left over")
    with pytest.raises(AssertionError, match="does not name what it wrote"):
        check_exporter(Copy, {}, trained, out)
    wrong = type("Wrong", (Copy,), {"reads": "runs", "__doc__": "Read something else."})
    with pytest.raises(AssertionError, match="neither 'model' nor 'adapter'"):
        check_exporter(wrong, {}, trained, out)
