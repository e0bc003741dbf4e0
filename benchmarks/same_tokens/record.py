"""Run a tool as its own command does, and record what its trainer is given and what it loses.

    python record.py OUT.json axolotl|llamafactory|trl|peftkit ARGUMENT...

All of them train by transformers' Trainer, whose callbacks are told of the batches. The adapter's
first values are drawn here, from each module's name, so that every tool begins alike.
"""

from __future__ import annotations

import itertools
import json
import runpy
import sys
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

IGNORED = -100
NUM_STEPS = 5


def rows_of(batch: Any) -> list[list[list[int]]]:
    """Split a batch into its rows, each `[ids, labels]`, however they are padded or packed.

    A row begins where positions begin again; the label of its first token trains nothing.
    """
    rows = []
    for at, ids in enumerate(batch["input_ids"].tolist()):
        labels = batch["labels"][at].tolist()
        num = len(ids)
        kept = [True] * num
        starts = [0]
        if "position_ids" in batch:
            positions = batch["position_ids"][at].tolist()
            starts = [n for n, position in enumerate(positions) if position == 0]
        elif "seq_lengths" in batch:
            lengths = batch["seq_lengths"][at].tolist()
            starts = [0, *itertools.accumulate(lengths)][:-1]
        if "attention_mask" in batch:
            kept = [bool(one) for one in batch["attention_mask"][at].tolist()]
        for start, stop in itertools.pairwise([*starts, num]):
            places = [n for n in range(start, stop) if kept[n]]
            if places:
                own = [labels[n] for n in places]
                rows.append([[ids[n] for n in places], [IGNORED, *own[1:]]])
    return [row for row in rows if any(label != IGNORED for label in row[1])]


def _begin_alike(model: Any) -> None:
    import torch

    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            seed = zlib.crc32(name.partition("model.layers.")[2].encode())
            drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
            parameter.data.copy_(drawn / parameter.shape[1] ** 0.5)


def recorder(found: dict[str, Any]) -> Any:
    """Return a callback that records into `found`."""
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, _state: Any, _control: Any, **told: Any) -> None:
            _begin_alike(told["model"])
            num = NUM_STEPS * args.gradient_accumulation_steps
            batches = itertools.islice(told["train_dataloader"], num)
            read = [rows_of(batch) for batch in batches]
            times = args.gradient_accumulation_steps
            found["steps"] = [
                list(itertools.chain(*read[at : at + times])) for at in range(0, len(read), times)
            ]
            found["num_trainable"] = sum(
                one.numel() for one in told["model"].parameters() if one.requires_grad
            )

        def on_log(self, _args: Any, _state: Any, _control: Any, **told: Any) -> None:
            logs = told["logs"]
            if "loss" in logs:
                found["losses"].append(float(logs["loss"]))
                found["rates"].append(float(logs["learning_rate"]))

    return Recorder


def run(tool: str, arguments: list[str]) -> None:
    """Run a tool in this process."""
    sys.argv = [tool, *arguments]
    if tool == "axolotl":
        import_module("axolotl.cli.train").do_cli(arguments[0])
    elif tool == "llamafactory":
        import_module("llamafactory.train.tuner").run_exp()
    elif tool == "trl":
        sys.argv = [tool, "--config", *arguments]
        runpy.run_module("trl.scripts.sft", run_name="__main__")
    else:
        from peftkit.cli import main

        main()


def main() -> None:
    """Run and write what was recorded."""
    out, tool, *arguments = sys.argv[1:]
    from transformers import trainer

    found: dict[str, Any] = {"steps": [], "losses": [], "rates": []}
    trainer.DEFAULT_CALLBACKS.append(recorder(found))
    try:
        run(tool, arguments)
    finally:
        Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
