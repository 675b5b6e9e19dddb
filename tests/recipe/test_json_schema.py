"""The schema for editors says yes and no where loading does."""

import json
import re

import pytest
from conftest import MINIMAL
from recipe_leaves import TABLES
from test_recipe_mutations import WHOLE

from etude.catalog import FORMATS
from etude.errors import RecipeError
from etude.recipe.data import Source
from etude.recipe.document import Problems, read
from etude.recipe.json_schema import json_schema
from etude.recipe.load import load

# The leaf that cannot be imported has no options to list.
LISTED = {**TABLES, "tracker": {"board": TABLES["tracker"]["board"]}}
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}


def fits(value: object, schema: dict, root: dict) -> bool:
    """The part of draft 2020-12 that the schema uses, after the specification."""
    if "$ref" in schema and not fits(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root):
        return False
    if "type" in schema and not (isinstance(value, TYPES[schema["type"]]) and (schema["type"] == "boolean" or not isinstance(value, bool))):
        return False
    if "anyOf" in schema and not any(fits(value, one, root) for one in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(fits(value, one, root) for one in schema["oneOf"]) != 1:
        return False
    if "not" in schema and fits(value, schema["not"], root):
        return False
    if "if" in schema and fits(value, schema["if"], root) and not fits(value, schema["then"], root):
        return False
    return _object(value, schema, root) and _list(value, schema, root) and _single(value, schema)


def _object(value: object, schema: dict, root: dict) -> bool:
    if not isinstance(value, dict):
        return True
    known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    inside = all(
        fits(inner, known[key], root) if key in known else rest if isinstance(rest, bool) else fits(inner, rest, root)
        for key, inner in value.items()
    )
    named = all(re.search(schema["propertyNames"]["pattern"], key) for key in value) if "propertyNames" in schema else True
    return inside and named and set(schema.get("required", ())) <= set(value) and len(value) >= schema.get("minProperties", 0)


def _list(value: object, schema: dict, root: dict) -> bool:
    if not isinstance(value, list):
        return True
    return len(value) >= schema.get("minItems", 0) and all(fits(item, schema.get("items", {}), root) for item in value)


def _single(value: object, schema: dict) -> bool:
    if ("enum" in schema and value not in schema["enum"]) or ("const" in schema and value != schema["const"]):
        return False
    if isinstance(value, str):
        return len(value) >= schema.get("minLength", 0) and re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, (int, float)):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        return (
            low <= value <= high and value > schema.get("exclusiveMinimum", value - 1) and value < schema.get("exclusiveMaximum", value + 1)
        )
    return True


def plain(text: str) -> object:
    return read(text, "f", "/", Problems()).plain()


def test_it_is_plain_json_of_the_right_draft() -> None:
    schema = json_schema(LISTED)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(schema)) == schema
    assert "x-table" not in json.dumps(schema)
    assert schema["$defs"]["adaptation"]["oneOf"][0] == {"type": "string", "enum": ["full", "lora"]}
    assert schema["$defs"]["adaptation.lora"]["properties"]["rank"]["description"] == "Of every delta."


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (WHOLE, True),
        (MINIMAL, True),
        (MINIMAL + "    train: {schedule: {warmup: 3}, epochs: 2, learning_rate: '${stages.first.train.epochs}'}\n", True),
        (MINIMAL + "      held_out: 5\n", True),
        (MINIMAL + "      held_out: other.jsonl\n", True),
        (MINIMAL + "      held_out: 1.5\n", False),
        (MINIMAL + "    adapt: {kind: lora, rank: 0}\n", False),
        (MINIMAL + "    adapt: {kind: full, rank: 1}\n", False),
        (MINIMAL + "    adapt: {rank: 1}\n", True),
        (MINIMAL + "    adapt: qlora\n", False),
        (MINIMAL + "    objective: {beta: 0.2}\n", False),
        (MINIMAL + "    train: {trackers: [{project: a}]}\n", False),
        (MINIMAL + "    train: {trackers: [{kind: board}]}\n", False),
        (MINIMAL + "    train: {epochs: '3'}\n", False),
        (MINIMAL + "    train: {epoch: 3}\n", False),
        (MINIMAL + "  Bad Name: {data: {sources: x}}\n", False),
        ("base: b\nstages: {s: {}}\n", False),
        ("stages: {s: {data: {sources: x}}}\n", False),
        ("base: b\nstages: {s: {data: {sources: []}}}\n", False),
        ("base: b\nstages: {s: {data: {sources: [{limit: 3}]}}}\n", False),
    ],
)
def test_it_agrees_with_loading(write, text: str, right: bool) -> None:
    schema = json_schema(LISTED)
    try:
        load(write(text), tables=LISTED)
        loads = True
    except RecipeError:
        loads = False
    assert (fits(plain(text), schema, schema), loads) == (right, right)


def test_a_file_that_extends_another_need_not_be_whole() -> None:
    schema = json_schema(LISTED)
    assert fits(plain("extends: other.yaml\nstages: {s: {train: {epochs: 2}}}\n"), schema, schema)
    assert not fits(plain("stages: {s: {train: {epochs: 2}}}\n"), schema, schema)


def test_formats_are_those_of_the_catalog() -> None:
    assert set(Source.model_fields["format"].annotation.__args__) == {"auto", *FORMATS}
