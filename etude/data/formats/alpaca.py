"""Stanford Alpaca's format: an instruction, what it is about, and the answer. https://github.com/tatsu-lab/stanford_alpaca#data-release"""

from typing import Any, ClassVar

from etude.data import values
from etude.data.formats.contract import Format
from etude.data.records import Completion, Conversation, Message


class Alpaca(Format):
    """`instruction`, `input` (after it, on a line of its own), `output`; perhaps `system` and a `history` of [question, answer] pairs."""

    kind: ClassVar[str] = "alpaca"

    @classmethod
    def fits(cls, columns: frozenset[str], rows: list[dict[str, Any]]) -> frozenset[str]:
        return frozenset({"instruction", "output"}) if {"instruction", "output"} <= columns else frozenset()

    def record(self, row: dict[str, Any]) -> Completion | Conversation:
        prompt = "\n".join(part for part in (values.text(row, "instruction"), values.optional_text(row, "input")) if part)
        if not prompt.strip():
            raise values.wrong("instruction", "blank")
        output, system = values.text(row, "output"), values.optional_text(row, "system")
        if row.get("history") in (None, [], ""):
            return Completion(prompt, output, system)
        turns = [Message("system", system)] if system else []
        for i, pair in enumerate(values.listed(row["history"], "history")):
            pair = values.listed(pair, f"history[{i}]")
            if len(pair) != 2 or not all(isinstance(side, str) for side in pair):
                raise values.wrong(f"history[{i}]", "should be a question and an answer, both text")
            turns += [Message("user", pair[0]), Message("assistant", pair[1])]
        return Conversation((*turns, Message("user", prompt), Message("assistant", output)))
