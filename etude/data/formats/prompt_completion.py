"""A prompt and its completion, as texts or as messages. https://huggingface.co/docs/trl/dataset_formats#prompt-completion"""

from typing import Any, ClassVar

from etude.data import values
from etude.data.formats.contract import Format
from etude.data.formats.sharegpt import with_system
from etude.data.records import Completion, Conversation, Message


class PromptCompletion(Format):
    """`prompt` and `completion`: text beside text, or messages; perhaps `system` and `tools`. Only the completion is learnt."""

    kind: ClassVar[str] = "prompt-completion"

    @classmethod
    def fits(cls, columns: frozenset[str], rows: list[dict[str, Any]]) -> frozenset[str]:
        return frozenset({"prompt", "completion"}) if {"prompt", "completion"} <= columns else frozenset()

    def record(self, row: dict[str, Any]) -> Completion | Conversation:
        for field in ("prompt", "completion"):
            if row.get(field) is None:
                raise values.wrong(field, "missing")
        if not isinstance(row["prompt"], (list, dict)) and not isinstance(row["completion"], (list, dict)):
            return Completion(values.text(row, "prompt"), values.text(row, "completion"), values.optional_text(row, "system"))
        prompt, completion = _side(row, "prompt", "user"), _side(row, "completion", "assistant")
        if completion[0].role != "assistant":
            raise values.wrong("completion", f"begins with {completion[0].role}, not with the assistant")
        asked = tuple(Message(m.role, m.content, False, m.extra) for m in with_system(row, prompt))
        return Conversation((*asked, *completion), values.tools(row))


def _side(row: dict[str, Any], field: str, role: str) -> tuple[Message, ...]:
    return values.messages(row[field], field) if isinstance(row[field], (list, dict)) else (Message(role, values.text(row, field)),)
