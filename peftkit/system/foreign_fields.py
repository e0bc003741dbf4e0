"""Fields of configurations from anywhere: what would run code, cost without end, or is no number.

Every verb that opens a base's or an adapter's folder asks here, before anything is built from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peftkit.errors import ArtefactError
from peftkit.system.patterns import check_pattern

CODE_FIELDS = ("attn_implementation", "experts_implementation")
"""Fields of a model that can name a repository of kernels, which is code."""
REDIRECTING = (
    "auto_mapping",  # imports a module by name
    "megatron_config",
    "megatron_core",  # imports a module by name
    "runtime_config",
    "tokenizer_kwargs",  # may say trust_remote_code
)
"""Fields of an adapter that import, redirect or run where PEFT follows them."""
_SIZES = (
    "hidden_size", "d_model", "n_embd", "num_attention_heads", "n_head", "num_hidden_layers",
    "n_layer", "num_layers", "vocab_size",
)  # fmt: skip
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "encoder_layers", "decoder_layers")
_MOST_LAYERS = 1000
"""The deepest models have as many; building more, even without weights, takes minutes."""
_LARGEST = 1 << 30
_TOKENS = ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id")
"""-1 stands for none in some."""
_GENERATION: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 100), "top_k": (-1, _LARGEST), "top_p": (0, 1), "min_p": (0, 1),
    "typical_p": (0, 1), "repetition_penalty": (0, 100), "max_new_tokens": (0, _LARGEST),
    "max_length": (0, _LARGEST), "num_beams": (1, 1000), "num_return_sequences": (1, 1000),
    "no_repeat_ngram_size": (0, _LARGEST), "length_penalty": (-100, 100),
}  # fmt: skip
"""Field of generation_config.json -> the numbers that can be meant."""
_RANKS = ("r", "init_r", "target_r")
_MOST_RANK = 1 << 16
_NUMBERS = ("lora_alpha", "alpha", "lora_dropout")
_NAMES = ("target_modules", "exclude_modules", "modules_to_save", "target_parameters")
_PATTERNS = ("rank_pattern", "alpha_pattern")


def check_config_fields(config: Mapping[str, Any], where: str) -> None:
    """Refuse configuration fields that would fetch and run code.

    Raises:
        ArtefactError: names the field; `model.trust_remote_code: true` is the way to allow it.
    """
    for path, value in _leaves(config, ()):
        fields = {one.removeprefix("_").removesuffix("_internal") for one in path}
        if fields & set(CODE_FIELDS) and isinstance(value, str) and "/" in value:
            raise ArtefactError(
                f"{where}: {'.'.join(path)} names code to download ({value!r})",
                hint="remove the field, or say model.trust_remote_code: true if you have read it",
            )


def check_model_sizes(config: Mapping[str, Any], where: str) -> None:
    """Refuse names that are no names and sizes that are no sizes, in configurations within too.

    Raises:
        ArtefactError: names the field.
    """
    names = config.get("architectures")
    if names is not None and not _is_texts(names):
        raise _wrong(where, "architectures", names, "a list of names of classes")
    if not isinstance(config.get("model_type", ""), str):
        raise _wrong(where, "model_type", config["model_type"], "the name of an architecture")
    for path, value in _leaves(config, ()):
        key = path[-1]
        if key not in (*_SIZES, *_LAYERS) or value is None or isinstance(value, list):
            continue
        least, most = (0, _MOST_LAYERS) if key in _LAYERS else (1, _LARGEST)
        if not _is_count(value) or not least <= value <= most:
            raise _wrong(where, ".".join(path), value, f"a number from {least} to {most:,}")


def check_generation_fields(config: Mapping[str, Any], where: str) -> None:
    """Refuse what a folder says of generating where no program could generate so.

    Raises:
        ArtefactError: names the field.
    """
    for key in _TOKENS:
        ids = config.get(key)
        for one in ids if isinstance(ids, list) else [ids]:
            if one is not None and not (_is_count(one) and -1 <= one < _LARGEST):
                raise _wrong(where, key, one, "the number of a token")
    for key, (least, most) in _GENERATION.items():
        value = config.get(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and least <= value <= most):
            raise _wrong(where, key, value, f"a number from {least:g} to {most:,}")

    stops = config.get("stop_strings")
    if stops is not None and not _is_texts([stops] if isinstance(stops, str) else stops):
        raise _wrong(where, "stop_strings", stops, "a text, or a list of texts")


def check_tokenizer_fields(config: Mapping[str, Any], where: str) -> None:
    """Refuse a longest text that is no number, which loaders keep and everything compares with.

    Raises:
        ArtefactError: names the field.
    """
    longest = config.get("model_max_length")
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int | float)):
        raise _wrong(where, "model_max_length", longest, "a number of tokens")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_adapter_fields(config: Mapping[str, Any], where: str) -> None:
    """Refuse an adapter's configuration whose fields are of other types, or have no bounds.

    Raises:
        ArtefactError: names the field.
    """
    if not isinstance(config.get("peft_type"), str):
        raise _wrong(where, "peft_type", config.get("peft_type"), "the name of a method")
    may_lack = config["peft_type"] != "LORA"  # of others a size may be null, or 0 for another one
    for key in (*_RANKS, *_NUMBERS):
        value = config.get(key, 1)
        if value is None and may_lack:
            continue
        is_number = isinstance(value, int if key in _RANKS else int | float)
        if not is_number or isinstance(value, bool) or not 0 <= value <= _MOST_RANK:
            raise _wrong(where, key, value, f"a number from 0 to {_MOST_RANK:,}")
    if not isinstance(config.get("task_type"), str | None):
        raise _wrong(where, "task_type", config["task_type"], "the name of a task")
    _check_token_rows(config.get("trainable_token_indices"), where)
    for key in _NAMES:
        _check_names(config.get(key), key, where)
    is_pruned = config["peft_type"] == "ADALORA"  # it says of every rank whether it was kept
    for key in _PATTERNS if not is_pruned else ():
        _check_patterns(config.get(key), key, where)
    _check_replication(config.get("layer_replication"), where)


def find_redirecting(config: Mapping[str, Any]) -> list[str]:
    """Name the fields of an adapter that lead elsewhere than PEFT itself writes them."""
    found = [key for key in REDIRECTING if config.get(key)]
    mapping = config.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    is_plain = str(library).split(".")[0] in ("transformers", "peft", "None")
    plain = {
        "auto_mapping": isinstance(mapping, dict) and is_plain,
        "megatron_core": config.get("megatron_core") == "megatron.core",
    }
    return [key for key in found if not plain.get(key)]


def _check_token_rows(value: Any, where: str) -> None:
    """Refuse rows of tokens that are no numbers; they are listed, or listed for each embedding."""
    lists = value.values() if isinstance(value, dict) else [value or []]
    are_rows = all(
        isinstance(some, list) and all(_is_count(one) and 0 <= one < _LARGEST for one in some)
        for some in lists
    )
    if not are_rows:
        raise _wrong(where, "trainable_token_indices", value, "a list of numbers of tokens")


def _check_names(value: Any, key: str, where: str) -> None:
    is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
    if value is not None and not isinstance(value, str) and not is_list:
        raise _wrong(where, key, value, "a pattern, or a list of names")
    if isinstance(value, str):
        check_pattern(value, f"{where}: {key}")


def _check_patterns(value: Any, key: str, where: str) -> None:
    if value is None:
        return
    numbers = value.values() if isinstance(value, dict) else ()
    if not isinstance(value, dict) or not all(isinstance(n, int | float) for n in numbers):
        raise _wrong(where, key, value, "patterns of names, each with a number")
    if key == "rank_pattern" and not all(0 < number <= _MOST_RANK for number in numbers):
        raise _wrong(where, key, value, f"patterns, each with a number from 1 to {_MOST_RANK:,}")
    for pattern in value:
        check_pattern(pattern, f"{where}: {key}")


def _check_replication(value: Any, where: str) -> None:
    if value is None:
        return
    is_pairs = isinstance(value, list) and all(
        isinstance(one, list | tuple) and len(one) == 2 and all(isinstance(n, int) for n in one)
        for one in value
    )
    if not is_pairs or sum(max(0, stop - start) for start, stop in value) > _MOST_LAYERS:
        wanted = f"pairs of layers, {_MOST_LAYERS:,} in all at most"
        raise _wrong(where, "layer_replication", value, wanted)


def _wrong(where: str, key: str, value: Any, wanted: str) -> ArtefactError:
    return ArtefactError(
        f"{where}: {key} is {value!r:.60}, not {wanted}",
        hint="the file is broken, or none of this program: download it again",
    )


def _leaves(
    config: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Walk nested configurations, in lists too, as (keys, value)."""
    for key, value in config.items():
        here = (*path, str(key))
        if isinstance(value, Mapping):
            yield from _leaves(value, here)
            continue
        yield here, value
        for one in value if isinstance(value, list) else ():
            if isinstance(one, Mapping):
                yield from _leaves(one, here)
            else:
                yield here, one
