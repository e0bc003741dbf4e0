"""Take every family of the installed transformers through the commands, and write docs/models.md.

    PYTHONPATH=tests python tools/build_models_page.py [FAMILY ...]

Each family of causal models, encoder-decoders and sequence classifiers that has a small config
(`small_models`) is built with random weights of at most 5 MB, checked, trained for two steps with
LoRA, scored in the run and again by `evaluate`, merged and read back by plain transformers. What
came out goes into docs/models.json at once, so that a sweep that was stopped goes on where it was;
naming families runs them again. Commands run in this process, and some families share a process:
a family that ends it is recorded as such, and the next one starts anew. The plan, which is most of
a small run's time and whose failure keeps no run from starting, is left out.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

DOCS = Path(__file__).resolve().parent.parent / "docs"
RESULTS, PAGE = DOCS / "models.json", DOCS / "models.md"
MAX_BYTES = 5_000_000
FAMILIES_A_PROCESS = 60
SECONDS_A_FAMILY = 1800
ENDED = "exit 1: the interpreter ended"
STEPS = ("check", "run", "evaluate", "merge", "reload")


class Kind(NamedTuple):
    """How families of one kind of head are listed, built and trained."""

    auto: str
    names: str
    method: str
    lengths: str
    task: str
    generation: str


_GENERATION = ", generation: {max_new_tokens: 4}"
KINDS = {
    "causal": Kind(
        "AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "sft", "max_length: 64",
        "{prompt_completion: {prompt: text, completion: second}}", _GENERATION,
    ),
    "seq2seq": Kind(
        "AutoModelForSeq2SeqLM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "seq2seq",
        "max_source_length: 64, max_target_length: 16",
        "{prompt_completion: {prompt: text, completion: second}}", _GENERATION,
    ),
    "classification": Kind(
        "AutoModelForSequenceClassification", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
        "classify", "max_length: 64", "{classify: {text: text, label: label}}", "",
    ),
}  # fmt: skip
RECIPE = """name: family
model: {{path: {base}, dtype: float32}}
data:
  source: {{json: {{files: {{train: {rows}, test: {rows}}}}}}}
  splits: {{train: train, test: test}}
  task: {kind.task}
adapter: {{lora: {{r: 4, lora_alpha: 8, target_modules: all-linear}}}}
method:
  {kind.method}: {{learning_rate: 1.0e-3, max_steps: 2, per_device_train_batch_size: 2,
    {kind.lengths}, save_strategy: "no"}}
evaluate: {{split: test, limit: 2{kind.generation}}}
"""


def keys() -> list[str]:
    """List `kind:family` for every family that transformers has a class of a kind for."""
    from transformers.models.auto import modeling_auto

    return [f"{name}:{family}" for name, kind in KINDS.items()
            for family in sorted(getattr(modeling_auto, kind.names))]  # fmt: skip


def save_base(family: str, name: str, folder: Path) -> str | None:
    """Save a family's small base; return why there is none."""
    import tiny_heads
    import torch
    import transformers
    from small_models import small_config

    auto = getattr(transformers, KINDS[name].auto)
    try:
        own = {"decoder_start_token_id": 0} if name == "seq2seq" else {}
        config = small_config(family, is_decoder=name == "causal", **own)
        with torch.device("meta"):
            size = sum(p.numel() * 4 for p in auto.from_config(config).parameters())
    except Exception as error:
        return _first_line(error, 110)
    if size > MAX_BYTES:
        return f"{size / 1e6:,.0f} MB at the least that its config was made to say"
    torch.manual_seed(0)
    if name == "causal":
        tiny_heads.tiny.tiny_tokenizer(folder)
    else:
        tiny_heads.closed_tokenizer(folder)
    auto.from_config(config).save_pretrained(folder)
    return None


def command(*arguments: object) -> tuple[int, str]:
    """Run a command of peftkit in this process; return how it left and what it said of an error."""
    from peftkit.cli import main

    err, code = io.StringIO(), 0
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(err),
        patch("peftkit.memory.planner.plan_run", return_value=(None, "left out of the sweep")),
    ):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = int(left.code or 0)
    if code:
        print(err.getvalue()[-6000:], flush=True)  # noqa: T201 - for who mends it
    said = [line for line in err.getvalue().splitlines() if line.startswith("peftkit: ")]
    return code, (said[-1].removeprefix("peftkit: ") if said else err.getvalue()[-200:])


def taken(family: str, name: str, folder: Path) -> dict[str, Any]:
    """Take one family through everything; return what came out of each step."""
    import tiny_heads

    why = save_base(family, name, folder / "base")
    if why is not None:
        return {"skipped": why}
    rows = tiny_heads.tiny.write_jsonl(folder / "rows.jsonl", tiny_heads.pairs(8))
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(base=folder / "base", rows=rows, kind=KINDS[name]))
    steps = {
        "check": ("check", recipe),
        "run": ("run", recipe, "--out", folder / "run"),
        "evaluate": ("evaluate", folder / "run", "--limit", 3),
        "merge": ("merge", folder / "run", "--out", folder / "merged", "--no-verify"),
    }
    found: dict[str, Any] = {}
    for step, arguments in steps.items():
        code, said = command(*arguments)
        if code:
            where = f"exit {code}: {said}".replace(f"{folder}/", "").replace(str(folder), "")
            return found | {step: where[:400]}
        found[step] = "yes"
    try:
        return found | {"reload": reloaded(name, folder)}
    except Exception as error:
        return found | {"reload": _first_line(error, 200)}


