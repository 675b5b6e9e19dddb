"""Pairs of a chosen and a rejected answer. https://huggingface.co/docs/trl/dataset_formats#preference"""

from typing import Any, ClassVar

from etude.data import values
from etude.data.formats.contract import Format
from etude.data.formats.sharegpt import COLUMNS, with_system
from etude.data.records import Completion, Conversation, Message, Pair


class Preference(Format):
    """`chosen` and `rejected` as text, messages or one message; beside them `prompt` or `conversations`, or what the two lists share."""

    kind: ClassVar[str] = "preference"

    @classmethod
    def fits(cls, columns: frozenset[str], rows: list[dict[str, Any]]) -> frozenset[str]:
        pair = frozenset({"chosen", "rejected"})
        return pair | (columns & frozenset(COLUMNS if "prompt" not in columns else ("prompt",))) if pair <= columns else frozenset()

    def record(self, row: dict[str, Any]) -> Pair:
        for field in ("chosen", "rejected"):
            if row.get(field) is None:
                raise values.wrong(field, "missing")
        if isinstance(row["chosen"], str) != isinstance(row["rejected"], str):
            raise values.wrong("rejected", f"{values.named(row['rejected'])} where `chosen` is {values.named(row['chosen'])}")
        common = next((name for name in ("prompt", *COLUMNS) if row.get(name) is not None), None)
        if isinstance(row["chosen"], str) and (common is None or isinstance(row[common], str)):
            return _plain(row, common)
        return _turns(row, common)


def _plain(row: dict[str, Any], common: str | None) -> Pair:
    if common is None:
        raise values.wrong("prompt", "missing, and two texts do not say where their prompt ends", "give a `prompt` column, or messages")
    chosen, rejected = row["chosen"], row["rejected"]
    if chosen == rejected:
        raise values.wrong("rejected", "the same as `chosen`")
    prompt, system = values.text(row, common), values.optional_text(row, "system")
    return Pair(Completion(prompt, chosen, system), Completion(prompt, rejected, system))


def _turns(row: dict[str, Any], common: str | None) -> Pair:
    chosen, rejected = (_answer(row[field], field) for field in ("chosen", "rejected"))
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared].same(rejected[shared]):
        shared += 1
    prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    if common is not None:
        given = values.messages(row[common], common) if not isinstance(row[common], str) else (Message("user", values.text(row, common)),)
        prompt = _without_repeating(given, prompt)
    for field, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer:
            raise values.wrong(field, "no turn of its own: it is where the other one begins")
        if answer[0].role != "assistant":
            raise values.wrong(field, f"its own turns begin with {answer[0].role}, not with the assistant")
    if not prompt:
        raise values.wrong("prompt", "missing, and the two answers have no turn in common")
    prompt = tuple(Message(m.role, m.content, False, m.extra) for m in with_system(row, prompt))
    tools = values.tools(row)
    return Pair(Conversation((*prompt, *chosen), tools), Conversation((*prompt, *rejected), tools))


def _answer(value: object, field: str) -> tuple[Message, ...]:
    return (Message("assistant", value),) if isinstance(value, str) else values.messages(value, field)


def _without_repeating(given: tuple[Message, ...], shared: tuple[Message, ...]) -> tuple[Message, ...]:
    """Some data sets repeat the prompt at the head of both answers; where they do not, the shared turns follow it."""
    for start in range(len(shared) - len(given) + 1):
        if all(a.same(b) for a, b in zip(given, shared[start:], strict=False)):
            return shared
    return (*given, *shared)
