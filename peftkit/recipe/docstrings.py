"""Read what a class says about its options: `Args:` blocks, field `help`, attribute docstrings."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import Any

from peftkit.recipe.kinds import ANY, NULL, Kind, union

_HEADER = re.compile(
    r"^(?P<indent> +)`?(?P<names>\w+(?:, \w+)*)`? *(?:\((?P<type>.*)\))? *:(?P<rest>.*)$"
)
_NAMES = {
    "int": "int",
    "float": "float",
    "bool": "bool",
    "str": "str",
    "string": "str",
    "None": "null",
}
_CONTAINERS = {
    "list": "list",
    "List": "list",
    "Sequence": "list",
    "set": "list",
    "dict": "mapping",
    "Dict": "mapping",
    "Mapping": "mapping",
}


def option_docs(cls: type) -> dict[str, tuple[str, str]]:
    """Return option -> (type as written, text) from the `Args:` blocks of a class and its parents.

    Parents come first, so that a class's own words win.
    """
    docs: dict[str, tuple[str, str]] = {}
    for owner in reversed(cls.__mro__):
        for text in (owner.__dict__.get("__doc__"), _init_doc(owner)):
            if isinstance(text, str):
                docs.update(_parse_args(text))
    return docs


def _init_doc(cls: type) -> str | None:
    init = cls.__dict__.get("__init__")
    return getattr(init, "__doc__", None) if inspect.isfunction(init) else None


def _parse_args(doc: str) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    lines = textwrap.dedent(doc if doc.startswith((" ", "\n")) else "\n" + doc).splitlines()
    names: list[str] = []
    indent = 0
    body: list[str] = []
    written = ""
    for line in [*lines, "end"]:
        header = _HEADER.match(line)
        # A nested definition list stays in the body; texts upstream are indented by 4 steps.
        if names and line.strip() and not line.startswith(" " * (indent + 1)):
            for name in names:
                found[name] = (written, _tidy(body))
            names = []
        if not names and header and len(header["indent"]) <= 8:
            names = header["names"].split(", ")
            indent, written = len(header["indent"]), header["type"] or ""
            body = [header["rest"]]
        elif names:
            body.append(line)
    return found


def _tidy(lines: list[str]) -> str:
    text = textwrap.dedent("\n".join(line for line in lines if line.strip()))
    return re.sub(r"\s+", " ", text).strip()


def kind_of_text(written: str) -> Kind:
    """Read a type as docstrings write it: "`int` or `list[int]`, *optional*, defaults to 20"."""
    text = re.split(r", *\*?optional|, *defaults", written.strip())[0]
    text = text.replace("`", "").replace(" or ", " | ").strip().rstrip(",")
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        return ANY
    return _kind_of_tree(tree)


def _kind_of_tree(tree: ast.expr) -> Kind:
    if isinstance(tree, ast.Constant) and tree.value is None:
        return NULL
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitOr):
        return union(_kind_of_tree(tree.left), _kind_of_tree(tree.right))
    if isinstance(tree, ast.Name):
        if tree.id in _CONTAINERS:
            return Kind(_CONTAINERS[tree.id], (ANY,))
        return Kind(_NAMES.get(tree.id, "any"))
    if isinstance(tree, ast.Subscript) and isinstance(tree.value, ast.Name):
        parts = tree.slice.elts if isinstance(tree.slice, ast.Tuple) else [tree.slice]
        return _kind_of_generic(tree.value.id, [_kind_of_tree(part) for part in parts])
    is_dtype = isinstance(tree, ast.Attribute) and tree.attr == "dtype"
    return Kind("object") if is_dtype else ANY


def _kind_of_generic(name: str, kinds: list[Kind]) -> Kind:
    if name in ("Union", "Optional"):
        return union(*kinds, *([NULL] if name == "Optional" else []))
    return Kind(_CONTAINERS[name], (kinds[-1],)) if name in _CONTAINERS else ANY


def field_docs(cls: type) -> dict[str, str]:
    """Return field -> its attribute docstring, for a class whose source can be read."""
    docs: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
        except (OSError, TypeError, SyntaxError):
            continue
        definition = tree.body[0]
        if not isinstance(definition, ast.ClassDef):
            continue
        for field, text in zip(definition.body, definition.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                docs[field.target.id] = re.sub(r"\s+", " ", text.value.value).strip()
    return docs


def first_paragraph(doc: Any) -> str:
    """Return a docstring's first paragraph on one line."""
    if not isinstance(doc, str):
        return ""
    return re.sub(r"\s+", " ", inspect.cleandoc(doc).split("\n\n")[0]).strip()


def first_sentence(doc: Any) -> str:
    """Return a docstring's first sentence on one line; `e.g.` and `i.e.` end none."""
    return re.split(r"(?<=\.)(?<!e\.g\.)(?<!i\.e\.) ", first_paragraph(doc), maxsplit=1)[0]
