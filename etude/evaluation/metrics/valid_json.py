"""Valid JSON: the whole answer is one JSON value of the wanted shape. RFC 8259, https://www.rfc-editor.org/rfc/rfc8259"""

from typing import Any, ClassVar, Literal

from etude.evaluation.answer_json import json_type, parse_strictly
from etude.evaluation.metric import Metric, Reading

JSONType = Literal["string", "number", "integer", "boolean", "array", "object", "null"]


class ValidJSON(Metric):
    """Share of answers that are one JSON value and nothing else, with the keys that a program reading them needs."""

    kind: ClassVar[str] = "valid-json"
    keys: list[str] | None = None
    """Keys that the object must have; by default those of the expected answer, where that is an object."""
    types: dict[str, JSONType] = {}
    """JSON types of some keys, as JSON Schema calls them; a key named here must be there."""

    @property
    def title(self) -> str:
        keys = [f"“{key}”" for key in self.keys or () if key not in self.types]
        keys += [f"“{key}” ({kind})" for key, kind in self.types.items()]
        if keys:
            return f"valid JSON with {', '.join(keys)}"
        return "valid JSON" if self.keys is None else "valid JSON object"

    def read(self, expected: str, answer: str) -> Reading:
        needed = self._needed(expected)
        try:
            value = parse_strictly(answer)
        except ValueError:
            return Reading(False, "", None)
        return Reading(self._fits(value, needed), "", answer)

    def _needed(self, expected: str) -> list[str] | None:
        """Keys that an object must have; None where any JSON value will do."""
        if self.keys is not None or self.types:
            return [*(self.keys or []), *self.types]
        try:
            value = parse_strictly(expected)
        except ValueError:
            return None
        return list(value) if isinstance(value, dict) else None

    def _fits(self, value: Any, needed: list[str] | None) -> bool:
        if needed is None:
            return True
        if not isinstance(value, dict) or any(key not in value for key in needed):
            return False
        found = {key: json_type(value[key]) for key in self.types}
        return all(found[key] == wanted or (found[key], wanted) == ("integer", "number") for key, wanted in self.types.items())
