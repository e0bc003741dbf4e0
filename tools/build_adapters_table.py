"""Run every method of the installed peft on small models, and write the table of docs/adapters.md.

    PYTHONPATH=tests python tools/build_adapters_table.py [METHOD ...]

A cell says yes where the method was attached, took two steps and moved its parameters, on a causal
model, an encoder-decoder, an encoder with a classifier's head, and a causal base in 4 and 8 bits;
and where the trained adapter was merged. Shares are of the embedded causal base. What came out is
kept in docs/adapters.json.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE, RESULTS = ROOT / "docs/adapters.md", ROOT / "docs/adapters.json"
BEGIN, END = "<!-- made by tools/build_adapters_table.py -->", "<!-- until here -->"
COLUMNS = ("causal", "seq2seq", "encoder", "4-bit", "8-bit", "merges")
_TOKENS = {"num_virtual_tokens": 4}
OPTIONS: dict[str, dict[str, Any]] = {
    "adalora": {"total_step": 2, "tinit": 0, "tfinal": 1, "init_r": 6, "target_r": 2},
    "adamss": {"num_subspaces": 3, "r": 8},
    "c3a": {"block_size": 32},
    "cartridge": _TOKENS,
    "p_tuning": _TOKENS,
    "prefix_tuning": _TOKENS,
    "prompt_tuning": _TOKENS,
    "road": {"group_size": 32},
    "shadow": {"auxiliary_loss_weight": 0},
    "shira": {"r": 4},
    "trainable_tokens": {"token_indices": [14, 15, 16]},
    "vblora": {"vector_length": 32},
    "waveft": {"n_frequency": 64},
}
"""Sizes for small models, and what a method has no usable default for."""
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "causal": ("llama", "AutoModelForCausalLM", {"tie_word_embeddings": False}),
    "seq2seq": ("t5", "AutoModelForSeq2SeqLM", {"decoder_start_token_id": 1, "d_kv": 16}),
    "encoder": ("bert", "AutoModelForSequenceClassification", {}),
}
_WIDE = {"hidden_size": 64, "d_model": 64, "intermediate_size": 128, "d_ff": 128, "head_dim": 16}


def methods() -> dict[str, Any]:
    """Return the methods of the installed peft by name, each with its class here."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    from peftkit.adapters.peft_types import adapter_class

    return {
        kind.value.lower(): adapter_class(config.__name__)
        for kind, config in sorted(PEFT_TYPE_TO_CONFIG_MAPPING.items())
    }


PAPERS = {
    "adalora": "2303.10512",
    "cartridge": "2506.06266",
    "glora": "2306.07967",
    "gralora": "2505.20355",
    "lokr": "2309.14859",
    "lora": "2106.09685",
    "p_tuning": "2103.10385",
    "prefix_tuning": "2101.00190",
    "prompt_tuning": "2104.08691",
    "shira": "2406.13175",
    "waveft": "2505.12532",
}
"""Method -> its paper, where peft's source names none or first that of an option."""


def paper(name: str, config: type) -> str:
    """Return a method's paper: where it is not listed here, the first that peft's source names."""
    if name in PAPERS:
        return f"[{PAPERS[name]}](https://arxiv.org/abs/{PAPERS[name]})"
    folder = Path(sys.modules[config.__module__].__file__ or "").parent
    for file in sorted(folder.glob("*.py"), key=lambda f: f.name != "config.py"):
        found = re.search(r"(?:arxiv\.org/(?:abs|pdf)|huggingface\.co/papers)/(\d{4}\.\d{4,5})",
                          file.read_text(encoding="utf-8"))  # fmt: skip
        if found:
            return f"[{found[1]}](https://arxiv.org/abs/{found[1]})"
    return ""


def save_bases(folder: Path) -> dict[str, Path]:
    """Save the small models; return their folders."""
    import torch
    import transformers
    from small_models import small_config

    made = {}
    for name, (family, auto, own) in MODELS.items():
        sizes = {key: value for key, value in _WIDE.items() if hasattr(small_config(family), key)}
        torch.manual_seed(0)
        config = small_config(family, **{**sizes, **own})
        getattr(transformers, auto).from_config(config).save_pretrained(folder / name)
        made[name] = folder / name
    return made


def load(folder: Path, column: str) -> Any:
    """Load a small model, in fewer bits where the column says so."""
    import transformers

    if column not in MODELS:
        bits = {"load_in_4bit": True} if column == "4-bit" else {"load_in_8bit": True}
        quantization = transformers.BitsAndBytesConfig(**bits)
        return transformers.AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=quantization
        )
    return getattr(transformers, MODELS[column][1]).from_pretrained(folder)


