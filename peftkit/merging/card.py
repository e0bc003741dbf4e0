"""The model card of a merged model: what it was made of, and what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peftkit.merging.inputs import Inputs
from peftkit.merging.result import Onto
from peftkit.rundir.paths import write_atomically

_ONTO = {
    "full": "the base's full-precision weights",
    "dequantized": "the dequantized weights that training saw",
    "requantized": "the dequantized weights that training saw, which were then quantized again",
}


def write_card(  # noqa: PLR0913 - what a card says
    out: Path, inputs: Inputs, *, method: str, onto: Onto, config: dict[str, Any], num_changed: int
) -> str:
    """Write `README.md`; return its name."""
    import yaml

    base = _base_name(inputs)
    matter: dict[str, Any] = {"library_name": "transformers"}
    if base is not None:
        matter["base_model"] = base
    matter["tags"] = ["peftkit", "merged", method.lower()]
    architecture = (config.get("architectures") or ["AutoModel"])[0]
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        matter["pipeline_tag"] = "text-generation"
    name = inputs.source.resolve().name
    text = f"""---
{yaml.safe_dump(matter, sort_keys=False)}---

# {name}, merged

The {method} adapter `{name}` merged by peftkit into {_ONTO[onto]}{f" of `{base}`" if base else ""}.
{num_changed} tensors changed, each computed in float64 where it matters and rounded once; every
other tensor is the base's, byte for byte.

```python
from transformers import {architecture}

model = {architecture}.from_pretrained("THIS FOLDER", dtype="auto")
```
"""
    write_atomically(out / "README.md", text)
    return "README.md"


def _base_name(inputs: Inputs) -> str | None:
    """Return a base's Hub id; None for a folder, whose path means nothing elsewhere."""
    from peftkit.system.checkpoint_files import read_json

    if inputs.adapter is None:
        return None
    base = read_json(inputs.adapter / "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(base, str) or not base or Path(base).is_absolute() or Path(base).exists():
        return None
    return base
