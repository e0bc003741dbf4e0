"""Write NOTICE: the packages whose docstrings the embedded models and samples come from.

    python tools/build_notice.py recipes/pretrain-lm.yaml FOLDER NOTICE

FOLDER is where the recipe's packages were put.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from pathlib import Path

import yaml

from peftkit.errors import DataError
from peftkit.sources.docstrings import STDLIB

PERMISSIVE = re.compile(
    r"\b(MIT|0?BSD|Apache|PSF|Python Software Foundation|ISC|Zlib|Unlicense|HPND)\b", re.I
)
COPYLEFT = re.compile(r"GPL|GNU|Mozilla|MPL|EUPL|CeCILL|Proprietary|Commercial", re.I)
COPYRIGHT = re.compile(r"^\W*(Copyright (?:\(c\)|©|\d).*?)[\s.*#]*$", re.I | re.M)
LICENCE_FILE = re.compile(r"^[^/]+\.dist-info/(licenses/)?(licen[sc]e|copying)(\.\w+)?$", re.I)
"""The package's own, not those of the copies it bundles."""

HEAD = """\
peftkit
Licensed under the Apache License, Version 2.0; see LICENSE.

The embedded models in peftkit/embedded are trained on, and the samples in peftkit/embedded,
benchmarks/data and examples quote, docstrings of the packages below. Every one is under a
permissive licence, given here as its own metadata states it, with the first copyright line of its
licence file.
The licence texts are in the packages, at these versions, on the Python Package Index.

"""


CATALOGUES = """
The sample django-translations quotes the message catalogues of Django, named above. The embedded
model catalogue-seq2seq is trained on the message catalogues of these packages:

django-allauth 65.22.1: MIT. Copyright (c) 2010-2026 Raymond Penners and contributors
django-cms 5.1.3: BSD-3-Clause. Copyright (c) 2008, Batiste Bieler
django-oscar 4.2.1: BSD License. Copyright (c) 2011-present Tangent Communications PLC and\\
 individual contributors.
Mezzanine 6.1.1: BSD License. Copyright (c) Stephen McDonald and individual contributors.
Sphinx 9.0.4: BSD-2-Clause. Copyright (c) 2007-2025 by the Sphinx team (see AUTHORS file).
wagtail 8.0.1: BSD-3-Clause. Copyright (c) 2014-present Torchbox Ltd and individual contributors.
"""
"""What message catalogues gave, of the versions in recipes/pretrain-seq2seq.txt."""


def read_licence(metadata: importlib.metadata.PackageMetadata) -> str:
    """Give a package's licence as its metadata states it.

    Raises: DataError unless that is clearly permissive.
    """
    classifiers = metadata.get_all("Classifier") or []
    named = [c.rpartition("::")[2].strip() for c in classifiers if c.startswith("License ::")]
    stated = metadata.get_all("License-Expression") or [c for c in named if PERMISSIVE.search(c)]
    free_text = (metadata.get_all("License") or [""])[0].strip().partition("\n")[0]
    licence = " AND ".join(dict.fromkeys(stated)) or free_text
    if not PERMISSIVE.search(licence) or COPYLEFT.search(" ".join([licence, *named])):
        raise DataError(f"{metadata['Name']}: {licence or 'no licence'} is not clearly permissive")
    return licence


def read_copyright(distribution: importlib.metadata.Distribution) -> str:
    """Give the first copyright line of a package's licence file; empty when there is none."""
    for file in sorted(f for f in distribution.files or [] if LICENCE_FILE.search(f.as_posix())):
        text = Path(str(distribution.locate_file(file))).read_text("utf-8", errors="replace")
        # Apache's own text opens with its appendix's sample line, which names nobody.
        found = [line for line in COPYRIGHT.findall(text) if "[" not in line and "{" not in line]
        if found:
            return " ".join(found[0].split())
    return ""


def write_notice(packages: list[str], path: list[str]) -> str:
    """Write the notice of these distributions, found on a path like `sys.path`."""
    lines = [f"Python {platform.python_version()} standard library: PSF-2.0"]
    for package in sorted(set(packages) - {STDLIB}):
        found = next(iter(importlib.metadata.distributions(name=package, path=path)), None)
        if found is None:
            raise DataError(f"no installed package is called {package!r}")
        parts = [read_licence(found.metadata), read_copyright(found)]
        title = f"{found.metadata['Name']} {found.version}"
        lines.append(f"{title}: {'. '.join(filter(None, parts))}")
    return HEAD + "\n".join(lines) + "\n"


def main(recipe: str, packages_folder: str, notice: str) -> None:
    """Write the notice of a recipe's packages."""
    text = Path(recipe).read_text(encoding="utf-8")
    native = yaml.safe_load(text)["data"]["source"]["docstrings"]
    packages = [p for key, value in native.items() if key.endswith("packages") for p in value]
    text = write_notice(packages, [packages_folder, *sys.path]) + CATALOGUES
    Path(notice).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
