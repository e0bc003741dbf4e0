"""Bases, adapters, recipes and rows that somebody made against us, each from a sound one.

Whatever of them runs code writes `RAN` into the folder that `CANARY` names.
"""

from __future__ import annotations

import gzip
import json
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Harm = Callable[[Path], None]
DEEP = "[" * 100_000
SLOW = r"(?:.*a)*(?:.*b)*(?:.*c)*(?:(x+x+)+y|.*_proj)"
NESTED = "^(([a-z_.0-9])+.)+[A-Z]([a-z])+$"
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLED = (
    "{% set n = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}"
    "{% endfor %}{{ n.x }}"
)
TEMPLATES = {
    "loops": LOOPS,
    "doubled": DOUBLED,
    "power": "{{ 9 ** (9 ** 9) }}",
    "macro": "{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('') }}",
    "wide": "{{ 'a' | center(9999999999) }}",
    "repeated": "{{ 'ab' * 5000000000 }}",
    "import": "{{ cycler.__init__.__globals__.os.system('touch CANARY/RAN') }}",
    "mro": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "syntax": "{% for %}",
    "nested": "{% if 1 %}" * 400 + "{% endif %}" * 400,
}


class Ran:
    """Run code where it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return exec, (f"open({str(self.canary / 'RAN')!r}, 'w').close()",)


def _change(name: str, **fields: Any) -> Harm:
    def change(folder: Path) -> None:
        file = folder / name
        content = json.loads(file.read_text()) if file.exists() else {}
        text = json.dumps({**content, **fields}).replace("CANARY", str(folder.parent))
        file.write_text(text)

    return change


def _write(name: str, content: str | bytes) -> Harm:
    def write(folder: Path) -> None:
        raw = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(raw.replace(b"CANARY", str(folder.parent).encode()))

    return write


def _link(name: str, to: str) -> Harm:
    def link(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)

    return link


def _folder(name: str) -> Harm:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return make


def _pickled(name: str, weights: str) -> Harm:
    def write(folder: Path) -> None:
        (folder / weights).unlink()
        (folder / name).write_bytes(pickle.dumps(Ran(folder.parent)))

    return write


def _header(weights: str, header: Any, num_bytes: int | None = None) -> Harm:
    def write(folder: Path) -> None:
        raw = json.dumps(header).encode()
        length = len(raw) if num_bytes is None else num_bytes
        (folder / weights).write_bytes(struct.pack("<Q", length) + raw + bytes(64))

    return write


def _cut(weights: str) -> Harm:
    def cut(folder: Path) -> None:
        content = (folder / weights).read_bytes()
        (folder / weights).write_bytes(content[: len(content) // 2])

    return cut


def _broken_files(names: tuple[str, ...]) -> Iterator[tuple[str, Harm]]:
    for name in names:
        yield f"{name} empty", _write(name, "")
        yield f"{name} a list", _write(name, "[1, 2]")
        yield f"{name} deep", _write(name, DEEP)
        yield f"{name} binary", _write(name, bytes(range(256)) * 9)
        yield f"{name} elsewhere", _link(name, "/etc/passwd")
        yield f"{name} a folder", _folder(name)


def _broken_weights(weights: str) -> Iterator[tuple[str, Harm]]:
    one = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    yield "weights cut", _cut(weights)
    yield "weights empty", _write(weights, b"")
    yield "weights of a long header", _header(weights, {}, 1 << 60)
    yield "weights without tensors", _header(weights, {})
    yield "weights beyond their end", _header(weights, {"a": {**one, "data_offsets": [0, 1 << 50]}})
    yield "weights of negative size", _header(weights, {"a": {**one, "shape": [-4]}})
    yield "weights of a huge shape", _header(weights, {"a": {**one, "shape": [1 << 40, 1 << 40]}})
    yield "weights over each other", _header(weights, {"a": one, "b": one})
    yield "weights of an odd dtype", _header(weights, {"a": {**one, "dtype": "EVIL"}})
    yield "weights elsewhere", _link(weights, "/dev/zero")


def bases() -> Iterator[tuple[str, Harm]]:
    """Give what is done to a sound base's folder, by name."""
    values: dict[str, list[Any]] = {
        "hidden_size": ["32", None, 0, -1, 1.5, True, [], 1 << 40],
        "num_hidden_layers": [10_000_000, -1, "2", None],
        "num_attention_heads": [0, "4", 3, None],
        "vocab_size": [0, 1, 1 << 40, "512"],
        "model_type": ["evil", [], None, "../x"],
        "architectures": ["x", [], ["os.system"], [1]],
        "attn_implementation": ["org/kernels", {"": "org/kernels"}, ["org/kernels"]],
        "rope_parameters": [{"rope_type": "evil"}, [], {"rope_theta": "x"}],
        "quantization_config": [[], {"quant_method": "evil"}, {"load_in_4bit": "x"}, "x"],
        "dtype": ["evil", 5],
        "hidden_act": ["evil", None],
        "torch_dtype": [{"": "x"}],
        "max_position_embeddings": [-1, "x"],
    }
    for key, options in values.items():
        for value in options:
            yield f"config {key}={value!r}", _change("config.json", **{key: value})
    code = {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}
    evil = "open('CANARY/RAN', 'w').close()\nclass Model: pass\nclass Config: pass\n"

    def with_code(folder: Path) -> None:
        _write("evil.py", evil)(folder)
        _change("config.json", auto_map=code, model_type="evil")(folder)

    yield "code of its own", with_code
    yield "a pickle", _pickled("pytorch_model.bin", "model.safetensors")
    index = {"metadata": {}, "weight_map": {"a": "../../outside.safetensors"}}

    def with_index(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    yield "an index that leads outside", with_index
    yield from _broken_weights("model.safetensors")
    yield from _broken_files(("config.json", "tokenizer.json", "tokenizer_config.json"))
    for name, template in TEMPLATES.items():
        yield f"template {name}", _write("chat_template.jinja", template)
    yield "template elsewhere", _link("chat_template.jinja", "/etc/passwd")
    for fields in (
        {"temperature": float("inf"), "do_sample": True}, {"eos_token_id": -5}, {"top_k": 1 << 62},
        {"eos_token_id": 1 << 40}, {"temperature": "1"}, {"stop_strings": 5}, {"max_length": []},
    ):  # fmt: skip
        yield f"generation {fields}", _change("generation_config.json", **fields)
    for fields in (
        {"tokenizer_class": "os.system"}, {"eos_token": 5}, {"eos_token": {"content": []}},
        {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, {"model_max_length": "x"},
        {"added_tokens_decoder": {"999999999999": {"content": "x"}}}, {"chat_template": [1]},
    ):  # fmt: skip
        yield f"tokenizer {fields}", _change("tokenizer_config.json", **fields)


def adapters() -> Iterator[tuple[str, Harm]]:
    """Give what is done to a sound adapter's folder, by name."""
    values: dict[str, list[Any]] = {
        "r": ["8", 0, -1, None, 1.5, 1_000_000_000],
        "lora_alpha": [None, "x", float("inf")],
        "target_modules": [SLOW, NESTED, "(", 5, ["q_proj", 5], "x" * 20_000],
        "exclude_modules": [SLOW, NESTED],
        "modules_to_save": [SLOW, ["lm_head"] * 3, 5],
        "rank_pattern": [{NESTED: 4}, {"q_proj": 1 << 40}, [], {"q_proj": "x"}],
        "alpha_pattern": [{NESTED: 4}, 5],
        "peft_type": [["LORA"], None, "EVIL", "IA3"],
        "auto_mapping": [{"base_model_class": "x", "parent_library": "evil"}],
        "megatron_core": ["evil"],
        "megatron_config": [{"a": 1}],
        "layer_replication": [[[0, 200_000]], "x", [[0]]],
        "base_model_name_or_path": ["../../../etc", 5, "\x00"],
        "init_lora_weights": ["evil", "eva"],
        "trainable_token_indices": [[1 << 40], "x"],
        "loftq_config": [5],
        "task_type": ["EVIL", []],
        "layers_to_transform": [[1 << 40], "x"],
        "bias": ["evil", []],
    }
    for key, options in values.items():
        for value in options:
            harm = _change("adapter_config.json", **{key: value})
            yield f"adapter {key}={str(value)[:40]!r}", harm
    yield "a pickle", _pickled("adapter_model.bin", "adapter_model.safetensors")
    yield from _broken_weights("adapter_model.safetensors")
    yield from _broken_files(("adapter_config.json",))
    yield "a card elsewhere", _link("README.md", "/etc/passwd")
    yield "a template elsewhere", _link("chat_template.jinja", "/etc/passwd")


def recipes(sound: str) -> Iterator[tuple[str, str | bytes]]:
    """Give hostile recipes, by name."""
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
    )
    yield "aliases", bomb + sound
    for tag in (
        "python/object/apply:os.system [touch CANARY/RAN]",
        "python/name:os.system ''",
        "x",
    ):
        yield f"tag {tag[:18]}", f"{sound}\nx: !!{tag}\n"
    yield "deep", f"{sound}\nx: {DEEP}\n"
    yield "many keys", sound + "\n" + "".join(f"kez{n}: 1\n" for n in range(19_000))
    yield "large", sound + "# " + "x" * (2 << 20)
    yield "binary", bytes(range(256)) * 9
    yield "long number", sound.replace("max_steps: 4", f"max_steps: {'9' * 5000}")
    yield "no number", sound.replace("max_steps: 4", "max_steps: .nan")
    for pattern in (SLOW, NESTED, "("):
        yield f"pattern {pattern[:9]}", sound.replace("all-linear", json.dumps(pattern))
    yield "zeros as rows", sound.replace("rows.jsonl", "/dev/zero")
    yield "a long path", sound.replace("rows.jsonl", "x" * 5000)
    yield "no character", sound.replace("name: tiny", 'name: "a\\0b"')
    yield "a name that leaves", sound.replace("name: tiny", "name: ../../../tmp/evil")
    yield "the terminal's", sound.replace("name: tiny", 'name: "\\e]0;x\\a\\e[2J"')


def rows() -> Iterator[tuple[str, str, bytes]]:
    """Give files of hostile rows: name, file name, content."""
    good = b'{"document": "a b", "summary": "c"}\n'
    yield "zeros", "rows.jsonl.gz", gzip.compress(bytes(300 << 20))
    yield "cut gzip", "rows.jsonl.gz", gzip.compress(good * 99)[:-9]
    yield "a long line", "rows.jsonl", b'{"document": "' + b"x " * (20 << 20) + b'"}\n'
    yield "a long row", "rows.jsonl", b'{"document": "' + b"x " * (8 << 20) + b'"}\n' + good
    yield "many values", "rows.jsonl", b'{"document": [' + b"[]," * (8 << 20) + b"1]}\n"
    yield "deep", "rows.jsonl", DEEP.encode() + b"\n" + good
    yield "half pairs", "rows.jsonl", b'{"document": "\\ud800", "summary": "c"}\n'
    yield "no UTF-8", "rows.jsonl", b'{"document": "\xff\xfe"}\n'
    yield "UTF-16", "rows.jsonl", good.decode().encode("utf-16")
    yield "NULs", "rows.jsonl", bytes(4096)
    yield (
        "control characters",
        "rows.jsonl",
        b'{"document": "\\u001b[2J", "summary": "\\u0000"}\n' * 9,
    )
    yield "long numbers", "rows.jsonl", b'{"document": ' + b"9" * 5000 + b', "summary": "c"}\n'
    yield "no numbers", "rows.jsonl", b'{"document": NaN, "summary": Infinity}\n'
    columns = b",".join(b'"k%d": 1' % n for n in range(100_000))
    yield "many columns", "rows.jsonl", b"{" + columns + b"}\n"
    yield "a document of many", "rows.json", b"[" + b"[]," * (10 << 20) + b"[]]"
    yield "a wide cell", "rows.csv", b'document,summary\n"' + b"x" * (40 << 20) + b'",c\n'
    yield "an open quote", "rows.csv", b'document,summary\n"a,c\n' + b"b,d\n" * 99_999
    yield "no Parquet", "rows.parquet", b"PAR1" + bytes(99) + b"PAR1"
    yield "no Arrow", "rows.arrow", b"ARROW1" + bytes(99)
