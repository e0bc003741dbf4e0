"""The model card of what a run trained: what it is, how to load it, what it scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftkit.merging.card import front_matter
from peftkit.plugins import ModelKind
from peftkit.rundir.paths import write_atomically

_EMBEDDED = "embedded:"
_EMBEDDED_IMPORT = "from peftkit.embedded import model_path\n"
_QUOTES = "\"'"
_TEMPLATE = """\
{{ front_matter }}
# {{ card.name }}

{{ what }} trained with peftkit by the recipe below.

```python
{{ usage }}
```
{% if card.scores %}

## Scores

{{ card.scores.num_rows }} rows of the split `{{ card.scores.split }}`.

| | {{ contestants | join(" | ") }} |
|---|{{ "---:|" * contestants | length }}
{% for metric in metrics %}
| {{ metric }} |{% for who in contestants %} {{ shown(who, metric) }} |{% endfor %}

{% endfor %}
{% endif %}

## Recipe

{{ fence }}yaml
{{ card.recipe.rstrip() }}
{{ fence }}

Data fingerprint `{{ card.fingerprint }}`.
{{ versions }}
{% for line in drift %}
Changed while it trained, {{ line }}.
{% endfor %}

"""


@dataclass(frozen=True)
class Card:
    """Hold what a model card says."""

    name: str
    base_model: str
    """As the recipe names it: a Hub id, a folder, or `embedded:NAME`."""
    is_on_hub: bool
    adapter: str | None
    """The PEFT method; None for a whole model."""
    method: str
    kind: ModelKind
    recipe: str
    fingerprint: str
    packages: Mapping[str, str]
    scores: Mapping[str, Any] | None = None
    """The content of scores.json, once there is one."""
    dtype: str = "auto"
    """`model.dtype`, in which the base was loaded."""
    quantization: tuple[str, Mapping[str, Any]] | None = None
    """The class of transformers that held the base in fewer bits, and its options."""
    after_loading: str = ""
    """`Quantizer.after_loading`"""
    drift: Sequence[str] = ()
    """What was allowed to change while it trained, as `at step N: KEY: OLD -> NEW`."""

    @property
    def base_name(self) -> str:
        """Name the base; of a folder the last part alone, since the rest is one machine's."""
        return Path(self.base_model).name if self._is_folder else self.base_model

    @property
    def base_in_code(self) -> str:
        """Write what `from_pretrained` takes for the base."""
        if self.base_model.startswith(_EMBEDDED):
            return f"model_path({self.base_model.removeprefix(_EMBEDDED)!r})"
        return '"THE BASE"' if self._is_folder else repr(self.base_model)

    @property
    def _is_folder(self) -> bool:
        return not self.is_on_hub and not self.base_model.startswith(_EMBEDDED)


def write_card(folder: Path, card: Card) -> Path:
    """Write `README.md` beside the weights."""
    file = folder / "README.md"
    write_atomically(file, render_card(card))
    return file


def render_card(card: Card) -> str:
    """Return the card as Markdown with the front matter that the Hub reads."""
    import jinja2

    contestants = _contestants(card.scores or {})
    environment = jinja2.Environment(  # noqa: S701 - Markdown, not HTML
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    what = (
        f"A {card.adapter} adapter for `{card.base_name}`,"
        if card.adapter
        else f"A model fine-tuned from `{card.base_name}`,"
    )
    return environment.from_string(_TEMPLATE).render(
        card=card,
        what=what,
        usage=_usage(card),
        front_matter=front_matter(
            "peft" if card.adapter else "transformers",
            [card.method, *([card.adapter] if card.adapter else [])],
            pipeline_tag=card.kind.pipeline_tag or None,
            base=card.base_model if card.is_on_hub else None,
        ),
        versions=", ".join(f"{name} {number}" for name, number in card.packages.items()),
        drift=[line.replace("`", "'").replace(": ", ": `", 1) + "`" for line in card.drift],
        fence="`" * max(3, 1 + _longest_run(card.recipe)),
        contestants=list(contestants),
        metrics=list(dict.fromkeys(m for scores in contestants.values() for m in scores)),
        shown=lambda who, metric: _number(contestants[who].get(metric)),
    )


def _usage(card: Card) -> str:
    if card.adapter is None:
        return (
            f"from transformers import {card.kind.auto_class}\n\n"
            f'model = {card.kind.auto_class}.from_pretrained("THIS FOLDER")'
        )
    has_labels, writes = card.kind.reads_rows, card.kind.answers == "text"
    names = ["AutoConfig"] * has_labels + [card.kind.auto_class] + ["GenerationConfig"] * writes
    ends = (
        "# where answers end\n"
        'base.generation_config = GenerationConfig.from_pretrained("THIS FOLDER")\n'
    )
    config = 'config = AutoConfig.from_pretrained("THIS FOLDER")  # the labels\n'
    said = [card.base_in_code, *["config=config"] * has_labels, f"dtype={card.dtype!r}"]
    quantization = ""
    if card.quantization is not None:
        name, options = card.quantization
        names.append(name)
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        quantization = f"quantization = {name}({given})  # as in training\n"
        said.append("quantization_config=quantization")
    return (
        "from peft import PeftModel\n"
        f"{'' if card.base_in_code[0] in _QUOTES else _EMBEDDED_IMPORT}"
        f"from transformers import {', '.join(names)}\n\n"
        f"{config if has_labels else ''}{quantization}"
        f"base = {card.kind.auto_class}.from_pretrained({', '.join(said)})\n"
        f"{ends if writes else ''}{card.after_loading}"
        'model = PeftModel.from_pretrained(base, "THIS FOLDER")'
    )


def _contestants(scores: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Name everyone who was scored: base, tuned, then the trivial baselines."""
    named = {name: scores[name] for name in ("base", "tuned") if scores.get(name)}
    return {**named, **scores.get("baselines", {})}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _longest_run(text: str) -> int:
    """Return the length of the longest run of backticks, which a fence must exceed."""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return longest
