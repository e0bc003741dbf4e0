"""Collect the wheels that a machine with a GPU, torch and no network still lacks.

    python benchmarks/gpu_wheels.py wheels [NAME ...] [--python 3.12] [--cuda 130]

Downloads the pinned wheels for Linux x86-64, reduces bitsandbytes to its library for the processor
and the one for that CUDA (43 MB become 5), and adds the repository's own metadata, by which plugins
are found: its code is imported from where it lies. A NAME is one more distribution of
constraints.txt that is missing there. On that machine, in the repository's folder:

    python3 -m pip install --no-index --no-deps --no-compile --target site wheels/*.whl
    PYTHONPATH=site python3 benchmarks/gpu.py
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("trl", "datasets", "dill", "multiprocess", "peft", "transformers", "bitsandbytes")
"""What an image with torch, its dependencies and accelerate does not have, or not as tested."""
_PLATFORMS = (
    *(f"manylinux_2_{n}_x86_64" for n in (39, 35, 34, 31, 28, 27, 24, 17)),
    "manylinux2014_x86_64", "manylinux1_x86_64",
)  # fmt: skip
"""Names of what an older wheel was built on: pip takes those that it is told of, and no other."""


def pins(file: Path) -> Mapping[str, str]:
    """Return a distribution's name -> `name==version`."""
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return {line.split("==")[0].lower(): line for line in lines if "==" in line}


def collect(folder: Path, names: Sequence[str], *, python: str, cuda: str) -> None:
    """Download and build all wheels.

    Raises:
        SystemExit: a name is not pinned.
    """
    pinned = pins(ROOT / "constraints.txt")
    unknown = [name for name in names if name.lower() not in pinned]
    if unknown:
        raise SystemExit(f"not in constraints.txt: {', '.join(unknown)}")
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:",
        "--implementation", "cp", "--python-version", python, "-d", str(folder),
    ]  # fmt: skip
    for platform in _PLATFORMS:
        command += ["--platform", platform]
    subprocess.run([*command, *(pinned[name.lower()] for name in names)], check=True)
    libraries = (f"libbitsandbytes_cuda{cuda}.so", "libbitsandbytes_cpu.so")
    for wheel in folder.glob("bitsandbytes-*.whl"):
        repack(wheel, lambda name: ".so" not in name or PurePosixPath(name).name in libraries)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(build, check=True)
    for wheel in folder.glob("peftkit-*.whl"):
        repack(wheel, lambda name: ".dist-info/" in name)


def repack(wheel: Path, keeps: Callable[[str], bool]) -> None:
    """Rewrite a wheel with the files that are kept alone, and a RECORD that says so."""
    slim, record = wheel.with_suffix(".slim"), []
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(slim, "w", zipfile.ZIP_DEFLATED) as new:
        record_name = next(n for n in old.namelist() if n.endswith(".dist-info/RECORD"))
        for name in old.namelist():
            if name == record_name or not keeps(name):
                continue
            data = old.read(name)
            new.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}")
        new.writestr(record_name, "\n".join([*record, f"{record_name},,"]) + "\n")
    slim.replace(wheel)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--python", default="3.12", help="that machine's, e.g. 3.12")
    parser.add_argument("--cuda", default="130", help="torch.version.cuda there, without the dot")
    given = parser.parse_args()
    collect(given.folder, [*NAMES, *given.names], python=given.python, cuda=given.cuda)
    total = sum(file.stat().st_size for file in given.folder.glob("*.whl"))
    print(f"{total / 2**20:.1f} MiB in {given.folder}")


if __name__ == "__main__":
    main()
