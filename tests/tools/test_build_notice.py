"""NOTICE names every package, and only permissive licences pass."""

from __future__ import annotations

from pathlib import Path

import build_notice
import pytest

from peftkit.errors import DataError


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ("License-Expression: MIT", "MIT"),
        ("Classifier: License :: OSI Approved :: BSD License", "BSD License"),
        ("License: Apache 2.0", "Apache 2.0"),
    ],
)
def test_permissive_licence_is_read(tmp_path: Path, headers: str, expected: str) -> None:
    assert build_notice.read_licence(metadata(tmp_path, headers)) == expected


@pytest.mark.parametrize(
    "headers",
    [
        "License-Expression: LGPL-2.1-only",
        "License: MIT\nClassifier: License :: OSI Approved :: Mozilla Public License 2.0",
        "License-Expression: MIT AND MPL-2.0",
        "Summary: nothing stated",
    ],
)
def test_any_other_licence_is_refused(tmp_path: Path, headers: str) -> None:
    with pytest.raises(DataError, match="not clearly permissive"):
        build_notice.read_licence(metadata(tmp_path, headers))


def metadata(folder: Path, headers: str):
    import importlib.metadata

    info = folder / "goose-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: goose\nVersion: 1.0\n{headers}\n")
    return next(iter(importlib.metadata.distributions(path=[str(folder)]))).metadata


def test_notice_has_each_package_once_with_its_own_copyright(tmp_path: Path) -> None:
    info = tmp_path / "goose-1.0.dist-info"
    (info / "licenses/_vendor").mkdir(parents=True)
    (info / "METADATA").write_text("Name: goose\nVersion: 1.0\nLicense-Expression: MIT\n")
    (info / "licenses/LICENSE").write_text("MIT\n\nCopyright (c) 2020 A. Gander\n\nPermission...\n")
    (info / "licenses/_vendor/LICENSE").write_text("Copyright (c) 1999 Another\n")
    (info / "RECORD").write_text(
        "goose-1.0.dist-info/licenses/LICENSE,,\ngoose-1.0.dist-info/licenses/_vendor/LICENSE,,\n"
    )
    notice = build_notice.write_notice(["stdlib", "goose", "goose"], [str(tmp_path)])
    assert notice.splitlines()[-2].endswith("standard library: PSF-2.0")
    assert notice.splitlines()[-1] == "goose 1.0: MIT. Copyright (c) 2020 A. Gander"
    with pytest.raises(DataError, match="no installed package is called 'duck'"):
        build_notice.write_notice(["duck"], [str(tmp_path)])
