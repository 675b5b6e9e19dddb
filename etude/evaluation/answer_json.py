"""Is an answer one JSON value, and which label does it hold? Strict, as a program that reads it would be."""

import json
from typing import Any


def parse_strictly(text: str) -> Any:
    """The one JSON value that `text` is, surrounding whitespace aside. ValueError says what is not JSON about it.

    Stricter than `json.loads`, which takes NaN and Infinity (not JSON, RFC 8259 §6) and keeps the last of two equal
    keys (unpredictable, §4). A value nested too deeply to read is refused too.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def first_object(text: str) -> dict[str, Any]:
    """The first JSON object anywhere in `text`. ValueError where there is none."""
    decoder = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    start = text.find("{")
    while start >= 0:
        try:
            return decoder.raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
    raise ValueError("no JSON object in the answer")


def label_in(value: Any, field: str) -> str:
    """The value of `field` as a label: strings stripped, anything else as compact JSON. ValueError where there is none."""
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object but {json_type(value)}")
    if field not in value:
        raise ValueError(f"no field {field!r}, only {', '.join(map(repr, value)) or 'nothing'}")
    label = value[field]
    return label.strip() if isinstance(label, str) else json.dumps(label, sort_keys=True, ensure_ascii=False)


def json_type(value: Any) -> str:
    """The name of a parsed value's type as JSON Schema calls it; whole numbers are `integer`."""
    if isinstance(value, bool):  # before int: a bool is one in Python
        return "boolean"
    names = {dict: "object", list: "array", str: "string", int: "integer", float: "number", type(None): "null"}
    return names[type(value)]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        raise ValueError("a key occurs twice")
    return keys
