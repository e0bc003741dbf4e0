"""Upload a trained adapter, or a whole model, with its card to the Hugging Face Hub.

What would leave the machine is listed first, from the folder alone; the Hub is asked nothing before
a person has agreed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError, NetworkError, PeftkitError, UsageError, first_line
from peftkit.rundir.paths import RunDir
from peftkit.rundir.whole import check_weights
from peftkit.system.checkpoint_files import check_safetensors, read_json
from peftkit.system.hub_errors import explain_hub_error
from peftkit.system.units import gibibytes
from peftkit.system.weight_folders import check_trained

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from rich.console import RenderableType

WEIGHTS = (".safetensors", ".gguf", ".onnx", ".onnx.data")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Files that run code when they are read, and states of a training that nobody needs."""
_REPO = re.compile(r"[\w][\w.-]{0,95}/[\w][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class Push:
    """Say what would be uploaded where."""

    folder: Path
    repo: str
    is_private: bool
    files: Mapping[str, int]
    """Path in the repository -> bytes."""
    notes: tuple[str, ...]
    """Sentences that a person should read before."""

    @property
    def num_bytes(self) -> int:
        """Return the bytes of all files."""
        return sum(self.files.values())

    @property
    def question(self) -> str:
        """Return what a person is asked."""
        visibility = "private" if self.is_private else "PUBLIC"
        return (
            f"upload {len(self.files)} files, {gibibytes(self.num_bytes)}, to the {visibility}"
            f" repository {self.repo}?"
        )


@dataclass(frozen=True)
class Pushed:
    """Say what was uploaded."""

    push: Push
    url: str
    commit: str
    is_new: bool
    """Whether the repository was made for it."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "repo": self.push.repo,
            "url": self.url,
            "commit": self.commit,
            "is_new": self.is_new,
            "is_private": self.push.is_private,
            "num_bytes": self.push.num_bytes,
            "files": dict(self.push.files),
            "notes": list(self.push.notes),
        }


def plan_push(source: str | Path, repo: str, *, private: bool = True) -> Push:
    """Choose the files of an upload; nothing is sent.

    Args:
        source: a run, an adapter's folder, or a whole model's, merged or exported.
        repo: `owner/name`.

    Raises:
        ArtefactError: there is nothing to upload, weights are torn, or a file is a pickle.
        NetworkError: there is no token, or HF_HUB_OFFLINE is set.
        UsageError: the repository's name cannot be one.
    """
    _check_name(repo)
    folder = _folder_of(Path(source))
    files = {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not any(p.startswith(".") for p in file.relative_to(folder).parts)
    }
    _check_files(folder, files)
    _check_credentials(repo)
    return Push(folder, repo, private, files, tuple(_notes(folder, files)))


def push(planned: Push, *, existing: bool = False, message: str | None = None) -> Pushed:
    """Upload what was planned, in one commit; into a new repository unless told otherwise.

    Args:
        existing: add the commit to a repository that is there already: files of the same names are
            replaced, others stay.
        message: of the commit.

    Raises:
        NetworkError: the Hub refuses the token, or cannot be reached.
        UsageError: the repository exists already, or is public where a private one was meant.
    """
    from huggingface_hub import HfApi

    from peftkit import __version__

    api = HfApi(library_name="peftkit", library_version=__version__)
    try:
        is_new = _open_repository(api, planned, existing=existing)
        done = api.upload_folder(
            repo_id=planned.repo,
            folder_path=planned.folder,
            allow_patterns=[_escaped(name) for name in planned.files],
            commit_message=message or f"Upload {planned.folder.name} with peftkit",
        )
    except PeftkitError:
        raise
    except Exception as error:
        raise explain_push_error(error, planned.repo) from error
    return Pushed(planned, f"{api.endpoint}/{planned.repo}", str(done.oid), is_new)


def _open_repository(api: HfApi, planned: Push, *, existing: bool) -> bool:
    """Make the repository, or look at the one that is there; return whether it is new."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.model_info(planned.repo)
    except RepositoryNotFoundError:
        api.create_repo(planned.repo, private=planned.is_private, exist_ok=False)
        return True
    there = {entry.rfilename for entry in info.siblings or ()}
    replaced = sorted(there & set(planned.files))
    if not existing:
        what = f" and {', '.join(replaced[:4])} would be replaced" if replaced else ""
        raise UsageError(
            f"{planned.repo} exists already, with {len(there)} files{what}; nothing was uploaded",
            hint="--existing adds a commit to it, or name another repository",
        )
    if planned.is_private and not info.private:
        raise UsageError(
            f"{planned.repo} is public; nothing was uploaded",
            hint="--public, if everybody may read these files; or name another repository",
        )
    return False


def explain_push_error(error: Exception, repo: str) -> PeftkitError:
    """Say what kept an upload from the Hub, and the way out."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return NetworkError(
            f"the Hub refuses to write to {repo!r} with this token ({status}); nothing was"
            " uploaded",
            hint=f"hf auth login, with a token that may write to {repo.partition('/')[0]}",
        )
    if isinstance(error, ValueError) and "README.md" in str(error):
        return ArtefactError(
            f"the Hub refuses the model card: {' '.join(str(error).split())}",
            hint="mend the lines between --- at the head of README.md",
        )
    if status is not None:
        return NetworkError(
            f"the Hub answered {status} to the upload to {repo!r}: {first_line(error)}",
            hint="run the same command again later",
        )
    if isinstance(error, ConnectionError) or type(error).__module__.startswith("httpx"):
        return NetworkError(
            f"the Hub cannot be reached; nothing is known to be uploaded to {repo!r}",
            hint="check the network, then run the same command again",
        )
    return explain_hub_error(error, repo)


def _check_name(repo: str) -> None:
    if _REPO.fullmatch(repo):
        return
    path = re.sub(r"^https?://[^/]+/", "", repo)
    near = path if _REPO.fullmatch(path) else f"OWNER/{re.sub(r'[^A-Za-z0-9_.-]+', '-', path)}"
    raise UsageError(f"{repo!r} is no repository of the Hub: it is owner/name", hint=near)


def _folder_of(source: Path) -> Path:
    """Return the folder of what a run trained, or of an adapter or a model as it is.

    Raises:
        ArtefactError: there is none.
    """
    if not source.is_dir():
        raise ArtefactError(
            f"{source} is no folder", hint="name a run, an adapter folder or a model folder"
        )
    run_dir = RunDir(source)
    if not run_dir.resolved.is_file():
        check_trained(source)
        return source
    check_weights(run_dir)
    return run_dir.trained


def _check_files(folder: Path, files: Mapping[str, int]) -> None:
    pickles = [name for name in files if name.endswith(PICKLES)]
    if pickles:
        raise ArtefactError(
            f"{folder} holds {', '.join(pickles[:3])}, which runs code where it is read, or is a"
            " training's state",
            hint="upload a folder that `peftkit merge` or `peftkit export` wrote",
        )
    weights = [name for name in files if name.endswith(WEIGHTS)]
    if not weights:
        raise ArtefactError(
            f"{folder} holds no weights: no file ends in {', '.join(WEIGHTS)}",
            hint="name a run, an adapter folder or a model folder",
        )
    for name in weights:
        if name.endswith(".safetensors"):
            check_safetensors(folder / name)


def _check_credentials(repo: str) -> None:
    """Refuse what must fail before anybody is asked: offline, or without a token."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise NetworkError(
            f"HF_HUB_OFFLINE is set, so nothing can be uploaded to {repo!r}",
            hint="unset HF_HUB_OFFLINE, then run the same command again",
        )
    if get_token() is None:
        raise NetworkError(
            f"there is no token of the Hub, and {repo!r} takes uploads from its owner alone",
            hint="hf auth login; or set HF_TOKEN",
        )


def _notes(folder: Path, files: Mapping[str, int]) -> Iterator[str]:
    card = folder / "README.md"
    if not card.is_file():
        yield "There is no README.md, so the repository's page will be empty."
    elif "## Recipe" in card.read_text(encoding="utf-8", errors="replace"):
        yield "README.md quotes the recipe, with the names of its data files and of the base."
    if "adapter_config.json" in files:
        base = str(read_json(folder / "adapter_config.json").get("base_model_name_or_path") or "")
        if not _REPO.fullmatch(base) or Path(base).exists():
            yield (
                f"adapter_config.json names {base or 'no base'!r}, which nobody else has: `peftkit"
                " merge` makes a model that needs no base."
            )


def _escaped(name: str) -> str:
    """Return a pattern that matches one name alone."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def render_push(planned: Push) -> RenderableType:
    """List the files with their sizes, and what should be read before."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("", overflow="fold")
    table.add_column("", justify="right", no_wrap=True)
    for name, num_bytes in planned.files.items():
        table.add_row(Text(name), gibibytes(num_bytes))
    head = Text(f"from {planned.folder}")
    return Group(head, table, *(Text(note, style="yellow") for note in planned.notes))
