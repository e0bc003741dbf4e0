"""What processes share is read off the native keys; what does not work is refused by its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import real_step

from peftkit.errors import UsageError
from peftkit.memory.sharing import ALONE, DDP, FSDP2, Sharing, sharing_of
from peftkit.planning.devices import of_size
from peftkit.recipe.build import build

FSDP = {"method.sft.fsdp": True, "method.sft.activation_checkpointing": False}
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def _sharing(folder: Path, num_processes: int, **changes: Any) -> Sharing:
    recipe = real_step.recipe_for(folder, **{"method.sft.use_cpu": None, **changes})
    built = build(recipe, of_size(24).as_machine(), is_here=False)
    return sharing_of(built, built.method.config, num_processes)


def test_without_fsdp_every_process_has_a_replica(tmp_path: Path) -> None:
    assert _sharing(tmp_path, 1) is ALONE
    found = _sharing(tmp_path, 8)
    assert (found.num_processes, found.strategy) == (8, DDP)
    assert found.describe() == "8 processes under DDP"


def test_fsdp_shards(tmp_path: Path) -> None:
    found = _sharing(tmp_path, 2, **FSDP)
    assert found.strategy == FSDP2
    assert any("scoring" in note for note in found.notes)
    stored = {"bitsandbytes": {**NF4, "bnb_4bit_quant_storage": "float32"}}
    sharded = _sharing(tmp_path, 2, **FSDP, **{"model.quantize": stored})
    assert sharded.notes == found.notes
    whole = _sharing(tmp_path, 2, **FSDP, **{"model.quantize": {"bitsandbytes": NF4}})
    assert "bnb_4bit_quant_storage" in whole.notes[-1]


@pytest.mark.parametrize(
    ("num_processes", "changes", "words"),
    [
        (1, FSDP, "--num-processes 8"),
        (2, {**FSDP, "method.sft.activation_checkpointing": True}, None),
        (
            2,
            {"method.sft.fsdp": True, "method.sft.activation_checkpointing": True,
             "method.sft.fsdp_config": {"activation_checkpointing": True}},
            "method.sft.activation_checkpointing=false",
        ),
        (2, {**FSDP, "method.sft.fsdp_config": {"version": 1}}, "method.sft.fsdp_config.version=2"),
        (2, {**FSDP, "method.sft.fsdp_config": {"cpu_offload": True}}, "delete it"),
        (2, {**FSDP, "model.quantize": {"bitsandbytes": {"load_in_8bit": True}}}, "load_in_4bit"),
        (
            2,
            {**FSDP, "method.sft.bf16": True, "model.dtype": "bfloat16", "model.quantize": {
                "bitsandbytes": {**NF4, "bnb_4bit_quant_storage": "float32"}}},
            "bnb_4bit_quant_storage=bfloat16",
        ),
    ],
)  # fmt: skip
def test_what_does_not_work_is_refused_with_the_way_out(
    tmp_path: Path, num_processes: int, changes: dict[str, Any], words: str | None
) -> None:
    if words is None:
        assert _sharing(tmp_path, num_processes, **changes)
        return
    with pytest.raises(UsageError) as caught:
        _sharing(tmp_path, num_processes, **changes)
    assert words in str(caught.value.hint)
