"""Which samples does a record become, and what if they do not fit into the context?"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from etude.core.sample import Sample
from etude.data.encoder import Encoder
from etude.data.records import Completion, Conversation, Message, Pair, Rated, Record, RowError, Text
from etude.data.supervise import BOUNDARY, FORGED, NO_STOP, NOTHING, Learnt, TrainOn, Views, learn, views
from etude.data.template import Template

TooLong = Literal["drop", "truncate", "error"]


@dataclass(frozen=True, slots=True)
class Draft:
    """A record whose texts are written and wait for their tokens."""

    record: Record
    parts: tuple[tuple[str, Conversation | Completion], ...]
    """Role and answer: one part, or the two of a pair. Empty for raw text."""
    seen: tuple[Views, ...]

    def texts(self) -> Iterator[str]:
        """Everything that will be encoded."""
        if isinstance(self.record, Text):
            yield self.record.text
        for one in self.seen:
            yield from one.texts()


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one row teaches."""

    examples: tuple[tuple[Sample, ...], ...]
    """Samples that are read together; several only where a long text was split."""
    prompt: list[int] | None
    """What is read before the last answer; None for raw text."""
    turns: tuple[Message, ...]
    """The turns of the prompt and the answer, for people; empty for raw text."""
    turns_cut: int = 0
    answers_cut: int = 0
    unrolled: bool = False
    prefilled: bool = False
    opening: bool = False
    touching: bool = False
    marked: bool = False


class TooLongError(RowError):
    """A row that does not fit into the context; `last_turn` where cutting its early turns was tried and is not enough."""

    def __init__(self, message: str, last_turn: bool):
        super().__init__("rows longer than the context", message, "raise `context`, or set `too_long` to drop or truncate")
        self.last_turn = last_turn


@dataclass(frozen=True, slots=True)
class Teacher:
    """Everything that decides how a record becomes samples."""

    template: Template
    encoder: Encoder
    train_on: TrainOn
    too_long: TooLong
    context: int

    def draft(self, record: Record) -> Draft:
        """The texts of a record."""
        parts = _parts(record)
        return Draft(record, parts, tuple(self._views(part, record) for _, part in parts))

    def lesson(self, draft: Draft) -> Lesson:
        """The samples of a record. RowError where it cannot be used, TooLongError where it does not fit."""
        if isinstance(draft.record, Text):
            return _text(draft.record, self.encoder, self.context)
        learnt = tuple(learn(seen, self.encoder) for seen in draft.seen)
        parts, cut = draft.parts, 0
        if _longest(learnt) > self.context:
            if self.too_long != "truncate":
                raise TooLongError(f"{_longest(learnt):,} tokens, and the context is {self.context:,}", last_turn=False)
            parts, learnt, cut = self._shortened(draft)
        samples = tuple(sample for (role, _), one in zip(parts, learnt, strict=True) for sample in _samples(one, role))
        if isinstance(draft.record, Pair) and len(samples) != 2:
            raise RowError(BOUNDARY, "a pair with several answers, whose template rewrites history", "compare one answer at a time")
        first = draft.parts[0][1]
        removed = _head(first)[1][:cut] if isinstance(first, Conversation) else ()
        return Lesson(
            examples=(samples,),
            prompt=learnt[0].prompt,
            turns=_turns(parts[0][1]),
            turns_cut=cut,
            answers_cut=sum(message.role == "assistant" for message in removed),
            unrolled=any(one.unrolled for one in learnt),
            prefilled=any(one.prefilled for one in learnt),
            opening=any(seen.opening for seen in draft.seen) and not cut,
            touching=isinstance(first, Completion) and not self.template.exists and _touch(first),
        )

    def _views(self, part: Conversation | Completion, record: Record) -> Views:
        return views(part, self.template, self.encoder, "answers" if isinstance(record, (Pair, Rated)) else self.train_on)

    def _shortened(self, draft: Draft) -> tuple[tuple[tuple[str, Conversation | Completion], ...], tuple[Learnt, ...], int]:
        """The same parts without as many of their earliest turns as needed; system turns and the last question with its answers stay."""
        cuts = _cuts(draft)
        tried: dict[int, tuple[tuple[tuple[str, Conversation | Completion], ...], tuple[Learnt, ...]]] = {}

        def fits(cut: int) -> bool:
            parts = tuple((role, _without(part, cut)) for role, part in draft.parts)
            learnt = tuple(learn(self._views(part, draft.record), self.encoder) for _, part in parts)
            tried[cut] = (parts, learnt)
            return _longest(learnt) <= self.context

        at = bisect_left(cuts, True, key=fits)
        if at == len(cuts):
            raise TooLongError(f"the last question and answer alone are longer than the context of {self.context:,} tokens", last_turn=True)
        return (*tried[cuts[at]], cuts[at])


