"""Read the runs of `benchmarks/recorded`, and write the recipe that says what each of them ran.

What is planned is all in the recipe; nothing here knows a method or a source by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftkit.recipe.schema import Recipe

FOLDER = Path(__file__).resolve().parent / "recorded"
FIELDS = (
    "model", "dtype", "adapter", "rows", "max_length", "optimizer", "optimizer_options",
    "max_grad_norm", "autocast", "checkpointing", "compiled", "attention", "loop", "device",
    "versions", "reads", "status", "num_trained", "recorded",
)  # fmt: skip
"""What a run must state."""
_NUM_ROWS = 20_000
"""As many as show a mean to a hundredth of a token."""
_OPTIMIZERS = {"AdamW": "", "lora-fa": "lora-fa"}


class LeftOut(Exception):  # noqa: N818 - it is no fault of ours
    """Raised for a run that is not planned; says why."""


@dataclass(frozen=True)
class Run:
    """Hold one recorded run: what was run, and what was recorded of it."""

    name: str
    source: str
    facts: Mapping[str, Any]
    is_held_out: bool
    """Scored once at the end; the others are looked at while terms are worked on."""

    @property
    def memory_bytes(self) -> int:
        """Return the recorded peak."""
        return int(self.facts["recorded"]["memory_bytes"])

    @property
    def tokens_per_second(self) -> float | None:
        """Return real tokens a second; None where no speed was recorded."""
        found: float | None = self.facts["recorded"].get("tokens_per_second")
        return found

    @property
    def lengths(self) -> list[int]:
        """Return lengths of rows with the longest and mean that are known, as the planner takes."""
        inferred = self.facts.get("inferred", {})
        longest = int(inferred.get("longest", self.facts["max_length"]))
        mean = self.facts.get("mean_length")
        if mean is None:
            return [longest] * 8
        batch = int(self.facts["rows"])
        ends = [longest] * batch + [int(inferred.get("shortest", mean))] * batch
        rest = (mean * _NUM_ROWS - sum(ends)) / (_NUM_ROWS - len(ends))
        return ends + [round(rest)] * (_NUM_ROWS - len(ends))

    def check(self) -> None:
        """Refuse what cannot be planned by the rule, before anything is planned.

        Raises:
            LeftOut: a field is missing, the run failed, or it was compiled.
        """
        missing = [name for name in FIELDS if name not in self.facts]
        if not missing and self.facts["recorded"].get("memory_bytes") is None:
            missing = ["recorded.memory_bytes"]
        if missing:
            raise LeftOut(f"it does not state {', '.join(missing)}")
        if self.facts["status"] != "success":
            raise LeftOut(f"it ended as {self.facts['status']}")
        if self.facts["compiled"]:
            raise LeftOut("it was compiled, which is not planned")
        if self.facts["optimizer"] not in _OPTIMIZERS:
            raise LeftOut(f"the loop has no optimizer {self.facts['optimizer']}")

    def recipe(self, folder: Path, *, scores: bool = False) -> Recipe:
        """Write the run as a recipe into a folder, and read it as a user's.

        Args:
            scores: whether it says what was scored in the same process.
        """
        from peftkit.recipe.load import load_recipe

        rows = folder / "rows.jsonl"
        rows.write_text('{"text": "the planner reads no row"}\n', encoding="utf-8")
        file = folder / "run.yaml"
        file.write_text(json.dumps(self._content(rows, scores=scores)), encoding="utf-8")
        return load_recipe(file)

    def _content(self, rows: Path, *, scores: bool) -> dict[str, Any]:
        facts = self.facts
        model = {"path": facts["model"], "dtype": facts["dtype"]}
        if facts.get("quantize") is not None:
            model["quantize"] = facts["quantize"]
        if facts["attention"] is not None:
            model["attn_implementation"] = facts["attention"]
        content = {
            "name": "recorded",
            "model": model,
            "data": {
                "source": {"json": {"files": str(rows)}},
                "splits": {"train": "train"},
                "task": {"text": {"text": "text"}},
            },
            "adapter": "full" if facts["adapter"] is None else facts["adapter"],
            "method": {"plain_loop": self._loop()},
        }
        if scores and facts.get("rows_scored"):
            content["evaluate"] = {
                "split": "train",
                "batch_size": facts["rows_scored"],
                "generation": {"max_new_tokens": facts["new_tokens"]},
            }
        return content

    def _loop(self) -> dict[str, Any]:
        facts = self.facts
        options = dict(facts["optimizer_options"])
        return {
            **facts["loop"],
            "per_device_train_batch_size": facts["rows"],
            "max_length": facts["max_length"],
            "max_grad_norm": facts["max_grad_norm"],
            "activation_checkpointing": facts["checkpointing"],
            "bf16": bool(facts["autocast"]),
            "own_optimizer": _OPTIMIZERS[facts["optimizer"]],
            "learning_rate": options["lr"],
            "weight_decay": options.get("weight_decay", 0.01),
        }


def load_runs(folder: Path = FOLDER) -> list[Run]:
    """Read every source's runs, sorted by name; every second one of a source is held out."""
    found = []
    for file in sorted(folder.glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        for place, (name, facts) in enumerate(sorted(content["runs"].items())):
            both = {**content["shared"], **facts}
            found.append(Run(name, file.stem, both, is_held_out=place % 2 == 1))
    return found
