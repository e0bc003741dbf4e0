"""From a recipe's `model` section to where its files are and its configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError, UsageError
from peftkit.models.load_errors import load_explained
from peftkit.models.new_model import new_config
from peftkit.system.checkpoint_files import read_json
from peftkit.system.foreign_fields import check_config_fields, check_model_sizes
from peftkit.system.hub_errors import explain_hub_error
from peftkit.system.quiet import quiet_stack
from peftkit.system.weight_folders import check_base_folder
from peftkit.system.weights_digest import BaseIdentity, identify

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from peftkit.recipe.schema import ModelSection

_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
_COMMIT = re.compile(r"/snapshots/([0-9a-f]{40})/")
_HUB_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class ResolvedModel:
    """Say where a base model's files really come from."""

    path_or_id: str
    """A folder, or a Hub id."""
    revision: str | None
    """The commit that the recipe's revision stands for today; None for a folder."""
    is_local: bool
    subfolder: str = ""

    def location(self) -> dict[str, Any]:
        """Return the keywords that every `from_pretrained` needs to find these files."""
        keywords: dict[str, Any] = {"pretrained_model_name_or_path": self.path_or_id}
        if not self.is_local:
            keywords["revision"] = self.revision
        if self.subfolder:
            keywords["subfolder"] = self.subfolder
        return keywords


def resolve(model: ModelSection, *, needs_model: bool = True) -> ResolvedModel:
    """Find the base model: one that ships with peftkit, a folder, or a commit on the Hub.

    Args:
        needs_model: False where a folder with a tokenizer alone will do.

    Raises:
        ArtefactError: no such folder, or not a base model in safetensors.
        NetworkError: the Hub has no such model, wants a licence accepted, or is out of reach.
    """
    if model.path is None:
        raise UsageError(
            "this recipe builds a new model, so there is no base to load",
            hint="name a base under model.path",
        )
    subfolder = model.subfolder or ""
    if model.path.startswith("embedded:"):
        from peftkit.embedded import model_path

        return ResolvedModel(str(model_path(model.path.removeprefix("embedded:"))), None, True)
    folder = Path(model.path).expanduser()
    if folder.is_dir():
        if needs_model:
            check_base_folder(folder / subfolder)
        return ResolvedModel(str(folder), None, True, subfolder)
    if folder.exists():
        raise ArtefactError(
            f"model.path {model.path!r} is a file, not a folder",
            hint="name the folder that holds config.json",
        )
    if not _HUB_ID.fullmatch(model.path):
        raise ArtefactError(
            f"model.path {model.path!r}: no such folder", hint="check the path, or name a Hub id"
        )
    return _resolve_on_hub(model.path, model.revision, subfolder)


def identify_base(model: ModelSection) -> BaseIdentity:
    """Tell which weights a recipe's base has; of the Hub by its commit, until they are here."""
    found = resolve(model)
    if found.is_local:
        return identify(Path(found.path_or_id) / found.subfolder)
    from huggingface_hub import try_to_load_from_cache

    name = f"{found.subfolder}/config.json" if found.subfolder else "config.json"
    file = try_to_load_from_cache(found.path_or_id, name, revision=found.revision)
    if not isinstance(file, str):
        return BaseIdentity((), found.revision)
    return identify(Path(file).parent, found.revision)


def load_config(model: ModelSection, found: ResolvedModel | None = None) -> PretrainedConfig:
    """Read the base model's configuration, e.g. for its longest position.

    Raises:
        ArtefactError: this transformers does not know the architecture, or it is custom code.
    """
    quiet_stack()
    from transformers import AutoConfig

    if model.config is not None:
        return new_config(model.config)
    found = found or resolve(model)
    if found.is_local:
        file = Path(found.path_or_id) / found.subfolder / "config.json"
        stored = read_json(file)
        check_model_sizes(stored, str(file))
        if not model.trust_remote_code:
            check_config_fields(stored, str(file))
    with load_explained(found.path_or_id, is_local=found.is_local):
        config = AutoConfig.from_pretrained(
            **found.location(), trust_remote_code=model.trust_remote_code
        )
    if not model.trust_remote_code:
        check_config_fields(config.to_dict(), f"{found.path_or_id} config.json")
    return config


def max_positions(config: PretrainedConfig) -> int | None:
    """Return the longest sequence that a configuration's positions reach; None when unbounded."""
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(found) if isinstance(found, int) and found > 0 else None


@cache
def _resolve_on_hub(repo_id: str, revision: str | None, subfolder: str) -> ResolvedModel:
    """Fetch a Hub model's configuration, and read from where it landed which commit this is.

    Asked once a process, so that a tokenizer and its weights are of one commit. The list of
    files comes first because it fails at once where the Hub is out of reach; a download is
    retried for half a minute.
    """
    quiet_stack()
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HTTPError

    place: dict[str, Any] = {"revision": revision, "subfolder": subfolder or None}
    failure: Exception | None = None
    try:
        names, failure = _list_files(repo_id, revision)
        prefix = f"{subfolder}/" if subfolder else ""
        # transformers follows an adapter_config.json to its base; a recipe names its own.
        if f"{prefix}adapter_config.json" in names:
            raise ArtefactError(
                f"the Hub's {repo_id!r} holds an adapter, not a base model",
                hint="name its base model under model.path",
            )
        place["local_files_only"] = failure is not None
        file = hf_hub_download(repo_id, "config.json", **place)
    except (HTTPError, EntryNotFoundError, OSError, ValueError) as error:
        if isinstance(error, ArtefactError):
            raise
        raise explain_hub_error(failure or error, repo_id) from error
    commit = _COMMIT.search(Path(file).as_posix())
    if commit is None:
        raise ArtefactError(f"the Hub cache holds {repo_id!r} without its commit: {file}")
    return ResolvedModel(repo_id, commit.group(1), False, subfolder)


def _list_files(repo_id: str, revision: str | None) -> tuple[frozenset[str], Exception | None]:
    """List a Hub model's files; nothing, and why, where the Hub itself is out of reach."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    try:
        info = HfApi().model_info(repo_id, revision=revision, timeout=_HUB_TIMEOUT_SECONDS)
    except HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise
        return frozenset(), error
    except (HTTPError, OfflineModeIsEnabled, ConnectionError) as error:
        return frozenset(), error
    return frozenset(entry.rfilename for entry in info.siblings or ()), None
