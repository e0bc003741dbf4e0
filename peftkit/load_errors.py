"""What loaders refuse or let pass, the Hub's and transformers', and the way out of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError, NetworkError, PeftkitError, ResourceError, UsageError
from peftkit.plugins import find, only_builtins, plugin_names

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def explain_hub_error(error: BaseException, repo_id: str, *, kind: str = "model") -> PeftkitError:
    """Turn what huggingface_hub, or a loader above it, raised into one line with a way out.

    Args:
        error: the exception; loaders wrap the Hub's own, so its causes are searched too.
        kind: `model` or `dataset`, for the page's address and the words.
    """
    from huggingface_hub import errors

    for cause in _causes(error):
        if isinstance(cause, errors.GatedRepoError):
            return _gated(cause, repo_id, kind)
        if isinstance(cause, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
            continue  # what kept the file away may lie deeper
        if isinstance(cause, errors.HFValidationError):
            return ArtefactError(
                f"{repo_id!r} is neither a folder here nor a Hub id (`owner/name`)",
                hint="check the path",
            )
        if isinstance(cause, errors.EntryNotFoundError | errors.HfHubHTTPError):
            return _answered(cause, repo_id, kind)
    return _unreachable(repo_id, kind)


def check_loading_report(
    base: PreTrainedModel, report: Mapping[str, Any], where: str, *, auto_class: str
) -> None:
    """Refuse a load that left parameters at random or weights unused, new heads excepted.

    Args:
        report: what `output_loading_info=True` returns beside the model.
        where: the folder or Hub id that was loaded.

    Raises:
        ArtefactError: names the first of the tensors.
    """
    prefix = f"{base.base_model_prefix}."
    # A classification head over a language model is new, and that model's own head left over.
    whole = ("ForCausalLM", "ForSeq2SeqLM", "ForPreTraining", "AutoModel")
    has_new_head = not auto_class.endswith(whole)

    def in_body(key: str) -> bool:
        return not has_new_head or key.startswith(prefix)

    problems = [f"missing {key}" for key in sorted(report["missing_keys"]) if in_body(key)]
    problems += [f"left over {key}" for key in sorted(report["unexpected_keys"]) if in_body(key)]
    problems += [
        f"{key} has shape {tuple(theirs)} where the configuration says {tuple(ours)}"
        for key, theirs, ours in sorted(report["mismatched_keys"])
    ]
    problems += [str(message) for message in report["error_msgs"]]
    if problems:
        shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" * (len(problems) > 4))
        raise ArtefactError(
            f"{where}: the weights do not fit {type(base).__name__}: {shown}",
            hint="use the checkpoint's own config.json, or download it again",
        )


def is_hub_error(error: BaseException) -> bool:
    """Tell whether an exception, or one of its causes, came from the Hub or the way to it."""
    from huggingface_hub import errors

    kinds = (
        errors.HfHubHTTPError,
        errors.EntryNotFoundError,
        errors.OfflineModeIsEnabled,
        errors.HFValidationError,
        ConnectionError,
    )
    return any(isinstance(cause, kinds) for cause in _causes(error))


def explain_load_error(error: Exception, where: str, *, is_local: bool) -> PeftkitError:
    """Turn what a transformers loader raised into one line with a way out.

    Args:
        where: the folder or Hub id that was loaded.
    """
    text = str(error).strip()
    if not is_local and is_hub_error(error):
        return explain_hub_error(error, where)
    if "out of memory" in text:
        return ResourceError(f"{where}: {text}", hint="quantize it, or pick a smaller model")
    if isinstance(error, ImportError):
        return ResourceError(f"{where}: {text}", hint="install the package it names")
    return _unreadable(text or repr(error), where)


def _unreadable(text: str, where: str) -> ArtefactError:
    """Explain a checkpoint that transformers read and refused."""
    if "trust_remote_code" in text:
        return ArtefactError(
            f"{where} comes with Python code of its own",
            hint="read the code; if you trust it, say model.trust_remote_code: true",
        )
    if "does not recognize this architecture" in text:
        import transformers

        name = re.search(r"model type `([^`]*)`", text)
        return ArtefactError(
            f"{where}: transformers {transformers.__version__} does not know the architecture"
            f" {name.group(1) if name else '?'!r}",
            hint="pip install --upgrade transformers; or another model",
        )
    if "safetensors" in text and "file named" in text:
        return ArtefactError(
            f"{where} has no safetensors weights, and pickled ones can run code",
            hint="pick a revision with safetensors, or convert it once and name the folder",
        )
    return ArtefactError(f"{where} cannot be loaded: {text.splitlines()[0]}")


def _answered(error: BaseException, repo_id: str, kind: str) -> PeftkitError:
    """Explain what the Hub answered about a repository, a revision or a file."""
    from huggingface_hub import errors

    page = _page(repo_id, kind)
    if isinstance(error, errors.RepositoryNotFoundError):
        return NetworkError(
            f"the Hub has no {kind} {repo_id!r} that these credentials may see",
            hint=f"check the spelling at {page}; if it is private: hf auth login",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return NetworkError(
            f"the Hub's {kind} {repo_id!r} has no such revision",
            hint=f"pick a branch, tag or commit listed at {page}",
        )
    if isinstance(error, errors.EntryNotFoundError):
        return ArtefactError(
            f"the Hub's {kind} {repo_id!r} lacks a file: {_first_line(error)}",
            hint=f"look at its files at {page}",
        )
    status = getattr(getattr(error, "response", None), "status_code", "an error")
    return NetworkError(
        f"the Hub answered {status} for {kind} {repo_id!r}",
        hint="run the same command again later, or name a local folder",
    )


def _gated(error: BaseException, repo_id: str, kind: str) -> NetworkError:
    """Explain a repository whose licence must be accepted first."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    page = _page(repo_id, kind)
    if status == 403:
        return NetworkError(
            f"the Hub's {kind} {repo_id!r} is gated, and this account has no access (403)",
            hint=f"accept the licence at {page} with the account of this token, then run again",
        )
    return NetworkError(
        f"the Hub's {kind} {repo_id!r} is gated, and no valid token was sent ({status})",
        hint=f"accept the licence at {page}, then: hf auth login",
    )


