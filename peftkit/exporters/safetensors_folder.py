"""Safetensors: the model as plain transformers loads it, which is what a merge writes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from peftkit.exporters.model_folder import ModelFolder, copy_companions, open_model
from peftkit.plugins import Exporter
from peftkit.plugins.exported import Exported, Proof, Trained


@dataclass(frozen=True)
class SafetensorsOptions:
    """Take no option: the weights are those of the merge, or of the run."""


class Safetensors(Exporter):
    """Write sharded safetensors with configuration, tokenizer, chat template and card."""

    Config = SafetensorsOptions
    reads = "model"

    def export(self, trained: Trained, out: Path) -> Exported:
        """Take over a merge made for this export, or copy a whole model's files."""
        before = open_model(trained.folder)
        sizes = {name: file.stat().st_size for name, file in before.files.items()}
        if trained.is_scratch:
            files = [Path(shutil.move(file, out)) for file in sorted(trained.folder.iterdir())]
        else:
            files = _copy(before, out)
        after = open_model(out)
        different = sum(
            after.shapes.get(name) != shape or after.files[name].stat().st_size != sizes[name]
            for name, shape in before.shapes.items()
        )
        if not trained.is_scratch:
            different += _differing(before, after)
        detail = f"{len(before.shapes)} tensors, against the model they were taken from"
        return Exported(tuple(files), (Proof("tensors", float(different), 0.0, detail),))


def _copy(model: ModelFolder, out: Path) -> list[Path]:
    card = model.path / "README.md"
    index = model.path / "model.safetensors.index.json"
    wanted = [*sorted(set(model.files.values())), card, index]
    copied = [Path(shutil.copy(file, out / file.name)) for file in wanted if file.is_file()]
    return [*copied, *copy_companions(model.path, out)]


def _differing(before: ModelFolder, after: ModelFolder) -> int:
    """Count the tensors whose bytes differ."""
    import torch

    return sum(
        not torch.equal(
            before.read(name).contiguous().view(torch.uint8).flatten(),
            after.read(name).contiguous().view(torch.uint8).flatten(),
        )
        for name in before.shapes
        if before.shapes[name]
    )
