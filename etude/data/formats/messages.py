"""OpenAI's chat format: `messages` of `{role, content}`. https://platform.openai.com/docs/api-reference/fine-tuning/chat-input"""

from typing import Any, ClassVar

from etude.data import values
from etude.data.formats.contract import Format, some
from etude.data.records import Conversation


class Messages(Format):
    """`messages`, beside them `tools`; turns may hold `tool_calls`, and `train` or `weight` flags of their own."""

    kind: ClassVar[str] = "messages"

    @classmethod
    def fits(cls, columns: frozenset[str], rows: list[dict[str, Any]]) -> frozenset[str]:
        return frozenset({"messages"}) if "messages" in columns and some(rows, "messages", _looks_like_turns) else frozenset()

    def record(self, row: dict[str, Any]) -> Conversation:
        if "messages" not in row:
            raise values.wrong("messages", f"missing; the row has {', '.join(map(str, row)) or 'no columns'}")
        return Conversation(values.messages(row["messages"], "messages"), values.tools(row))


def _looks_like_turns(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]
