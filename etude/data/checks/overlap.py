"""Is anything trained on that will be judged on? The held-out rows, and the questions of benchmarks."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from etude.data.checks.contract import Finding, Place, Skipped, excerpt, first, rows
from etude.data.checks.material import Entry, Material
from etude.data.ngrams import grams, numbers, words
from etude.data.questions import Question

LONG, SHORT, SHORTEST = 13, 8, 4
"""Words in a row that count as the same: 13 of a long question (Brown et al. 2020, https://arxiv.org/abs/2005.14165, appendix C), 8 of
one of 8 to 12 words, and the whole of a shorter one; one of fewer than 4 words may stand in any text."""
MUCH = 0.5
"""A long question counts where this share of its sequences is there, or where two texts share a template they would all be found."""


def held_out(material: Material) -> Iterator[Finding]:
    """Training rows with a held-out row's prompt: preparation takes them out, so the recipe trains on fewer rows than it seems."""
    if material.prepared is None:
        if material.stop is not None:
            return
        raise Skipped("needs to know which rows are held out", "check the recipe, or name the model with `--base` beside it")
    taken = material.prepared.counts.total("duplicates_of_held_out")
    if taken:
        trained = {(one.source, one.row) for _, examples in material.prepared.train for one in examples}
        gone = tuple(entry.place for entry in material.training if entry.place not in trained)
        yield Finding(
            "training rows with a held-out prompt",
            "warning",
            rows(taken, "have the prompt of a held-out row, or all of it, and will be taken out of training"),
            "nothing; where it is many, rows repeat each other more than you may think",
            gone,
            drop=gone,
        )


def benchmarks(material: Material) -> Iterator[Finding]:
    """Rows that hold a question of the files named with `--against`."""
    if not material.against:
        raise Skipped("no benchmark is named", "name files of questions with `--against questions.jsonl`")
    index = _Questions(material.against)
    held: dict[str, list[tuple[Place, Question]]] = defaultdict(list)
    for entry in material.entries:
        if (found := index.held_in(entry)) is not None:
            held[found.file].append((entry.place, found))
    for source, found in held.items():
        places = tuple(place for place, _ in found)
        yield Finding(
            "questions of a benchmark",
            "error",
            f"{rows(len(found), 'hold')} {len({question for _, question in found}):,} questions of {source}: its figures would be untrue",
            "leave these rows out, or do not judge by this benchmark",
            places,
            first(f"{place} holds {question.place}: {excerpt(question.text)}" for place, question in found),
            drop=places,
        )


class _Questions:
    """Sequences of words, looked up as numbers."""

    def __init__(self, asked: list[Question]):
        self.asked = asked
        self.sizes: list[int] = []
        tables: dict[int, dict[int, list[int]]] = {}
        for i, question in enumerate(asked):
            found = words(question.text)
            n = LONG if len(found) >= LONG else min(len(found), SHORT)
            own = np.unique(grams(numbers(found), n)) if n >= SHORTEST else np.zeros(0, np.uint64)
            self.sizes.append(len(own))
            for number in own.tolist():
                tables.setdefault(n, {}).setdefault(number, []).append(i)
        self.tables = tables
        self.known = {n: np.sort(np.fromiter(table, np.uint64, len(table))) for n, table in tables.items()}

    def held_in(self, entry: Entry) -> Question | None:
        """The question of which most is there, if it is enough."""
        numbered = numbers(words(entry.whole))
        for n, known in sorted(self.known.items(), reverse=True):
            own = np.unique(grams(numbered, n))
            counts: dict[int, int] = defaultdict(int)
            for number in own[np.isin(own, known)].tolist():
                for question in self.tables[n][number]:
                    counts[question] += 1
            best = max(counts, key=lambda i: counts[i] / self.sizes[i], default=None)
            if best is not None and counts[best] >= MUCH * self.sizes[best]:
                return self.asked[best]
        return None
