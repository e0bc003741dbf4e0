"""What the Hub refuses, and the way out of each."""

from __future__ import annotations

from collections.abc import Iterator

from peftkit.errors import ArtefactError, NetworkError, PeftkitError, first_line


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
            f"the Hub's {kind} {repo_id!r} lacks a file: {first_line(error)}",
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


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk from an exception to what caused it."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__
