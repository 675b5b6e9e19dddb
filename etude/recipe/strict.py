"""The one base of everything that a recipe can spell: unknown keys are errors, fields explain themselves."""

from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, PlainValidator, SerializeAsAny, SerializerFunctionWrapHandler, ValidationInfo, model_serializer
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """Frozen, no unknown keys, the sentence under each field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Leaf(Strict):
    """A thing that the catalog names: an objective, an adaptation, a metric … Its fields are its options."""

    kind: ClassVar[str]
    """The name in the catalog."""

    @model_serializer(mode="wrap")
    def _with_kind(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"kind": self.kind, **fields(self)}


def one_of(table: str) -> Any:
    """An annotation: a mapping `{kind: name, …options}` (or just the name) becomes the leaf that `table` names.

    The tables come in through the validation context (`{"tables": catalog.TABLES}`), so this storey imports none of
    the classes it validates. Instances pass through, for recipes written in Python.
    """

    def validate(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, Leaf):
            return value
        options = {"kind": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else None
        if options is None:
            raise PydanticCustomError("leaf_type", "should be a name or a mapping with `kind`")
        known = (info.context or {}).get("tables", {}).get(table, {})
        kind = options.pop("kind", None)
        if kind is None:
            raise PydanticCustomError("leaf_kind_missing", "`kind` is missing; one of: {known}", {"known": ", ".join(known)})
        if kind not in known:
            raise PydanticCustomError("leaf_kind", "unknown kind {kind}; one of: {known}", {"kind": repr(kind), "known": ", ".join(known)})
        module, attribute = known[kind].split(":")
        return getattr(import_module(module), attribute).model_validate(options, context=info.context)

    return Annotated[SerializeAsAny[Leaf], PlainValidator(validate)]
