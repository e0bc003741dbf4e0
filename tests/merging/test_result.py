"""A result as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from peftkit.merging.result import MergeResult, Verification, WeightError

PROOF = Verification(4, 100, 0.01, 0.001, 0.2, "8 roundings", "the run's rows", 99)
RESULT = MergeResult(
    out=Path("out"), source=Path("runs/x"), base="base", method="LORA", onto="dequantized",
    changed=("a", "b"), num_tensors=5, num_bytes=3 << 20, files=("model.safetensors", "merge.json"),
    seconds=1.5, notes=("A sentence.",), weight_errors=(WeightError("full", 0.02, 0.1),),
    verification=PROOF,
)  # fmt: skip


def test_json_is_plain_and_versioned() -> None:
    content = json.loads(json.dumps(RESULT.to_json()))
    assert content["schema_version"] == 1 and content["out"] == "out"
    assert content["verification"]["max_difference"] == 0.01
    assert content["weight_errors"] == [
        {"onto": "full", "relative_rms": 0.02, "max_difference": 0.1}
    ]
