"""What upstream says of a recipe's values once its own objects are made of them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from peftkit.recipe.signatures import load_class
from peftkit.recipe.yaml_file import join


@contextmanager
def caught_hints(path: str, options: Mapping[str, Any], hints: list[str]) -> Iterator[None]:
    """Keep what upstream warns of an option that it will drop, by its key, and print none of it.

    Warnings of anything else go on as they would.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FutureWarning)
        yield
    for warning in caught:
        text = re.sub(r"\s+", " ", str(warning.message)).strip()
        valued = {name: rf"['`\"]{re.escape(v)}(?:['`\"]|$)"
                  for name, v in options.items() if isinstance(v, str)}  # fmt: skip
        named = [name for name, pattern in valued.items() if re.search(pattern, text)]
        named += [name for name in options if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
        if issubclass(warning.category, FutureWarning) and named:
            hints.append(f"{join(path, named[0])}: {text}")
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def valid_generation(options: Mapping[str, Any]) -> Any:
    """Return transformers' own object of options to generate.

    Raises:
        ValueError: they cannot work together.
    """
    config = load_class("transformers:GenerationConfig")(**options)
    config.validate(strict=True)
    return config