def _parts(record: Record) -> tuple[tuple[str, Conversation | Completion], ...]:
    if isinstance(record, Text):
        return ()
    if isinstance(record, Pair):
        return (("chosen", record.chosen), ("rejected", record.rejected))
    if isinstance(record, Rated):
        return (("desirable" if record.desirable else "undesirable", record.answer),)
    return (("", record),)


def _longest(learnt: tuple[Learnt, ...]) -> int:
    return max(one.longest for one in learnt)


def _samples(learnt: Learnt, role: str) -> Iterator[Sample]:
    for path in learnt.paths:
        weight = np.zeros(len(path.tokens), np.float32)
        for start, stop in path.regions:
            weight[start:stop] = 1
        if not weight.any():
            raise RowError(NOTHING, "no token is left to learn")
        yield Sample(np.asarray(path.tokens, np.int32), weight, role)


def _turns(part: Conversation | Completion) -> tuple[Message, ...]:
    return part.messages if isinstance(part, Conversation) else part.conversation().messages


def _touch(said: Completion) -> bool:
    return bool(said.prompt) and not said.prompt[-1].isspace() and not said.completion[0].isspace()


def _head(conversation: Conversation) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """The system turns at the head, and the rest."""
    at = next((i for i, m in enumerate(conversation.messages) if m.role not in ("system", "developer")), len(conversation.messages))
    return conversation.messages[:at], conversation.messages[at:]


def _without(part: Conversation | Completion, cut: int) -> Conversation | Completion:
    if isinstance(part, Completion):
        return part
    head, rest = _head(part)
    return replace(part, messages=(*head, *rest[cut:]))


def _cuts(draft: Draft) -> list[int]:
    """How many turns may go: up to any later question, but never past the one that the last learnt answer answers."""
    bodies = [_head(part)[1] for _, part in draft.parts if isinstance(part, Conversation)]
    if not bodies:
        return []
    body = bodies[0]
    if len(bodies) == 2:
        limit = next((i for i, (a, b) in enumerate(zip(*bodies)) if not a.same(b)), 0)
    else:
        limit = max((i for i, m in enumerate(body) if m.role == "assistant" and m.train is not False), default=0)
    return [i for i in range(1, limit) if body[i].role == "user"]


def _text(text: Text, encoder: Encoder, context: int) -> Lesson:
    """The tokens of a text with its end."""
    if encoder.end is None:
        raise RowError(NO_STOP, "the tokenizer has no end-of-text token", "set `eos_token` in its tokenizer_config.json")
    if encoder.beginning is not None and encoder.lead and text.text.startswith(encoder.tokenizer.bos_token):
        raise RowError(FORGED, f"begins with {encoder.tokenizer.bos_token!r}, which the tokenizer adds itself", "take it out of the row")
    tokens = encoder.ids(text.text)
    marked = tokens[-1:] == [encoder.end]
    tokens = tokens if marked else [*tokens, encoder.end]
    samples = windows(np.asarray(tokens, np.int32), encoder.lead, context)
    if not samples:
        raise RowError(NOTHING, "text: no token to learn", "give it at least one word")
    return Lesson(samples, None, (), marked=marked)


def windows(tokens: np.ndarray, lead: Sequence[int], context: int) -> tuple[tuple[Sample], ...]:
    """A text cut where the context ends. Every token but the first is learnt; it goes on in the next sample, behind its last token.

    Args:
        tokens: [L] int32, the end of text among them.
        lead: what the tokenizer puts before a text; it stands before every piece, and is only read.
    """
    first = context - len(lead)
    if first < 2:
        raise TooLongError(f"a context of {context} tokens leaves no room for text", last_turn=False)
    before = np.asarray(lead, np.int32)
    # `first` tokens in the first piece, then one less: each later piece begins with a token that is only read.
    starts = [0, *range(first, len(tokens), first - 1)]
    samples = []
    for at, stop in zip(starts, [*starts[1:], len(tokens)], strict=True):
        piece = np.concatenate([before, tokens[at - (at > 0) : stop]])
        weight = np.ones(len(piece), np.float32)
        weight[: max(1, len(lead) + (at > 0))] = 0
        if weight.any():
            samples.append((Sample(piece, weight),))
    return tuple(samples)
