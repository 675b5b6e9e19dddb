"""Does a document hold a question of a benchmark? By sequences of words, looked up as numbers and then compared as words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from etude.data.corpus.ngrams import grams, numbers, words
from etude.data.counts import SourceCounts
from etude.data.records import RowError
from etude.data.sources import parts
from etude.errors import DataError
from etude.recipe.corpus import Benchmark, Overlap
from etude.recipe.data import Source

COLUMNS = ("question", "prompt", "text", "input", "instruction")


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a benchmark."""

    benchmark: str
    row: int
    text: str


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
    too_short: int = 0
    """Questions that are not looked for: any text may hold them."""
    _of: dict[int, dict[int, list[tuple[int, int]]]] = field(default_factory=dict, repr=False)
    """By length: number of a sequence → questions that hold it, and where in each."""
    _sorted: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._words = [words(question.text) for question in self.asked]
        for at, found in enumerate(self._words):
            if len(found) < self.rule.shortest:
                self.too_short += 1
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


def read_questions(benchmarks: Iterable[Benchmark]) -> list[Question]:
    """Every question of every benchmark.

    Raises:
        DataError: a file cannot be read, or a row holds no question.
    """
    asked: list[Question] = []
    for benchmark in benchmarks:
        counts = SourceCounts(benchmark.path)
        for rows in parts(Source(path=benchmark.path, split=benchmark.split))[0]:
            for row in rows:
                counts.read += 1
                if isinstance(row.values, RowError):
                    raise row.values.at(row.source, row.number)
                texts = _texts(row.values, benchmark)
                if not texts:
                    held = ", ".join(map(str, row.values)) or "no columns"
                    remedy = "name them: `benchmarks: {path: …, columns: [question]}`"
                    raise DataError(f"{row.source}:{row.number}: no question in its columns ({held})", remedy)
                asked += [Question(benchmark.path, row.number, text) for text in texts]
        if not counts.read:
            raise DataError(f"{benchmark.path}: no questions", "give a file with at least one row")
    return asked


def _texts(row: dict[str, Any], benchmark: Benchmark) -> list[str]:
    names = benchmark.columns or [next((name for name in COLUMNS if isinstance(row.get(name), str)), "")]
    return [row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()]
