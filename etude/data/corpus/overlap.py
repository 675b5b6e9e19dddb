"""Does a document hold a question of a benchmark? By sequences of words, looked up as numbers and then compared as words."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from etude.data.ngrams import grams, numbers, words
from etude.data.questions import Question
from etude.recipe.corpus import Overlap


@dataclass(frozen=True, slots=True)
class Held:
    """A document holds a question."""

    question: Question
    by: int
    """Words in a row that are the same."""


@dataclass
class Questions:
    """All that is looked for.

    Args:
        asked: the questions.
        rule: how they are looked for.
    """

    asked: Sequence[Question]
    rule: Overlap
    _of: dict[int, dict[int, list[tuple[int, int]]]] = field(default_factory=dict, repr=False)
    """By length: number of a sequence → questions that hold it, and where in each."""
    _sorted: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._words = [words(question.text) for question in self.asked]
        for at, found in enumerate(self._words):
            if len(found) < self.rule.shortest:
                continue
            long, short = self.rule.long_questions, self.rule.short_questions
            n = long if len(found) >= long else min(len(found), short)
            table = self._of.setdefault(n, {})
            for place, number in enumerate(grams(numbers(found), n).tolist()):
                table.setdefault(number, []).append((at, place))
        self._sorted = {n: np.sort(np.fromiter(table, np.uint64, len(table))) for n, table in sorted(self._of.items())}

    def held_in(self, text: str) -> Held | None:
        """The first question that `text` holds, the longest sequences first."""
        if not self._sorted:
            return None
        found = words(text)
        numbered = numbers(found)
        for n, known in reversed(self._sorted.items()):
            sequence = grams(numbered, n)
            at = np.searchsorted(known, sequence)
            at[at == len(known)] = 0
            for place in np.flatnonzero(known[at] == sequence).tolist():
                for question, where in self._of[n][int(sequence[place])]:
                    if self._words[question][where : where + n] == found[place : place + n]:
                        return Held(self.asked[question], n)
        return None


def too_short(question: Question, rule: Overlap) -> bool:
    """Whether it is not looked for, because any text may hold it."""
    return len(words(question.text)) < rule.shortest
