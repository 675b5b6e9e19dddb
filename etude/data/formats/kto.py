"""Single answers, each liked or not. https://huggingface.co/docs/trl/dataset_formats#unpaired-preference"""

from typing import Any, ClassVar

from etude.data import values
from etude.data.formats.contract import Format, some
from etude.data.formats.messages import Messages
from etude.data.formats.prompt_completion import PromptCompletion
from etude.data.records import Conversation, Message, Rated


class KTO(Format):
    """`prompt`, `completion` and a true/false `label`; or `messages` whose last turn is rated by `label`."""

    kind: ClassVar[str] = "kto"

    @classmethod
    def fits(cls, columns: frozenset[str], rows: list[dict[str, Any]]) -> frozenset[str]:
        if "label" not in columns or not some(rows, "label", _is_flag):
            return frozenset()
        return next((used | {"label"} for other in (Messages, PromptCompletion) if (used := other.fits(columns, rows))), frozenset())

    def record(self, row: dict[str, Any]) -> Rated:
        if row.get("label") is None:
            raise values.wrong("label", "missing")
        label = values.flag(row["label"], "label")
        if row.get("messages") is None:
            return Rated(PromptCompletion().record(row), label)
        rated = Messages().record(row)
        *before, last = rated.messages
        if last.role != "assistant":
            raise values.wrong("messages", f"ends in a turn of {last.role}; the label rates the assistant's last turn")
        earlier = (Message(m.role, m.content, False, m.extra) for m in before)
        return Rated(Conversation((*earlier, last), rated.tools), label)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false"))
