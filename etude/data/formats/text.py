"""Raw text: for pre-training, continued training, and general text beside a task."""

from typing import Any, ClassVar

from etude.data import records, values
from etude.data.formats.contract import Format


class Text(Format):
    """`text`: one document a row, of which every token is learnt."""

    kind: ClassVar[str] = "text"

    @classmethod
    def fits(cls, columns: frozenset[str], rows: list[dict[str, Any]]) -> frozenset[str]:
        return frozenset({"text"}) if "text" in columns else frozenset()

    def record(self, row: dict[str, Any]) -> records.Text:
        document = values.text(row, "text")
        if not document.strip():
            raise values.wrong("text", "blank")
        return records.Text(document)