def reloaded(name: str, folder: Path) -> str:
    """Compare the merged model in plain transformers with base and adapter in plain peft."""
    import torch
    import transformers
    from peft import PeftModel

    auto = getattr(transformers, KINDS[name].auto)
    ids = torch.arange(10, 34).reshape(2, 12)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if name == "seq2seq":
        inputs["decoder_input_ids"] = ids[:, :5]

    def logits(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model.eval()(**inputs, use_cache=False).logits if name != "classification" else (
                model.eval()(**inputs).logits
            )  # fmt: skip

    labels = {"num_labels": 2} if name == "classification" else {}
    base = auto.from_pretrained(folder / "base", **labels)
    wanted = logits(PeftModel.from_pretrained(base, folder / "run/adapter"))
    off = float((wanted - logits(auto.from_pretrained(folder / "merged"))).abs().max())
    return "yes" if off < 1e-3 else f"off by {off:.2g}"


def render(results: dict[str, dict[str, Any]]) -> str:
    """Return the page."""
    lines = [_HEAD]
    for name, kind in KINDS.items():
        mine = {key.partition(":")[2]: r for key, r in results.items() if key.startswith(name)}
        built = {family: found for family, found in mine.items() if "skipped" not in found}
        right = sum(all(found.get(step) == "yes" for step in STEPS) for found in built.values())
        lines += [
            f"## {kind.auto}, `{kind.method}`\n",
            f"{right} of {len(built)} families are right in every step.\n",
            f"| family | {' | '.join(STEPS)} |",
            f"|---|{'---|' * len(STEPS)}",
        ]
        for family, found in sorted(built.items()):
            cells = [str(found.get(step, "")).replace("|", "\\|") for step in STEPS]
            lines.append(f"| `{family}` | {' | '.join(cells)} |")
        skipped = sorted((family, r["skipped"]) for family, r in mine.items() if "skipped" in r)
        if skipped:
            lines += ["\nNot tried, since no small model could be made of the config:\n"]
            lines += [f"- `{family}`: {why}" for family, why in skipped]
        lines.append("")
    return "\n".join(lines)


_HEAD = """# Families of models

```
peftkit recipes summarize-lora && peftkit check --build summarize-lora.yaml
```

Made by `tools/build_models_page.py`: of every family that the installed transformers has a causal
model, an encoder-decoder or a sequence classifier for, a small random model went through `check`,
two steps of `run` with LoRA on `all-linear` and its scoring, `evaluate` and `merge`, and the merged
model in plain transformers was compared with base and adapter in plain peft. `exit 2` to `exit 4`
are refusals with the reason that a user reads. Families that are not listed were not taken through.
"""


def take_here(todo: list[str]) -> None:
    """Take families through in this process, recording each one before and after."""
    warnings.filterwarnings("ignore")
    for key in todo:
        write({key: {"run": ENDED}})
        faulthandler.dump_traceback_later(SECONDS_A_FAMILY, exit=True)
        name, _, family = key.partition(":")
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = taken(family, name, Path(folder))
            except Exception as error:
                found = {"run": f"exit 1: {_first_line(error, 200)}"}
        faulthandler.cancel_dump_traceback_later()
        write({key: found})
        print(key, found, flush=True)  # noqa: T201 - its progress


def main(asked: list[str]) -> None:
    """Take through what is missing or asked for, some families a process, and write the page."""
    todo = [k for k in keys() if (k.partition(":")[2] in asked if asked else k not in read())]
    while todo:
        started = todo[:FAMILIES_A_PROCESS]
        command = [sys.executable, __file__, "--here", *started]
        left = subprocess.run(command, check=False)  # noqa: S603 - this file
        if left.returncode:  # the last one recorded is the one that ended it
            ended = max((k for k in started if read().get(k, {}).get("run") == ENDED),
                        key=started.index, default=started[0])  # fmt: skip
            started = started[: started.index(ended) + 1]
        todo = todo[len(started) :]
    write({})


def read() -> dict[str, dict[str, Any]]:
    """Return what came out so far."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def write(more: dict[str, dict[str, Any]]) -> None:
    """Add results, and make the page of all."""
    results = read() | more
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(render(results), encoding="utf-8")


def _first_line(error: Exception, most: int) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()] or [""]
    return f"{type(error).__name__}: {' '.join(lines[-2:])[:most]}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--here"]:
        take_here(sys.argv[2:])
    else:
        main(sys.argv[1:])
