"""The model card of a merged model, or of a combination: what it is made of, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peftkit.merging.inputs import Inputs
from peftkit.merging.result import CombineResult, Onto
from peftkit.plugins.kinds import kind_of_class
from peftkit.recipe.yaml_file import dump_yaml
from peftkit.rundir.paths import write_atomically
from peftkit.system.checkpoint_files import read_json

_ONTO = {
    "full": "the base's full-precision weights",
    "dequantized": "the dequantized weights that training saw",
    "requantized": "the dequantized weights that training saw, which were then quantized again",
}
_MODEL = """from transformers import {cls}

model = {cls}.from_pretrained("THIS FOLDER", dtype="auto")"""
_ADAPTER = """from peft import PeftModel
from transformers import {cls}

model = PeftModel.from_pretrained({cls}.from_pretrained("THE BASE"), "THIS FOLDER")"""


def write_card(  # noqa: PLR0913 - what a card says
    out: Path, inputs: Inputs, *, method: str, onto: Onto, config: dict[str, Any], num_changed: int
) -> str:
    """Write `README.md`; return its name."""
    base, name = _base_name(inputs), inputs.source.resolve().name
    what = (
        f"The {method} adapter `{name}` merged by peftkit into {_ONTO[onto]}"
        f"{f' of `{base}`' if base else ''}.\n"
        f"{num_changed} tensors changed, each computed in float64 where it matters and rounded"
        " once; every\nother tensor is the base's, byte for byte."
    )
    return _write(out, f"{name}, merged", what, [method.lower()], config, base=base)


def write_combined_card(
    result: CombineResult, *, config: Mapping[str, Any], num_changed: int = 0
) -> str:
    """Write `README.md` into `result.out`; return its name.

    Args:
        config: the model's `config.json`.
        num_changed: tensors that differ from the base's.
    """
    is_adapter = result.to == "adapter"
    title = " + ".join(path.resolve().name for path in result.sources)
    how = dump_yaml({result.method: dict(result.options)}).rstrip()
    what = f"{_combined(result, num_changed)}\n\n```yaml\n{how}\n```"
    tags = [result.method, *(["lora"] if is_adapter else [])]
    return _write(result.out, title, what, tags, config, is_adapter=is_adapter)


def front_matter(
    library: str, tags: Sequence[str], *, pipeline_tag: str | None, base: str | None = None
) -> str:
    """Return the lines that the Hub reads, between their dashes.

    Args:
        pipeline_tag: the Hub's words for what the model does.
        base: the Hub id of what it was made from; None where that is on no hub.
    """
    import yaml

    matter: dict[str, Any] = {"library_name": library}
    if base is not None:
        matter["base_model"] = base
    matter["tags"] = ["peftkit", *tags]
    if pipeline_tag is not None:
        matter["pipeline_tag"] = pipeline_tag
    return f"---\n{yaml.safe_dump(matter, sort_keys=False)}---\n"


def _write(  # noqa: PLR0913 - what the cards of both share
    out: Path,
    title: str,
    what: str,
    tags: Sequence[str],
    config: Mapping[str, Any],
    *,
    base: str | None = None,
    is_adapter: bool = False,
) -> str:
    cls = (config.get("architectures") or ["AutoModel"])[0]
    library, usage = ("peft", _ADAPTER) if is_adapter else ("transformers", _MODEL)
    kind = kind_of_class(cls)
    matter = front_matter(
        library, ["merged", *tags], pipeline_tag=kind.pipeline_tag if kind else None, base=base
    )
    code = usage.format(cls=cls)
    text = f"{matter}\n# {title}\n\n{what}\n\n```python\n{code}\n```\n"
    write_atomically(out / "README.md", text)
    return "README.md"


def _combined(result: CombineResult, num_changed: int) -> str:
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


def _base_name(inputs: Inputs) -> str | None:
    """Return a base's Hub id; None for a folder, whose path means nothing elsewhere."""
    if inputs.adapter is None:
        return None
    base = read_json(inputs.adapter / "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(base, str) or not base or Path(base).is_absolute() or Path(base).exists():
        return None
    return base
