"""The whole recipe as JSON Schema (draft 2020-12), the catalog's leaves with all their options included, for editors."""

from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

from etude.recipe.schema import Recipe
from etude.recipe.strict import Leaf, Strict, Tables, leaf_class

Json = dict[str, Any]

_REFERENCE = {"type": "string", "pattern": r"^\$\{[^{}]+\}$", "description": "The value of another key of this recipe: `${path.to.key}`."}
_EXTENDS = {
    "description": "A recipe to start from, or several: relative to this file, or a bare name of one that comes with etude.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}


def json_schema(tables: Tables, model: type[Strict] = Recipe) -> Json:
    """What an editor should check a recipe against.

    Looser than loading in two ways, because an editor sees one file before anything is resolved: any value may be a
    `${…}`, and where a file extends another one nothing in it has to be complete.
    """
    schema = described(tables, model)
    required = _lift_required(schema, schema["$defs"])
    for definition in [schema, *schema["$defs"].values()]:
        for holder in _objects(definition):
            holder["properties"] = {name: _or_reference(value) for name, value in holder["properties"].items()}
    schema["properties"] = {"extends": _EXTENDS, **schema["properties"]}
    schema["$defs"]["reference"] = _REFERENCE
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "etude recipe" if model is Recipe else f"etude {model.__name__.lower()} recipe",
        "if": {"not": {"required": ["extends"]}},
        "then": required,
    }


def described(tables: Tables, model: type[Strict] = Recipe) -> Json:
    """The recipe as it is once resolved; `$defs` holds each model, each table and each leaf (`table.name`)."""
    schema = model.model_json_schema()
    definitions = schema["$defs"]
    used: dict[str, str | None] = {}
    for place in _walk(schema):
        if table := place.pop("x-table", None):
            used[table] = place.pop("x-usual") or used.get(table)
            place["$ref"] = f"#/$defs/{table}"
    for table, usual in used.items():
        names = list(tables[table])
        leaves = [{"$ref": f"#/$defs/{table}.{name}"} for name in names]
        definitions[table] = {"oneOf": [{"type": "string", "enum": names}, *leaves]}
        for name in names:
            definitions[f"{table}.{name}"] = _leaf(leaf_class(tables, table, name), name, name == usual, definitions)
    for definition in _walk(schema):
        for field in definition.get("properties", {}).values():
            field.pop("title", None)
        if len(named := definition.pop("patternProperties", {})) == 1:  # names of one's own; others would pass unchecked
            [(pattern, values)] = named.items()
            definition |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}
    return schema


def _leaf(leaf: type[Leaf], name: str, usual: bool, definitions: Json) -> Json:
    schema = leaf.model_json_schema()
    definitions.update(schema.pop("$defs", {}))
    kind = {"const": name, "description": "May be left out: the usual kind." if usual else "The name in the catalog."}
    schema["properties"] = {"kind": kind, **schema.get("properties", {})}
    schema["required"] = [*([] if usual else ["kind"]), *schema.get("required", [])]
    schema["description"] = cleandoc(leaf.__doc__ or "")
    return schema


def _walk(schema: Any) -> Iterator[Json]:
    """Every mapping inside a schema, the outer ones first."""
    if isinstance(schema, dict):
        yield schema
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _walk(inner)


def _objects(schema: Json) -> list[Json]:
    """The parts of a definition that describe a mapping with named keys."""
    return [part for part in (schema, *schema.get("anyOf", ())) if "properties" in part]


def _or_reference(schema: Json) -> Json:
    if "const" in schema or (schema.get("type") == "string" and not {"enum", "pattern"} & set(schema)):
        return schema
    kept = {key: schema[key] for key in ("description", "default") if key in schema}
    return {**kept, "anyOf": [{key: value for key, value in schema.items() if key not in kept}, {"$ref": "#/$defs/reference"}]}


def _lift_required(schema: Json, definitions: Json) -> Json:
    """Takes `required` out of what files are merged by, key by key, and returns it as one condition for a whole recipe."""
    if "$ref" in schema:
        return _lift_required(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
    inside = {name: found for name, field in schema.get("properties", {}).items() if (found := _lift_required(field, definitions))}
    lifted: Json = {"required": required} if (required := schema.pop("required", None)) else {}
    if inside:
        lifted["properties"] = inside
    if isinstance(schema.get("additionalProperties"), dict) and (found := _lift_required(schema["additionalProperties"], definitions)):
        lifted["additionalProperties"] = found
    return lifted
