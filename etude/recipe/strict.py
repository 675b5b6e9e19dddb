"""The one base of everything that a recipe can spell: unknown keys are errors, fields explain themselves.

Beside it stand the marks that a field may carry for the loader: a choice from the catalog, one or many, a path.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Tables = Mapping[str, Mapping[str, str]]
"""`etude.catalog.TABLES`: table → name → "module:Class"."""


class Strict(BaseModel):
    """Frozen, no unknown keys, no infinities, the sentence under each field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    short: ClassVar[str | None] = None
    """The field that a bare text stands for, where one may be written instead of the mapping."""

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        return {cls.short: value} if cls.short and isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        return {"anyOf": [{"type": "string"}, schema]} if cls.short else schema


class Leaf(Strict):
    """A thing that the catalog names: an objective, an adaptation, a metric … Its fields are its options."""

    kind: ClassVar[str]
    """The name in the catalog."""

    @model_serializer(mode="wrap")
    def _with_kind(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"kind": self.kind, **fields(self)}


def leaf_class(tables: Tables, table: str, kind: str) -> type[Leaf]:
    """The class that `tables` names; KeyError where they name none, ImportError where it cannot be imported here."""
    module, attribute = tables[table][kind].split(":")
    return getattr(import_module(module), attribute)


@dataclass(frozen=True)
class OneOf:
    """Marks a field whose value is a leaf of `table`; `usual` is its kind where none is written."""

    table: str
    usual: str | None = None

    def validate(self, value: Any, info: ValidationInfo) -> Leaf:
        """A name or a mapping of options as the leaf it means; what comes from a file (JSON mode) is taken strictly."""
        if isinstance(value, Leaf):
            return value
        options = {"kind": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else None
        if options is None:
            raise PydanticCustomError("leaf_type", "should be a name or a mapping with `kind`")
        tables = (info.context or {}).get("tables")
        if tables is None:
            raise PydanticCustomError("leaf_tables", "cannot be looked up: validate with context={{'tables': etude.catalog.TABLES}}")
        known = tables.get(self.table, {})
        kind = options.pop("kind", self.usual)
        if kind is None:
            raise PydanticCustomError("leaf_kind_missing", "`kind` is missing; one of: {known}", {"known": ", ".join(known)})
        if not isinstance(kind, str) or kind not in known:
            context = {"kind": repr(kind), "known": ", ".join(known), "names": list(known)}
            raise PydanticCustomError("leaf_kind", "unknown kind {kind}; one of: {known}", context)
        try:
            leaf = leaf_class(tables, self.table, kind)
        except ImportError as error:
            raise PydanticCustomError("leaf_import", "{kind} cannot be used here: {error}", {"kind": kind, "error": str(error)}) from error
        if info.mode == "json":
            return leaf.model_validate_json(json.dumps(options), strict=True, context=info.context)
        return leaf.model_validate(options, context=info.context)


def one_of(table: str, usual: str | None = None) -> Any:
    """An annotation: a mapping `{kind: name, …options}` (or just the name) becomes the leaf that `table` names.

    The tables come in through the validation context (`{"tables": catalog.TABLES}`), so this storey imports none of
    the classes it validates. Instances pass through, for recipes written in Python. `usual` is the kind of a mapping
    that names none.
    """
    mark = OneOf(table, usual)
    return Annotated[SerializeAsAny[Leaf], mark, PlainValidator(mark.validate), WithJsonSchema({"x-table": table, "x-usual": usual})]


@dataclass(frozen=True)
class OneOrMany:
    """Marks a list for which a single item will do."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        many = handler(source)
        either = core_schema.union_schema([handler.generate_schema(get_args(source)[0]), many])
        return core_schema.no_info_before_validator_function(self.listed, many, json_schema_input_schema=either)

    @staticmethod
    def listed(value: Any) -> Any:
        """`value` as a list."""
        return list(value) if isinstance(value, (list, tuple)) else [value]


@dataclass(frozen=True)
class Located:
    """Marks a text that names a file: the loader makes it absolute from the folder of the file it was written in.

    `always` does so to all but `package:` and `hub:`; `model` only to what is evidently a path, since it may be a hub id.
    """

    rule: Literal["always", "model"]


FileText = Annotated[str, Field(min_length=1), Located("always")]
ModelText = Annotated[str, Field(min_length=1), Located("model")]
