"""Write the recipe as a JSON Schema, so that editors complete and check while one types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from peftkit.errors import UsageError
from peftkit.plugins import find, plugin_names
from peftkit.plugins.rendering import Rendering
from peftkit.plugins.speed import Speed
from peftkit.recipe.data_section import SPLITS
from peftkit.recipe.docstrings import field_docs
from peftkit.recipe.kinds import Kind, matches, to_json_schema
from peftkit.recipe.schema import (
    AuditSection,
    EarlyStoppingSection,
    EvaluateSection,
    FullSection,
    ModelSection,
    PerEpochSection,
    RowsSection,
    StopAboveSection,
    TokenizerAt,
)
from peftkit.recipe.sections import REQUIRED, SECTIONS, TOKENIZERS
from peftkit.recipe.signatures import (
    Option,
    Signature,
    load_class,
    model_config_classes,
    signature_of,
)
from peftkit.recipe.split_values import EXAMPLES
from peftkit.recipe.strict import bound_of, kind_of
from peftkit.recipe.tables import OWNED, owned_by

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_DOC_CHARS = 300
"""Longer descriptions hide what an editor shows them over."""

Schema = dict[str, Any]


def json_schema() -> Schema:
    """Return the schema of a recipe with the options of every plugin that is installed here."""
    writer = _Writer()
    properties = {
        "name": {"type": "string"},
        "model": writer.model(),
        "data": writer.data(),
        "adapter": writer.adapter(),
        "method": writer.plugins("methods"),
        "early_stopping": writer.switch(EarlyStoppingSection),
        "per_epoch": writer.switch(PerEpochSection),
        "stop_above": writer.switch(StopAboveSection),
        "memory": {"type": "object", "properties": {"budget": {"type": ["string", "null"]}}},
        "speed": writer.speed(),
        "evaluate": writer.evaluate(),
    }
    for name, doc in SECTIONS.items():
        properties[name].setdefault("description", doc)
    properties["memory"]["additionalProperties"] = False
    return {
        "$schema": DIALECT,
        "title": "peftkit recipe",
        "type": "object",
        "properties": properties,
        "required": list(REQUIRED),
        "additionalProperties": False,
        "$defs": dict(sorted(writer.definitions.items())),
    }


class _Writer:
    """Turn signatures into schemas, each class once under `$defs`."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self.records: dict[str, str] = {}

    def model(self) -> Schema:
        """Return the schema of the section `model`."""
        schema = self._object(
            signature_of(ModelSection), replaced=("config", "tokenizer", "quantize")
        )
        config = {
            "type": "object",
            "properties": {"model_type": {"enum": sorted(model_config_classes())}},
            "required": ["model_type"],
        }
        schema["properties"]["config"] = config
        trained = self._one_key(
            {name: self._object(signature_of(cls)) for name, cls in TOKENIZERS.items()}
        )
        elsewhere = self._object(signature_of(TokenizerAt))
        schema["properties"]["tokenizer"] = {"anyOf": [trained, elsewhere]}
        schema["properties"]["quantize"] = self.plugins("quantizers")
        return schema

    def data(self) -> Schema:
        """Return the schema of the section `data`."""
        splits: Schema = {
            "type": "object",
            "properties": {name: {"type": ["string", "integer"]} for name in SPLITS},
            "description": EXAMPLES,
            "additionalProperties": False,
        }
        source, task = self.plugins("sources"), self.plugins("tasks")
        mixed: Schema = {
            "type": "object",
            "properties": {
                **source["properties"],
                "weight": {"type": "number", "exclusiveMinimum": 0, "default": 1},
                "task": task,
                "splits": splits,
            },
            "additionalProperties": False,
        }
        return {
            "type": "object",
            "properties": {
                "source": {"anyOf": [source, {"type": "array", "items": mixed, "minItems": 1}]},
                "splits": {**splits, "required": ["train"]},
                "task": task,
                "audit": self._object(signature_of(AuditSection)),
                "rows": self._object(signature_of(RowsSection)),
                "dialogue": self._object(signature_of(Rendering)),
            },
            "required": ["source"],
            "additionalProperties": False,
        }

    def adapter(self) -> Schema:
        """Return the schema of the section `adapter`, in its three forms."""
        continued = {
            "type": "object",
            "properties": {"from": {"type": "string"}},
            "required": ["from"],
            "additionalProperties": False,
        }
        part = {
            "type": "object",
            "properties": {"full": self._object(signature_of(FullSection))},
            "required": ["full"],
            "additionalProperties": False,
        }
        return {"anyOf": [{"const": "full"}, part, continued, self.plugins("adapters")]}

    def switch(self, section: type) -> Schema:
        """Return the schema of a section that a bare true or false switches too."""
        schema = self._object(signature_of(section))
        return {"anyOf": [{"type": "boolean"}, {"type": "null"}, schema]}

    def speed(self) -> Schema:
        """Return the schema of the section `speed`, whose switches may be booleans too."""
        schema = self._object(signature_of(Speed))
        for name in ("unpad", "fused_adapter"):
            words = schema["properties"].pop(name)
            doc = {"description": words.pop("description")} if "description" in words else {}
            schema["properties"][name] = {"anyOf": [words, {"type": "boolean"}], **doc}
        return schema

    def evaluate(self) -> Schema:
        """Return the schema of the section `evaluate`."""
        schema = self._object(signature_of(EvaluateSection), replaced=("generation",))
        schema["properties"]["generation"] = self._reference(
            signature_of("transformers:GenerationConfig", documented=True), OWNED["generation"]
        )
        return {"anyOf": [{"type": "boolean"}, {"type": "null"}, schema]}

    def plugins(self, group: str) -> Schema:
        """Return the one-key mapping of a group; a plugin that cannot be read takes anything."""
        choices: dict[str, Schema] = {}
        for name in plugin_names(group):
            try:
                plugin = find(group, name)
                signature = (
                    None if plugin.Config is None else signature_of(plugin.Config, documented=True)
                )
            except UsageError:
                choices[name] = {}
                continue
            if signature is not None:
                choices[name] = self._reference(signature, owned_by(group, plugin))
        return self._one_key(choices)

    def _one_key(self, choices: Mapping[str, Schema]) -> Schema:
        return {
            "type": "object",
            "properties": {
                name: {"anyOf": [schema, {"type": "null"}]} for name, schema in choices.items()
            },
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": False,
        }

    def _reference(self, signature: Signature, owned: Mapping[str, str]) -> Schema:
        name = signature.reference.replace(":", ".")
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self._object(signature, owned)
        return {"$ref": f"#/$defs/{name}"}

    def _object(
        self,
        signature: Signature,
        owned: Mapping[str, str] | None = None,
        replaced: Iterable[str] = (),
    ) -> Schema:
        left_out = {*(owned or {}), *replaced}
        options = [option for option in signature.options.values() if option.name not in left_out]
        docs = {} if signature.is_native else field_docs(load_class(signature.reference))
        schema: Schema = {
            "type": "object",
            "properties": {
                option.name: self._option(signature, option, docs.get(option.name, option.doc))
                for option in options
            },
            "additionalProperties": False,
        }
        required = [option.name for option in options if option.is_required]
        return {**schema, "required": required} if required else schema

    def _option(self, signature: Signature, option: Option, doc: str) -> Schema:
        kind = kind_of(signature, option)
        self._define_records(kind)
        schema = to_json_schema(kind, self.records)
        bound = bound_of(option.name)
        if bound is not None and not bound.also:
            low = "exclusiveMinimum" if bound.is_open_low else "minimum"
            high = "exclusiveMaximum" if bound.is_open_high else "maximum"
            limits = {low: bound.low, high: bound.high}
            schema = {**schema, **{k: v for k, v in limits.items() if abs(v) != float("inf")}}
        if option.has_default:
            default = option.default
            fits = matches(default, kind)
            is_bounded = bound is None or isinstance(default, (str, bool, type(None), list, dict))
            if not fits or not (is_bounded or bound is None or bound.holds(default)):
                schema = {"anyOf": [schema, {"const": default}]}
            schema = {**schema, "default": default}
        if doc:
            schema = {**schema, "description": doc[:MAX_DOC_CHARS]}
        return schema

    def _define_records(self, kind: Kind) -> None:
        for item in (kind, *kind.items):
            if item.record and item.record not in self.records:
                self.records[item.record] = item.record.replace(":", ".")
                self._reference(signature_of(item.record, documented=True), {})
