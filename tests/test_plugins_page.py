"""The plugins that docs/plugins.md writes from nothing work as they stand on the page."""

from __future__ import annotations

import copy
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import tiny_heads

PAGE = Path(__file__).resolve().parents[1] / "docs" / "plugins.md"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Import the page's Python blocks, in their order, as one module."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 6
    folder = tmp_path_factory.mktemp("page")
    (folder / "test_of_the_page.py").write_text("\n".join(blocks), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("test_of_the_page")


def test_the_page_names_every_member_of_a_method() -> None:
    from peftkit.plugins import Method, Quantizer

    page = PAGE.read_text(encoding="utf-8")
    internal = {"config", "takes", "source_limit", "use_cpu", "has_evaluator", "Config",
                "offloads_activations"}  # fmt: skip
    for contract in (Method, Quantizer):
        members = {name for name in dir(contract) if not name.startswith("_")} - internal
        assert [name for name in sorted(members) if f"`{name}" not in page] == []


def test_the_source_keeps_what_is_promised(written: Any) -> None:
    source = written.Shout(written.Config(minimum=2))
    assert source.load("train")["completion"] == ["SAY IT"]


def test_the_method_trains_as_plain_transformers(written: Any, tmp_path: Path) -> None:
    import torch
    from datasets import Dataset
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from peftkit.plugins import Text, Training
    from peftkit.testing import check_method

    tokenizer = tiny_heads.closed_tokenizer(tmp_path / "tokenizer")
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    check_method(written.FillMask, {}, tokenizer, [Text("sort keys"), Text("read a file")])
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64,
    )  # fmt: skip
    args = TrainingArguments(
        str(tmp_path), max_steps=2, use_cpu=True, logging_steps=1, disable_tqdm=True
    )
    method = written.FillMask(args)
    texts = [Text("sort keys by name"), Text("read a file")] * 4
    encoded = Dataset.from_list([row for (row,) in method.encode(texts, tokenizer)])
    rows = method.arrange(encoded, tokenizer)

    def losses(make: Any) -> list[float]:
        set_seed(3)
        trainer = make(BertForMaskedLM(copy.deepcopy(config)))
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    ours = losses(
        lambda model: method.trainer(Training(model, tokenizer, rows, None, (), tmp_path))
    )
    plain = losses(
        lambda model: Trainer(
            model=model, args=args, train_dataset=rows, processing_class=tokenizer,
            data_collator=DataCollatorForLanguageModeling(tokenizer),
        )
    )  # fmt: skip
    assert ours == plain
    assert torch.isfinite(torch.tensor(ours)).all()


def test_the_quantizer_needs_nothing_else(written: Any) -> None:
    (kept,) = written.Mine.decide({}, dtype="float32", kept_modules=("classifier",))
    assert (kept.option, kept.value) == ("modules_to_not_convert", ["classifier"])
    assert written.Mine(None).storage is None


def test_the_scheduler_keeps_its_contract(written: Any) -> None:
    from peftkit.plugins import Work
    from peftkit.testing import check_scheduler

    check_scheduler(written.Lsf, {"queue": "gpu"})
    text = written.Lsf(written.Options()).render(Work("a run", ("peftkit", "run", "r"))).text
    assert "-J a-run -q normal" in text
    assert "-wt 2 -wa TERM" in text


def test_the_importer_says_what_became_of_every_key(written: Any, tmp_path: Path) -> None:
    from peftkit.plugins import Fate, Foreign

    config = {
        "base": "a/b",
        "rate": "1e-4",
        "rows": "r.jsonl",
        "magic": True,
        "gpus": 2,
        "other": 1,
    }
    found = written.Tuner(None).convert(Foreign(tmp_path / "t.yaml", config), tmp_path)
    assert found.recipe["adapter"] == {"lora": {"r": 4}}
    assert found.recipe["method"] == {"sft": {"learning_rate": 1e-4}}
    fates = {one.key: one.fate for one in found.fates}
    assert fates.keys() == {*config, "rank"}
    assert (fates["magic"], fates["other"]) == (Fate.UNSUPPORTED, Fate.IGNORED)
