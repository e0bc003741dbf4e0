"""The model card of a combination: what it is made of, how, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftkit.merging.result import CombineResult
from peftkit.recipe.yaml_file import dump_yaml
from peftkit.rundir.paths import write_atomically

_MODEL = """from transformers import {cls}

model = {cls}.from_pretrained("THIS FOLDER", dtype="auto")"""
_ADAPTER = """from peft import PeftModel
from transformers import {cls}

model = PeftModel.from_pretrained({cls}.from_pretrained("THE BASE"), "THIS FOLDER")"""


def write_combined_card(
    result: CombineResult, *, config: Mapping[str, Any], num_changed: int = 0
) -> str:
    """Write `README.md` into `result.out`; return its name.

    Args:
        config: the model's `config.json`.
        num_changed: tensors that differ from the base's.
    """
    import yaml

    is_model = result.to == "base"
    matter = {
        "library_name": "transformers" if is_model else "peft",
        "tags": ["peftkit", "merged", result.method, *([] if is_model else ["lora"])],
    }
    names = [path.resolve().name for path in result.sources]
    cls = (config.get("architectures") or ["AutoModel"])[0]
    how = dump_yaml({result.method: dict(result.options)}).rstrip()
    text = f"""---
{yaml.safe_dump(matter, sort_keys=False)}---

# {" + ".join(names)}

{_what(result, num_changed)}

```yaml
{how}
```

```python
{(_MODEL if is_model else _ADAPTER).format(cls=cls)}
```
"""
    write_atomically(result.out / "README.md", text)
    return "README.md"


def _what(result: CombineResult, num_changed: int) -> str:
    adapters = ", ".join(f"`{path.resolve().name}`" for path in result.sources)
    if result.to == "base":
        return (
            f"The adapters {adapters}, combined and merged into their base by peftkit;"
            f" {num_changed} tensors changed, every other one is the base's, byte for byte."
        )
    ends = f" of rank {result.rank}" if result.rank else ""
    lost = (
        f", off from the combined change by {result.error:.2e} of its size" if result.error else ""
    )
    return f"The adapters {adapters}, combined by peftkit into one LoRA{ends}{lost}."
