"""Is this value what the field may hold? Checks that formats share; each names the field and says what it found."""

import json
from typing import Any

from etude.data.records import Message, RowError

FORMAT = "rows that do not fit their format"
ROLES = ("system", "developer", "user", "assistant", "tool")


def wrong(field: str, message: str, remedy: str = "") -> RowError:
    """The error for a field that cannot be used, to be raised."""
    return RowError(FORMAT, f"{field}: {message}", remedy or "mend the row, or set `bad_rows: drop` to leave such rows out, counted")


def named(value: object) -> str:
    """What a value is, in the words of JSON."""
    if value is None:
        return "null"
    names: dict[type, str] = {str: "text", bool: "true/false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def text(row: dict[str, Any], field: str) -> str:
    """Text that must be there. A whole number is taken as its digits: tables hold labels that way."""
    if field not in row:
        raise wrong(field, f"missing; the row has {', '.join(map(str, row)) or 'no columns'}")
    value = row[field]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise wrong(field, f"{named(value)} where text is needed")
    return value


def optional_text(row: dict[str, Any], field: str) -> str | None:
    """Text, or None where the field is missing, null or blank."""
    if row.get(field) is None:
        return None
    return text(row, field) if row[field] != "" else None


def flag(value: object, field: str) -> bool:
    """true/false, 1/0, or the words."""
    known = {True: True, False: False, "true": True, "false": False}
    key = value.lower() if isinstance(value, str) else value
    if not isinstance(key, (bool, int, float, str)) or key not in known:
        raise wrong(field, f"{value!r} where true or false is needed")
    return known[key]


def listed(value: object, field: str) -> list[Any]:
    """The value, where it is a list; otherwise RowError."""
    if not isinstance(value, (list, tuple)):
        raise wrong(field, f"{named(value)} where a list is needed")
    return list(value)


def mapping(value: object, field: str) -> dict[str, Any]:
    """The value, where it is an object; otherwise RowError."""
    if not isinstance(value, dict):
        raise wrong(field, f"{named(value)} where an object is needed")
    return value


def from_json(value: object, field: str) -> Any:
    """Lists and objects are often stored as JSON text inside a column."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise wrong(field, f"not JSON: {error}") from error


def content(value: object, field: str) -> str:
    """Text, or OpenAI's list of parts as long as every part is text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = []
    for i, part in enumerate(listed(value, field)):
        part = mapping(part, f"{field}[{i}]")
        if part.get("type", "text") != "text":
            raise wrong(f"{field}[{i}]", f"a part of type {part['type']!r}; models of text are trained here")
        parts.append(text(part, "text"))
    return "".join(parts)


def tools(row: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The functions an assistant may call: a list of JSON schemas, or that list as JSON text."""
    value = row.get("tools")
    if value is None or value in ("", [], ()):
        return ()
    found = []
    for i, tool in enumerate(listed(from_json(value, "tools"), "tools")):
        function = mapping(mapping(tool, f"tools[{i}]").get("function", tool), f"tools[{i}].function")
        if not isinstance(function.get("name"), str):
            raise wrong(f"tools[{i}].name", f"{named(function.get('name'))} where the function's name is needed")
        found.append(tool if "function" in tool else {"type": "function", "function": tool})
    return tuple(found)


def tool_call(value: object, field: str) -> dict[str, Any]:
    """`{name, arguments}`, or OpenAI's `{type, function: {…}}`; arguments given as JSON text become an object, as templates want."""
    call = mapping(from_json(value, field), field)
    function = mapping(call["function"], f"{field}.function") if "function" in call else call
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise wrong(f"{field}.arguments", "text that is not JSON") from None
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise wrong(f"{field}.name", f"{named(name)} where the function's name is needed")
    given = {} if arguments is None else mapping(arguments, f"{field}.arguments")
    identity = {"id": call["id"]} if call.get("id") is not None else {}
    return {"type": "function", **identity, "function": {"name": name, "arguments": given}}


def message(value: object, field: str) -> Message:
    """One message: `{role, content}` in OpenAI's words, or `{from, value}` in ShareGPT's."""
    turn = mapping(value, field)
    return _openai(turn, field) if "role" in turn or "from" not in turn else _sharegpt(turn, field)


def messages(value: object, field: str) -> tuple[Message, ...]:
    """A list of messages, or a single one."""
    value = from_json(value, field) if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") else value
    if isinstance(value, dict):
        return (message(value, field),)
    turns = tuple(message(turn, f"{field}[{i}]") for i, turn in enumerate(listed(value, field)))
    if not turns:
        raise wrong(field, "an empty list where messages are needed")
    return turns


def _train(turn: dict[str, Any], field: str) -> bool | None:
    """`train`, or OpenAI's `weight` of 0 or 1."""
    flags = {name: flag(turn[name], f"{field}.{name}") for name in ("train", "weight") if turn.get(name) is not None}
    if len(set(flags.values())) > 1:
        raise wrong(field, "`train` and `weight` say different things")
    return next(iter(flags.values()), None)


def _openai(turn: dict[str, Any], field: str) -> Message:
    role = turn.get("role")
    if role not in ROLES:
        raise wrong(f"{field}.role", f"{role!r}; known: {', '.join(ROLES)}" if "role" in turn else "missing")
    extra = _extra(turn, ("role", "content", "train", "weight", "tool_calls", "function_call"))
    calls = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") is not None else [])
    if calls:
        extra["tool_calls"] = [tool_call(call, f"{field}.tool_calls[{i}]") for i, call in enumerate(listed(calls, f"{field}.tool_calls"))]
    if turn.get("content") is None and not calls and not any(extra.get(key) for key in ("reasoning_content", "reasoning", "thinking")):
        raise wrong(f"{field}.content", "missing")
    return Message(role, content(turn.get("content"), f"{field}.content"), _train(turn, field), extra)


SHAREGPT = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "observation": "tool"}


def _sharegpt(turn: dict[str, Any], field: str) -> Message:
    who = turn["from"]
    role = SHAREGPT.get(who, who) if isinstance(who, str) else who
    said = turn.get("value")
    if role == "function_call":
        calls = from_json(said, f"{field}.value")
        calls = calls if isinstance(calls, list) else [calls]
        called = [tool_call(call, f"{field}.value") for call in calls]
        if not called:
            raise wrong(f"{field}.value", "no call in it")
        return Message("assistant", "", _train(turn, field), {"tool_calls": called})
    if role not in ROLES:
        raise wrong(f"{field}.from", f"{who!r}; known: {', '.join((*SHAREGPT, 'function_call', *ROLES))}")
    if not isinstance(said, str):
        raise wrong(f"{field}.value", f"{named(said)} where text is needed" if "value" in turn else "missing")
    return Message(role, said, _train(turn, field), _extra(turn, ("from", "value", "train", "weight")))


def _extra(turn: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in turn.items() if key not in known and value is not None}
