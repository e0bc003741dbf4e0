"""Adapter: the plain PEFT folder, checked, without what only this machine understands."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftkit.adapters.continued import adapter_folder
from peftkit.errors import ArtefactError
from peftkit.exporters.model_folder import copy_companions
from peftkit.plugins import Exporter
from peftkit.plugins.exported import Exported, Proof, Trained
from peftkit.system.checkpoint_files import read_json
from peftkit.system.foreign_fields import find_redirecting

_CONFIG, _WEIGHTS, _CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"


@dataclass(frozen=True)
class AdapterOptions:
    """Say what the adapter's base is called where it will be used."""

    base_model_name_or_path: str | None = None
    """The base's Hub id or folder there; as the run has it when absent."""
    revision: str | None = None
    """The base's commit there; as the run has it when absent."""


class AdapterFolder(Exporter):
    """Write adapter_config.json and adapter_model.safetensors, which plain PEFT loads."""

    Config = AdapterOptions
    reads = "adapter"

    def export(self, trained: Trained, out: Path) -> Exported:
        """Copy the adapter, its tokenizer and its card; every number is looked at."""
        folder = adapter_folder(trained.folder)
        config = read_json(folder / _CONFIG)
        dropped = find_redirecting(config)
        config = {key: value for key, value in config.items() if key not in dropped}
        notes = self._rename_base(config)
        if dropped:
            notes.append(f"left out, since they import or redirect: {', '.join(dropped)}")
        (out / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in (_WEIGHTS, _CARD):
            if (folder / name).is_file():
                shutil.copy(folder / name, out / name)
        copy_companions(folder, out)
        proof = _compare(folder, out)
        return Exported(tuple(sorted(out.iterdir())), (proof,), tuple(notes))

    def _rename_base(self, config: dict[str, Any]) -> list[str]:
        if self.config.base_model_name_or_path is not None:
            config["base_model_name_or_path"] = self.config.base_model_name_or_path
            config["revision"] = self.config.revision
        elif self.config.revision is not None:
            config["revision"] = self.config.revision
        base = config.get("base_model_name_or_path")
        if isinstance(base, str) and Path(base).is_absolute():
            return [
                f"the adapter names its base by a folder of this machine ({base}): say"
                " base_model_name_or_path=ID for use elsewhere"
            ]
        return []


def _compare(folder: Path, out: Path) -> Proof:
    """Load what was written as PEFT does, and compare it tensor by tensor.

    Raises:
        ArtefactError: a number of the adapter is not finite, or PEFT does not take its config.
    """
    import torch
    from peft import PeftConfig
    from safetensors.torch import load_file

    try:
        PeftConfig.from_pretrained(str(out))
    except Exception as error:  # fields from anywhere raise whatever they lead to
        raise ArtefactError(f"{folder / _CONFIG}: PEFT does not take it: {error}") from error
    before, after = load_file(folder / _WEIGHTS), load_file(out / _WEIGHTS)
    for name, tensor in before.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ArtefactError(
                f"{folder / _WEIGHTS}: {name} holds NaN or infinity",
                hint="export an earlier checkpoint of that training",
            )
    different = len(before.keys() ^ after.keys()) + sum(
        not torch.equal(tensor, after[name]) for name, tensor in before.items() if name in after
    )
    return Proof("tensors", float(different), 0.0, f"{len(before)} tensors of the adapter")