def _unreachable(repo_id: str, kind: str) -> NetworkError:
    """Explain a file that is not in the cache and cannot be fetched."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return NetworkError(
            f"{kind} {repo_id!r} is not in the Hub cache, and HF_HUB_OFFLINE is set",
            hint="unset HF_HUB_OFFLINE to download it, or name a local folder",
        )
    return NetworkError(
        f"{kind} {repo_id!r} is not in the Hub cache, and the Hub cannot be reached",
        hint=(
            "check the network; or download it elsewhere with"
            f" `hf download {repo_id}{' --repo-type dataset' if kind == 'dataset' else ''}`"
            " and name the folder"
        ),
    )


def _page(repo_id: str, kind: str) -> str:
    """Return the address of a repository's page."""
    prefix = "datasets/" if kind == "dataset" else ""
    return f"https://huggingface.co/{prefix}{repo_id}"


def _first_line(error: BaseException) -> str:
    """Return the first line of an exception's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk from an exception to what caused it."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def check_trains(config: PretrainedConfig, auto_class: str) -> None:
    """Refuse a model that the method's class cannot be made of; custom code is left to its own.

    Raises:
        UsageError: names the methods that train such a model.
    """
    if _has_class(config, auto_class) or getattr(config, "auto_map", None):
        return
    with only_builtins():
        methods = {name: find("methods", name).auto_class for name in plugin_names("methods")}
    able = [name for name, other in methods.items() if _has_class(config, other)]
    raise UsageError(
        f"a {config.model_type} model has no {auto_class}, which this method trains",
        hint=f"method: {' or '.join(able)}" if able else "a model of another architecture",
    )


def _has_class(config: PretrainedConfig, auto_class: str) -> bool:
    import transformers

    return type(config) in getattr(transformers, auto_class)._model_mapping
