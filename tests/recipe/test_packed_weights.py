"""An adapter that reads packed weights is refused, and others are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from wrong.cases import GOOD, write_files

from peftkit.errors import RecipeError
from peftkit.plugins import Machine
from peftkit.recipe.build import Built, build
from peftkit.recipe.load import load_recipe

CPU = Machine("cpu", supports_bfloat16=False, total_bytes=1 << 33, free_bytes=1 << 32, name="CPU")


def make(folder: Path, text: str, *overrides: str) -> Built:
    file = write_files(folder)
    file.write_text(text)
    return build(load_recipe(file, overrides), CPU)


@pytest.mark.parametrize(
    ("adapter", "bits", "is_refused"),
    [("delora", 8, True), ("loha", 4, True), ("loha", 8, False), ("lora", 4, False)],
)
def test_adapters_that_read_packed_weights(
    tmp_path: Path, adapter: str, bits: int, is_refused: bool
) -> None:
    quantize = f"dtype: float32\n  quantize: {{bitsandbytes: {{load_in_{bits}bit: true}}}}"
    text = GOOD.replace("dtype: float32", quantize)
    overrides = (f"adapter={{{adapter}: {{target_modules: [q_proj]}}}}",)
    if not is_refused:
        assert make(tmp_path, text, *overrides).quantizer.bits == bits
        return
    with pytest.raises(RecipeError, match=f"adapter.{adapter}") as caught:
        make(tmp_path, text, *overrides)
    said = str(caught.value)
    assert f"reads the values of the base's weights, which are packed in {bits} bits" in said
    assert "lora, " in said
    assert adapter not in said.partition("trains on")[2].partition("; or")[0].split(", ")
