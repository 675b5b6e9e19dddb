"""ShareGPT's format: `conversations` of `{from, value}`. https://llamafactory.readthedocs.io/en/latest/getting_started/data_preparation.html"""

from typing import Any, ClassVar

from etude.data import values
from etude.data.formats.contract import Format, some
from etude.data.records import Conversation, Message

COLUMNS = ("conversations", "conversation", "messages")


class ShareGPT(Format):
    """`conversations` whose turns come from human, gpt, system, function_call, observation or tool; beside them `system` and `tools`."""

    kind: ClassVar[str] = "sharegpt"

    @classmethod
    def fits(cls, columns: frozenset[str], rows: list[dict[str, Any]]) -> frozenset[str]:
        for column in COLUMNS:
            if column in columns and some(rows, column, _looks_like_turns if column != "messages" else _said_from):
                return frozenset({column})
        return frozenset()

    def record(self, row: dict[str, Any]) -> Conversation:
        column = next((name for name in COLUMNS if row.get(name) is not None), None)
        if column is None:
            raise values.wrong("conversations", f"missing; the row has {', '.join(map(str, row)) or 'no columns'}")
        return Conversation(with_system(row, values.messages(row[column], column)), values.tools(row))


def with_system(row: dict[str, Any], turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """The turns with the row's `system` column before them; both saying something is an error."""
    system = values.optional_text(row, "system")
    if system is None:
        return turns
    if turns[0].role == "system":
        raise values.wrong("system", "the row has a system column and a system turn", "keep one of them")
    return (Message("system", system), *turns)


def _said_from(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "from" in value[0]


def _looks_like_turns(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and ("from" in value[0] or "role" in value[0])
