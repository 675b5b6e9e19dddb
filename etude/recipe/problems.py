"""What do validation's complaints mean, in plain words and with their places?"""

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from etude.recipe.document import Node, Path, Place, Problems, scalar
from etude.recipe.shape import Shape, below, class_at
from etude.recipe.strict import Tables
from etude.recipe.suggest import choice, known_at, meant

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
    "leaf_type": "a name, or a mapping with `kind`",
}
_YES, _NO = ("yes", "y", "on", "1"), ("no", "n", "off", "0")


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a complaint belongs. `node` is the deepest value that exists on the way there; `rest` what lay beyond."""

    path: Path
    node: Node
    shape: Shape
    rest: Path


def explain(error: ValidationError, root: Node, shape: Shape, tables: Tables, problems: Problems) -> None:
    """Adds what is wrong to `problems`.

    Left out is what only follows from something reported already: a value that could not be read, or a key that is
    missing because it was misspelt.
    """
    answered: set[Path] = set()
    missing: list[tuple[Place, Path, str]] = []
    others: dict[Path, list[tuple[_Spot, Any]]] = defaultdict(list)
    for complaint in error.errors(include_url=False, include_input=False):
        spot = _locate(complaint.get("ctx", {}).get("at", complaint["loc"]), root, shape, tables)
        if complaint["type"] not in ("missing", "extra_forbidden") and _has_broken(spot.node):
            continue
        if complaint["type"] == "missing":
            path = (*spot.path, str(spot.rest[-1]))
            missing.append((spot.node.key or spot.node.place, path, _missing(spot, tables)))
        elif complaint["type"] == "extra_forbidden":
            above = _locate(spot.path[:-1], root, shape, tables)
            hint, targets = meant(str(spot.path[-1]), above.path, known_at(above.shape, above.node, tables), root, shape, tables)
            answered.update(targets)
            problems.add(spot.node.key or spot.node.place, spot.path, "unknown key" + (f"; {hint}" if hint else ""))
        else:
            others[spot.path].append((spot, complaint))
    problems.found += [_wrong(path, complaints) for path, complaints in others.items()]
    problems.found += [one for one in missing if one[1] not in answered and not problems.partial]


def _locate(loc: Path, root: Node, shape: Shape, tables: Tables) -> _Spot:
    node = root
    path: Path = ()
    rest: Path = ()
    for part in loc:
        if part not in node.inside:
            rest = (*rest, part)  # a name for a member of a union, or a key that is not there
            continue
        shape = below(shape, part, node, tables)
        node = node.inside[part]
        path = (*path, part)
    return _Spot(path, node, shape, rest)


def _has_broken(node: Node) -> bool:
    return node.broken or any(map(_has_broken, node.inside.values()))


def _missing(spot: _Spot, tables: Tables) -> str:
    found = class_at(spot.shape, spot.node, tables)
    field = found.model_fields.get(str(spot.rest[-1])) if found else None
    return "is missing" + (f": {' '.join(field.description.split())}" if field and field.description else "")


def _wrong(path: Path, complaints: list[tuple[_Spot, Any]]) -> tuple[Place, Path, str]:
    """One line for all that is said of one value; of a union's members, what comes closest to what was written."""
    node = complaints[0][0].node
    place, value = node.place, node.value
    said = [complaint for _, complaint in complaints]
    if any(complaint["loc"][-1:] == ("[key]",) for complaint in said):
        return node.key or place, path, _constraint(said[0], path[-1])
    if kinds := [complaint for complaint in said if complaint["type"].startswith("leaf_kind")]:
        if kind := node.inside.get("kind"):
            place, path, value = kind.place, (*path, "kind"), kind.value
        hint = choice(value, kinds[0].get("ctx", {}).get("names", ())) if isinstance(value, str) else ""
        return place, path, kinds[0]["msg"] + hint
    wanted = [_WANTED[complaint["type"]] for complaint in said if complaint["type"] in _WANTED]
    literals = [word for complaint in said if complaint["type"] == "literal_error" for word in _words(complaint)]
    if literals:
        wanted.append(("one of " if len(literals) > 1 else "") + ", ".join(f"`{word}`" for word in literals))
    beyond = [complaint for complaint in said if complaint["type"] not in (*_WANTED, "literal_error")]
    if beyond:
        return place, path, "; ".join(dict.fromkeys(_constraint(complaint, value) for complaint in beyond))
    hint = choice(value, literals) if isinstance(value, str) else ""
    return place, path, f"expected {' or '.join(dict.fromkeys(wanted))}, got {plainly(value)}{hint or _repair(value, wanted)}"


def _words(complaint: Any) -> list[str]:
    return re.findall(r"'([^']*)'", complaint["ctx"]["expected"])


def _constraint(complaint: Any, value: object) -> str:
    kind, context = complaint["type"], complaint.get("ctx", {})
    if kind == "string_pattern_mismatch":
        slug = re.sub(r"[^a-z0-9_-]+", "-", str(value).lower()).strip("-_")
        return f"should be lower-case letters, digits, `-` and `_`, got {plainly(value)}" + (f"; did you mean `{slug}`?" if slug else "")
    if kind in ("too_short", "string_too_short"):
        return "may not be empty"
    if kind == "value_error":
        return str(context["error"])
    text = complaint["msg"].replace("Input should be", "should be")
    return f"{text}, got {plainly(value)}" if text.startswith("should be") else text


def plainly(value: object) -> str:
    """A value as a person would call it."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else f"the text {value[:57]!r}…"
    return "a mapping" if isinstance(value, dict) else "a list"


def _repair(value: object, wanted: list[str]) -> str:
    """`; did you mean …?` for a value that was written in the wrong form."""
    if value is None:
        return "; leave the key out for its default"
    if "text" in wanted and isinstance(value, (bool, int, float)):
        return "; put it in quotes"
    if "true or false" in wanted and str(value).lower() in _YES + _NO:
        return f"; did you mean `{'true' if str(value).lower() in _YES else 'false'}`?"
    if isinstance(value, str) and ("a number" in wanted or "a whole number" in wanted):
        try:
            number = scalar(value.strip().replace("_", "").replace(",", ""))
        except OverflowError:
            return ""
        return f"; did you mean {number}, without quotes or separators?" if isinstance(number, (int, float)) and number is not True else ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"; did you mean {int(value)}?"
    return ""
