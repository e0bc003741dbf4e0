"""One picture: a file's bytes, or where the file is."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Picture:
    """Hold one picture: the bytes of its file, or where the file is."""

    data: bytes = b""
    path: str = ""

    @cached_property
    def digest(self) -> str:
        """Return a hash of its file, by which two rows with one picture are found."""
        return hashlib.blake2b(self.read(), digest_size=16).hexdigest()

    def read(self) -> bytes:
        """Return the bytes of its file.

        Raises:
            DataError: the file cannot be read.
        """
        try:
            return self.data or Path(self.path).read_bytes()
        except OSError as error:
            raise DataError(
                f"the picture {self.path} cannot be read: {error.strerror}",
                hint="paths start at the task's `folder`, or at the working directory",
            ) from None

    def open(self) -> Image:
        """Decode it, in colours.

        Raises:
            DataError: it is no picture that Pillow knows.
        """
        from PIL import Image, UnidentifiedImageError

        try:
            return Image.open(io.BytesIO(self.read())).convert("RGB")
        except (UnidentifiedImageError, OSError, ValueError) as error:
            name = self.path or f"a picture of {len(self.data)} bytes"
            raise DataError(f"{name} is none that can be read: {error}") from None
