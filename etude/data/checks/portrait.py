"""What do the rows look like together? How long they are, and how different from each other."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from etude.data.checks.material import Material
from etude.data.ngrams import words
from etude.data.records import Text

OPENING = 3
"""Words by which beginnings are compared."""
MOST = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """Samples of about one length."""

    low: int
    high: int
    rows: int


@dataclass(frozen=True, slots=True)
class Side:
    """Prompts, answers or texts."""

    name: str
    """prompts, answers or texts."""
    unit: str
    """words or tokens."""
    median: float
    high: float
    """95 of 100 are at most so long."""
    longest: int
    bars: tuple[Bar, ...]
    """Buckets that double."""
    different: float
    """Share of them that are not the same as an earlier one, word for word."""
    distinct: tuple[float, float, float]
    """Distinct words, pairs and triples of words as shares of all (distinct-n, Li et al. 2016, https://arxiv.org/abs/1510.03055)."""
    openings: tuple[tuple[str, int], ...]
    """The commonest first words, with how many begin so."""


def portrait(material: Material) -> list[Side]:
    """Lengths and diversity of whole rows in tokens where a tokenizer is known, and of prompts, answers and texts in words."""
    entries = material.usable
    texts = [entry.record.text for entry in entries if isinstance(entry.record, Text)]
    asked = [own for entry in entries if (own := entry.asked.removeprefix(material.opening)).strip()]
    answers = [answer for entry in entries for answer in entry.answers]
    sides = [side for name, said in (("prompts", asked), ("answers", answers), ("texts", texts)) for side in _side(name, said)]
    tokens = np.array([entry.tokens for entry in entries if entry.tokens])
    if len(tokens):
        median, high = np.percentile(tokens, [50, 95])
        sides.append(Side("whole rows", "tokens", median, high, int(tokens.max()), tuple(bars(tokens)), 1.0, (1.0, 1.0, 1.0), ()))
    return sides


def _side(name: str, said: Sequence[str]) -> Iterator[Side]:
    if not said:
        return
    split = [words(text) for text in said]
    lengths = np.array([len(one) for one in split])
    median, high = np.percentile(lengths, [50, 95])
    openings = Counter(" ".join(one[:OPENING]) for one in split if one).most_common(MOST)
    yield Side(
        name=name,
        unit="words",
        median=float(median),
        high=float(high),
        longest=int(lengths.max()),
        bars=tuple(bars(lengths)),
        different=len(set(said)) / len(said),
        distinct=(_distinct(split, 1), _distinct(split, 2), _distinct(split, 3)),
        openings=tuple(openings),
    )


def _distinct(split: Sequence[list[str]], n: int) -> float:
    seen: set[tuple[str, ...]] = set()
    total = 0
    for one in split:
        found = list(zip(*(one[k:] for k in range(n))))
        seen.update(found)
        total += len(found)
    return len(seen) / total if total else 1.0


def bars(lengths: np.ndarray) -> Iterator[Bar]:
    """Buckets that double, from the first that holds any to the last."""
    lengths = np.maximum(lengths, 1)
    high = 1 << int(lengths.min() - 1).bit_length()
    low = high // 2 + 1
    while low <= lengths.max():
        yield Bar(low, high, int(((lengths >= low) & (lengths <= high)).sum()))
        low, high = high + 1, high * 2
