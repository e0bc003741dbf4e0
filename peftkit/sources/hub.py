"""Read a dataset from the Hub, or from a folder laid out like one.

The commit that a revision stands for is resolved first and that commit is loaded, so that a run
can record what it saw. No dataset script is run: datasets refuses them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from peftkit.errors import DataError, PeftkitError
from peftkit.plugins import Source
from peftkit.sources.columns import require_columns
from peftkit.system.hub_errors import explain_hub_error, is_hub_error
from peftkit.system.quiet import quiet_stack

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder

_COMMIT = re.compile(r"[0-9a-f]{40}")
MAX_SHOWN = 200
"""Characters of an upstream message that are shown; datasets lists every extension it knows."""


@dataclass(frozen=True)
class HubConfig:
    """Name a dataset as `datasets.load_dataset` does."""

    path: str | Path
    """`owner/name` on the Hub, or a folder, which in a recipe starts from the recipe's own."""
    name: str | None = None
    """Configuration of the dataset, where it has several."""
    data_dir: str | None = None
    """Folder inside the dataset."""
    data_files: str | list[str] | dict[str, str | list[str]] | None = None
    """Files inside the dataset: one, several, or a mapping of split to files."""
    revision: str | None = None
    """Branch, tag or commit; the commit it stands for is recorded either way."""
    columns: list[str] | None = None
    """Which columns to keep; all when absent."""


class HubSource(Source):
    """Read a dataset from the Hub through its cache."""

    Config: ClassVar[type | str] = HubConfig

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        self.path = str(config.path)
        self._builder: DatasetBuilder | None = None
        self._commit: str | None = None

    @property
    def revision(self) -> str | None:
        """Return the commit that was read; None for a folder, or before anything was read."""
        return self._commit

    def splits(self) -> Sequence[str]:
        """Name the splits that the dataset declares.

        Raises:
            NetworkError: the Hub is out of reach, or refuses; says what to do.
            DataError: the dataset has no such configuration, or no files.
        """
        builder = self._load_builder()
        return [str(name) for name in builder.info.splits or builder.config.data_files or ()]

    def load(self, split: str) -> Dataset:
        """Read one split, downloading it unless the cache has it.

        Raises:
            NetworkError: the Hub is out of reach, or refuses; says what to do.
            DataError: no such split or column, or files that do not fit together.
        """
        names = self.splits()
        if names and split not in names:
            raise DataError(
                f"{self.path} has no split {split!r}; it has {', '.join(names)}",
                hint=f"say data.splits: {{{split}: NAME}}, or a percentage of train",
            )
        builder = self._load_builder()
        try:
            builder.download_and_prepare()
            rows: Dataset = builder.as_dataset(split=split)
        except Exception as error:
            raise self._explain(error) from error
        columns = self.config.columns
        if columns is None:
            return rows
        require_columns(columns, rows.column_names, where=f"{self.path} ({split})")
        return rows.select_columns(columns)

    def _load_builder(self) -> DatasetBuilder:
        if self._builder is None:
            self._builder = self._make_builder()
        return self._builder

    def _make_builder(self) -> DatasetBuilder:
        quiet_stack()
        from datasets import load_dataset_builder

        config = self.config
        is_folder = _check_path(self.path)
        commit = None if is_folder else self._find_commit()
        try:
            builder = load_dataset_builder(
                str(Path(self.path).expanduser()) if is_folder else self.path,
                name=config.name,
                data_dir=config.data_dir,
                data_files=config.data_files,
                revision=commit,
            )
        except Exception as error:
            raise self._explain(error) from error
        if commit and _COMMIT.fullmatch(builder.hash or "") and builder.hash != commit:
            # Out of reach, datasets answers from its cache, whatever commit that holds.
            raise DataError(
                f"the cache holds {self.path} at {builder.hash}, not at {commit}",
                hint=f"run once with a network, or say revision: {builder.hash}",
            )
        self._commit = commit
        return builder

    def _find_commit(self) -> str:
        """Ask the Hub what the revision stands for, or its cache where the Hub is out of reach.

        The question comes first because a download would retry for half a minute, and because
        datasets answers a wrong revision from its cache, whatever that holds.
        """
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

        path, revision = self.path, self.config.revision
        try:
            return str(HfApi().dataset_info(path, revision=revision, timeout=20).sha)
        except HFValidationError:
            raise DataError(
                f"hub.path {path!r} is neither a folder here nor a Hub id (`owner/name`)",
                hint="check the path",
            ) from None
        except HfHubHTTPError as error:
            raise explain_hub_error(error, path, kind="dataset") from error
        except Exception as error:  # the transport's own, which huggingface_hub does not name
            try:
                card = hf_hub_download(
                    path, "README.md", repo_type="dataset", revision=revision, local_files_only=True
                )
            except EntryNotFoundError:
                raise explain_hub_error(error, path, kind="dataset") from error
            return Path(card).parent.name

    def _explain(self, error: Exception) -> PeftkitError:
        if isinstance(error, PeftkitError):
            return error
        path = self.path
        if is_hub_error(error):
            return explain_hub_error(error, path, kind="dataset")
        return DataError(f"{path}: {_innermost(error)}", hint=_hint(error))


def _check_path(path: str) -> bool:
    """Tell a folder from a Hub id.

    Raises:
        DataError: the path is a file, or the name of a format.
    """
    place = Path(path).expanduser()
    if place.is_file():
        raise DataError(
            f"hub.path {path!r} is a file",
            hint="read it with the source `json`, `csv`, `parquet` or `text`",
        )
    if path in {"json", "csv", "parquet", "text"} and not place.is_dir():
        raise DataError(
            f"hub.path {path!r} is a file format, not a dataset",
            hint=f"source: {{{path}: {{files: FILE}}}}",
        )
    if not place.is_dir() and (place.is_absolute() or path.startswith((".", "~"))):
        raise DataError(f"hub.path {path!r}: no such folder")
    return place.is_dir()


def _innermost(error: Exception) -> str:
    """Return the first line of what caused an error: datasets wraps it in words of its own."""
    current: BaseException = error
    while current.__cause__ is not None and str(current.__cause__).strip():
        current = current.__cause__
    lines = str(current).strip().splitlines() or [type(current).__name__]
    return lines[0] if len(lines[0]) <= MAX_SHOWN else lines[0][: MAX_SHOWN - 3] + "..."


def _hint(error: Exception) -> str:
    text = str(error)
    if "onfig name is missing" in text or "BuilderConfig" in text:
        return "pick a configuration with `name:`"
    if "scripts are no longer supported" in text:
        return "pick a copy of the dataset in Parquet or JSON"
    return "check the dataset's files, or name some with `data_files:`"
