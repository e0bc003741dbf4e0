"""What transformers' loaders refuse or let pass, and the way out of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError, PeftkitError, ResourceError, UsageError
from peftkit.plugins import CAUSAL_LM, SEQ_2_SEQ_LM, ModelKind, find, only_builtins, plugin_names
from peftkit.system.exhaustion import is_exhaustion
from peftkit.system.hub_errors import explain_hub_error, is_hub_error

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def check_loading_report(
    base: PreTrainedModel,
    report: Mapping[str, Any],
    where: str,
    *,
    kind: ModelKind,
    brought: Set[str] | None = None,
) -> None:
    """Refuse a load that left parameters at random or weights unused, new heads excepted.

    Args:
        report: what `output_loading_info=True` returns beside the model.
        where: the folder or Hub id that was loaded.
        brought: parameters that an adapter brings afterwards, which alone may be missing; when
            None, a head is still to be trained, and may be all new.

    Raises:
        ArtefactError: names the first of the tensors.
    """
    prefix = f"{base.base_model_prefix}."

    def in_body(key: str) -> bool:
        # A classification head over a language model is new, and that model's own head left over.
        return not kind.has_new_head or key.startswith(prefix)

    def is_lost(key: str) -> bool:
        return in_body(key) if brought is None else key not in brought

    def is_left_over(key: str) -> bool:
        # What sums a whole text up has no use under a head that reads each token.
        return in_body(key) and not (kind.has_new_head and key.startswith(f"{prefix}pooler."))

    problems = [f"missing {key}" for key in sorted(report["missing_keys"]) if is_lost(key)]
    problems += [
        f"left over {key}" for key in sorted(report["unexpected_keys"]) if is_left_over(key)
    ]
    problems += [
        f"{key} has shape {tuple(theirs)} where the configuration says {tuple(ours)}"
        for key, theirs, ours in sorted(report["mismatched_keys"])
        if brought is None or key not in brought
    ]
    problems += [str(message) for message in report["error_msgs"]]
    if problems:
        shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" * (len(problems) > 4))
        raise ArtefactError(
            f"{where}: the weights do not fit {type(base).__name__}: {shown}",
            hint="use the checkpoint's own config.json, or download it again"
            if brought is None
            else "name the base model that this adapter was trained on",
        )


@contextmanager
def load_explained(where: str, *, is_local: bool = True) -> Iterator[None]:
    """Turn whatever the stack raises over a folder's content into one line with a way out.

    A configuration's own checks, a model's code and a tokenizer's parser raise classes of their
    own and bare exceptions, and Rust's panics are not even those.

    Args:
        where: the folder or Hub id that is loaded.
    """
    try:
        yield
    except PeftkitError:
        raise  # explained already
    except BaseException as error:
        is_panic = type(error).__name__ == "PanicException"
        if not (isinstance(error, Exception) or is_panic) or is_exhaustion(error):
            raise
        raise explain_load_error(error, where, is_local=is_local) from error


def explain_load_error(error: BaseException, where: str, *, is_local: bool) -> PeftkitError:
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
    if type(error).__name__ == "SafetensorError":
        return ArtefactError(
            f"{where}: weights are torn: {text}", hint="copy or download them again"
        )
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


_UNFIT = {
    "prophetnet": "transformers 5.23 cannot generate with its cache, so that no answer is scored",
}
"""Encoder-decoder -> why it, and a decoder of it alone, is refused."""


def check_trains(config: PretrainedConfig, kind: ModelKind) -> None:
    """Refuse a model that the method's class cannot be made of; custom code is left to its own.

    Raises:
        UsageError: names the methods that train such a model.
    """
    if _has_class(config, kind) or getattr(config, "auto_map", None):
        _check_answers_texts(config, kind)
        _check_reads_one_way(config, kind)
        return
    with only_builtins():
        methods = {name: find("methods", name).kind for name in plugin_names("methods")}
    able = [name for name, other in methods.items() if _has_class(config, other)]
    able = [name for name in able if methods[name].answers == kind.answers] or able
    raise UsageError(
        f"a {config.model_type} model has no {kind.auto_class}, which this method trains",
        hint=f"method: {' or '.join(able)}" if able else "a model of another architecture",
    )


def _check_answers_texts(config: PretrainedConfig, kind: ModelKind) -> None:
    """Refuse what the class of encoder-decoders takes too: models of sounds, and a broken family.

    Raises:
        UsageError: names the reason.
    """
    if kind not in (SEQ_2_SEQ_LM, CAUSAL_LM):
        return
    reason = _UNFIT.get(config.model_type)
    if (
        kind is SEQ_2_SEQ_LM
        and not config.is_encoder_decoder
        and not getattr(config, "auto_map", None)
    ):
        reason = "it is no encoder-decoder, although transformers loads it as one: it hears sounds"
    if reason:
        raise UsageError(
            f"a {config.model_type} model is not trained here: {reason}",
            hint="a model of another architecture",
        )


def _check_reads_one_way(config: PretrainedConfig, kind: ModelKind) -> None:
    """Refuse an encoder that transformers loads as a causal model, and that sees what follows.

    Raises:
        UsageError: it would be trained to copy the token before its eyes, and could not generate.
    """
    if kind is not CAUSAL_LM or config.is_encoder_decoder or getattr(config, "is_decoder", True):
        return
    import transformers

    if type(config) in transformers.AutoModelForMaskedLM._model_mapping:
        raise UsageError(
            f"this {config.model_type} model is an encoder: its config.json does not say"
            " is_decoder: true, so each token would see those that it is trained to foresee",
            hint="method: classify or question_answering; or a base that is a decoder",
        )


def _has_class(config: PretrainedConfig, kind: ModelKind) -> bool:
    import transformers

    return type(config) in getattr(transformers, kind.auto_class)._model_mapping
