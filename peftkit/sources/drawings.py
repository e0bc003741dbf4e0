"""Draw pictures of simple shapes with questions about them: a sample for models that see."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import DataError
from peftkit.plugins import Source

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

COLORS = {
    "red": (214, 40, 40), "green": (46, 160, 67), "blue": (31, 111, 235),
    "yellow": (242, 201, 38), "purple": (137, 87, 229), "black": (30, 30, 30),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "cross")
SPLITS = ("train", "validation", "test")
PLACES = ("top left", "top right", "bottom left", "bottom right")
QUESTION = "What is drawn?"


@dataclass(frozen=True)
class DrawingsConfig:
    """Choose how many pictures there are."""

    num_rows: int = 1000
    """Pictures of the training split; the held-out splits have a tenth as many each."""
    side: int = 32
    """Width and height of a picture."""


class DrawingsSource(Source):
    """Give rows with `image` (PNG), `question`, `answer`, and `color`, `place` and `shape`."""

    Config: ClassVar[type | str] = DrawingsConfig

    def splits(self) -> Sequence[str]:
        """Name the splits."""
        return SPLITS

    def load(self, split: str) -> Dataset:
        """Draw one split, the same at every call.

        Raises:
            DataError: there is no such split.
        """
        from datasets import Dataset

        if split not in SPLITS:
            raise DataError(f"drawings has no split {split!r}", hint=f"use one of {SPLITS}")
        config: DrawingsConfig = self.config
        number = config.num_rows if split == "train" else max(config.num_rows // 10, 1)
        chance = random.Random(f"peftkit-drawings-{split}")  # noqa: S311 - a sample
        return Dataset.from_list([_row(chance, config.side) for _ in range(number)])


def _row(chance: random.Random, side: int) -> dict[str, Any]:
    color, shape = chance.choice(list(COLORS)), chance.choice(SHAPES)
    place = chance.choice(PLACES)
    stream = io.BytesIO()
    draw(color, shape, place, side, chance).save(stream, "PNG")
    return {
        "image": stream.getvalue(),
        "question": QUESTION,
        "answer": f"{color}, {place}",
        "color": color,
        "place": place,
        "shape": shape,
    }


def draw(color: str, shape: str, place: str, side: int, chance: random.Random) -> Image:
    """Draw a shape of some size in one quarter of a light ground."""
    from PIL import Image, ImageDraw

    ground = tuple(chance.randint(200, 255) for _ in range(3))
    image = Image.new("RGB", (side, side), ground)
    pen, fill, half = ImageDraw.Draw(image), COLORS[color], side // 2
    size = chance.randint(half // 2, half - 2)
    x, y = (chance.randint(0, half - size - 1) for _ in "xy")
    x, y = x + half * ("right" in place), y + half * ("bottom" in place)
    right, low = x + size, y + size
    if shape == "circle":
        pen.ellipse((x, y, right, low), fill=fill)
    elif shape == "square":
        pen.rectangle((x, y, right, low), fill=fill)
    elif shape == "triangle":
        pen.polygon([(x, low), (right, low), (x + size // 2, y)], fill=fill)
    else:
        third = size // 3
        pen.rectangle((x + third, y, right - third, low), fill=fill)
        pen.rectangle((x, y + third, right, low - third), fill=fill)
    return image
