"""Texts with a class each. https://huggingface.co/docs/transformers/tasks/sequence_classification"""

from typing import Any, ClassVar

from etude.data import values
from etude.data.formats.contract import Format
from etude.data.records import Completion


class Labelled(Format):
    """`text` (or `prompt`) and `label`, a word or a number; perhaps `system`. Never found by itself: name it."""

    kind: ClassVar[str] = "labelled"

    @classmethod
    def fits(cls, columns: frozenset[str], rows: list[dict[str, Any]]) -> frozenset[str]:
        return frozenset()  # `text` beside some other column has always been raw text

    def record(self, row: dict[str, Any]) -> Completion:
        column, label = "prompt" if row.get("text") is None else "text", row.get("label")
        if label is None or not str(label).strip():
            raise values.wrong("label", "missing")
        if not isinstance(label, (str, int, float)):
            raise values.wrong("label", f"{values.named(label)}, not a word or a number")
        return Completion(values.text(row, column), str(label), values.optional_text(row, "system"))