def attached(name: str, kind: Any, base: Any) -> Any:
    """Attach a method as a recipe does."""
    import peft

    from peftkit.adapters.base import task_type

    config = getattr(peft, kind.Config.removeprefix("peft:"))
    return kind(config(**OPTIONS.get(name, {}), task_type=task_type(base))).attach(base)


def step(model: Any, column: str) -> None:
    """Take one step; a method whose parameters do not move has failed."""
    import torch

    ids = torch.arange(10, 34).reshape(2, 12)
    labels = torch.tensor([0, 1]) if column == "encoder" else ids
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    before = {n: p.detach().clone() for n, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    options = {} if column == "encoder" else {"use_cache": False}
    model.train()
    for _ in range(2):  # a factor of zeros hides the other one at first
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels, **options).loss.backward()
        optimizer.step()
    own = [n for n in trained if "modules_to_save" not in n]
    if all(torch.equal(before[n], trained[n]) for n in own):
        raise RuntimeError("nothing moved")


def tried(name: str, kind: Any, bases: dict[str, Path]) -> dict[str, Any]:
    """Fill a method's row."""
    import peft

    from peftkit.adapters.base import count_parameters
    from peftkit.embedded import model_path
    from peftkit.merge import merge

    row: dict[str, Any] = {"paper": paper(name, getattr(peft, kind.Config.removeprefix("peft:")))}
    if kind.refused is not None:
        return row | {"refused": True}
    for column in COLUMNS[:-1]:
        base = bases.get(column, bases["causal"])
        try:
            model = attached(name, kind, load(base, column))
            step(model, column)
            row[column] = "yes"
        except Exception as error:
            row[column] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
            continue
        if column == "causal":
            with tempfile.TemporaryDirectory() as place:
                model.save_pretrained(f"{place}/adapter")
                try:
                    merge(Path(place, "adapter"), out=Path(place, "out"), base=str(base),
                          verify=False)  # fmt: skip
                    row["merges"] = "yes"
                except Exception as error:
                    said = str(error).splitlines()[0].replace(f"{place}/", "")[:160]
                    row["merges"] = f"{type(error).__name__}: {said}"
    try:
        import transformers

        embedded = transformers.AutoModelForCausalLM.from_pretrained(model_path("docstring-lm"))
        trained, total = count_parameters(attached(name, kind, embedded), None)
        row["share"] = trained / total
    except Exception as error:
        row["share_refused"] = str(error).splitlines()[0][:160]
    return row


def render(results: dict[str, dict[str, Any]]) -> str:
    """Return the table."""
    lines = [
        f"| method | paper | trained | {' | '.join(COLUMNS)} |",
        f"|---|---|---:|{'---|' * len(COLUMNS)}",
    ]
    for name, row in sorted(results.items()):
        if row.get("refused"):
            cells = ["", *["refused"] * (len(COLUMNS))]
        else:
            share = f"{row['share']:.2%}" if "share" in row else ""
            cells = [share, *("yes" if row.get(c) == "yes" else "no" for c in COLUMNS)]
        lines.append(f"| `{name}` | {row['paper']} | {' | '.join(cells)} |")
    lines.append("\nWhat stands behind each `no`:\n")
    lines += [
        f"- `{name}`, {why}" for name, row in sorted(results.items()) for why in _reasons(row)
    ]
    return "\n".join(lines) + "\n"


def _reasons(row: dict[str, Any]) -> Iterator[str]:
    """Give the columns that share a reason, and the reason without where it was raised."""
    columns: dict[str, list[str]] = {}
    for column in COLUMNS:
        said = row.get(column, "yes")
        if said != "yes":
            columns.setdefault(re.sub(r"^\w+: (adapter[.\w]*: )?", "", said), []).append(column)
    for reason, shared in columns.items():
        yield f"{' and '.join(shared)}: {reason}"


def put_into(page: str, table: str) -> str:
    """Return the page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n{END}{rest.partition(END)[2]}"


def main(asked: list[str]) -> None:
    """Run the methods that are asked for, or all, and write table and results."""
    warnings.filterwarnings("ignore")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        bases = save_bases(Path(folder))
        for name, kind in methods().items():
            if (asked and name not in asked) or (not asked and name in results):
                continue
            results[name] = tried(name, kind, bases)
            print(name, results[name], flush=True)  # noqa: T201 - its progress
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(put_into(PAGE.read_text(encoding="utf-8"), render(results)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
