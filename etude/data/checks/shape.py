"""Are all rows built alike? Columns, their kinds, the order of turns, system turns, prompts that ask nothing."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from etude.data.checks.contract import Finding, Place, first, rows
from etude.data.checks.material import Entry, Material
from etude.data.records import Completion, Conversation, Message, Pair, Rated, Text
from etude.data.values import named

NEARLY_ALL = 0.95
MANY = 20


def columns(material: Material) -> Iterator[Finding]:
    """Columns that nearly all rows of a source have and some lack, or hold in another kind of value."""
    sources: dict[str, list[Entry]] = {}
    for entry in material.entries:
        if entry.values is not None:
            sources.setdefault(entry.place.source, []).append(entry)
    for source, entries in sources.items():
        if len(entries) < MANY:
            continue
        for column in dict.fromkeys(str(name) for entry in entries for name in entry.values or ()):
            kinds = {entry.place: named((entry.values or {}).get(column)) for entry in entries}
            kind, often = Counter(kinds.values()).most_common(1)[0]
            other = {place: found for place, found in kinds.items() if found != kind}
            if not other or often < NEARLY_ALL * len(entries):
                continue
            has = f"null or missing in {rows(often)}" if kind == "null" else f"{kind} in {rows(often)}"
            shown = Counter(other.values()).most_common(1)[0][0]
            yield Finding(
                "rows unlike the others in a column",
                "warning",
                f"{source}: column {column!r} is {has} and {'missing or null' if shown == 'null' else shown} in {rows(len(other))}",
                "look whether these rows come from another export; give all rows the same columns",
                tuple(other),
            )


def turns(material: Material) -> Iterator[Finding]:
    """Conversations whose turns do not answer each other: two of one role in a row, a system turn inside, an end without an answer."""
    twice: list[Place] = []
    inside: list[Place] = []
    unanswered: list[Place] = []
    for entry in material.usable:
        messages = _messages(entry)
        roles = [message.role for message in messages]
        if any(a == b and a in ("user", "assistant") for a, b in pairwise(roles)):
            twice.append(entry.place)
        if any(role in ("system", "developer") for role in roles[next((i for i, r in enumerate(roles) if r == "user"), len(roles)) :]):
            inside.append(entry.place)
        if roles and roles[-1] != "assistant":
            unanswered.append(entry.place)
    for found, kind, what, remedy in (
        (
            twice,
            "two turns of one role in a row",
            "have two turns of the user or of the assistant in a row",
            "join them, or find the turn that is lost",
        ),
        (
            inside,
            "system turns inside a conversation",
            "have a system turn behind the first question",
            "put it at the head, or make it a user turn",
        ),
        (
            unanswered,
            "conversations without a last answer",
            "end in a turn that nobody answers; it is not learnt",
            "cut it off, or find the answer",
        ),
    ):
        if found:
            yield Finding(kind, "warning", rows(len(found), what), remedy, tuple(found))


def systems(material: Material) -> Iterator[Finding]:
    """Some conversations have a system turn, some have none: the model learns two ways of being asked."""
    asked = [entry for entry in material.training if _messages(entry)]
    with_system = [entry for entry in asked if _messages(entry)[0].role in ("system", "developer")]
    without = len(asked) - len(with_system)
    if with_system and without:
        few = with_system if len(with_system) <= without else [entry for entry in asked if entry not in set(with_system)]
        yield Finding(
            "system turns in some rows only",
            "note",
            f"{rows(len(with_system), 'have a system turn')} and {rows(without, 'have none')}",
            "ask the tuned model in the way that most rows are written in, or give all rows one",
            tuple(entry.place for entry in few),
        )


def unasked(material: Material) -> Iterator[Finding]:
    """Answers to a prompt that says nothing."""
    found = []
    for entry in material.usable:
        said = [message.content for message in _messages(entry)[:-1] if message.role == "user"]
        plain = isinstance(entry.record, (Completion, Pair, Rated)) and not entry.asked.strip()
        if plain or (said and not any(text.strip() for text in said)):
            found.append(entry)
    if found and not all(isinstance(entry.record, Text) for entry in material.usable):
        yield Finding(
            "empty prompts",
            "warning",
            rows(len(found), "answer an empty prompt"),
            "find the prompt, or leave the rows out",
            tuple(entry.place for entry in found),
            first(entry.whole for entry in found),
        )


def _messages(entry: Entry) -> tuple[Message, ...]:
    match entry.record:
        case Conversation(messages=messages) | Pair(chosen=Conversation(messages=messages)) | Rated(answer=Conversation(messages=messages)):
            return messages
        case Completion() as said:
            return said.conversation().messages
    return ()
