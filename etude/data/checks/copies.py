"""Which rows say the same? Word for word, nearly, or the same question with another answer."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from etude.data.checks.contract import INSTALL, Finding, Place, Skipped, beside, excerpt, first, rows
from etude.data.checks.material import Entry, Material
from etude.data.ngrams import grams, numbers, words

WORDS = 3
"""Of a shingle: rows are often one sentence, in which five words in a row would be lost with every word that is changed."""
ALIKE = 0.7
"""Smallest Jaccard similarity of near duplicates, counted exactly for every candidate."""
FEWEST = 5
"""Rows with fewer shingles of their own are compared word for word only."""
BANDS, HASHES = 32, 4
"""A pair at 0.7 is met with probability 1 - (1 - 0.7⁴)³² > 0.9998."""
MANY_LEAKS = 0.01
"""Of the rows that are judged on: more of them make the figures untrue."""
TEMPLATE = 0.05
"""A shingle that more than this share of rows has (20 at least) belongs to their template, not to the row."""


def exact(material: Material) -> Iterator[Finding]:
    """Training rows that say word for word what an earlier one says."""
    earlier: dict[str, Place] = {}
    found: list[tuple[Place, Place]] = []
    for entry in material.training:
        key = repr(entry.record)
        if key in earlier:
            found.append((entry.place, earlier[key]))
        earlier.setdefault(key, entry.place)
    if found:
        places = tuple(place for place, _ in found)
        yield Finding(
            "exact duplicates",
            "warning",
            rows(len(found), "repeat an earlier row word for word: what is repeated counts double, or more"),
            "leave them out, unless the repetition is meant (a weight says the same more plainly)",
            places,
            first(beside(place, "=", other) for place, other in found),
            drop=places,
        )


def near(material: Material) -> Iterator[Finding]:
    """Rows that share most of their words in order with another one (MinHash and its buckets, then counted exactly).

    Source: Broder 1997, On the resemblance and containment of documents; Lee et al. 2022, https://arxiv.org/abs/2107.06499.
    """
    records = {entry.place: repr(entry.record) for entry in material.usable}
    found = [(a, b, alike) for a, b, alike in _pairs(material) if records[a] != records[b]]
    within = [(a, b, alike) for a, b, alike in found if a not in material.held_out and b not in material.held_out]
    if within:
        places = tuple(sorted({b for _, b, _ in within}))
        yield Finding(
            "near duplicates",
            "warning",
            rows(len(places), f"share at least {ALIKE:.0%} of all word sequences with an earlier row"),
            "keep the best of each group, unless their differences are what is to be learnt",
            places,
            first(f"{beside(b, '≈', a)} ({alike:.0%})" for a, b, alike in sorted(within, key=lambda one: -one[2])),
        )
    yield from _leaked(material, [(a, b) for a, b, _ in found])


def _leaked(material: Material, pairs: list[tuple[Place, Place]]) -> Iterator[Finding]:
    """Those across the split, of the rows that preparation leaves in training."""
    judged = material.held_out
    across = [(a, b) if b in judged else (b, a) for a, b in pairs if (a in judged) != (b in judged)]
    if material.prepared is not None:
        trained = {Place(one.source, one.row) for _, examples in material.prepared.train for one in examples}
        across = [(a, b) for a, b in across if a in trained]
    if across:
        leaks = {b for _, b in across}
        places = tuple(sorted({a for a, _ in across}))
        yield Finding(
            "held-out rows nearly trained on",
            "error" if len(leaks) > MANY_LEAKS * len(judged) else "warning",
            f"of {len(judged):,} rows that are judged on, {len(leaks):,} nearly repeat training rows: the figures would flatter",
            "leave the training rows out, or hold out whole groups as a source of their own",
            places,
            first(f"{beside(a, '≈', b)}, which is held out" for a, b in across),
            drop=places,
        )


def contradictions(material: Material) -> Iterator[Finding]:
    """The same prompt with different answers: of labels, one of them is wrong."""
    by_prompt: dict[str, list[Entry]] = defaultdict(list)
    for entry in material.training:
        if len(entry.answers) == 1 and entry.asked.strip():
            by_prompt[" ".join(entry.asked.split())].append(entry)
    groups = [group for group in by_prompt.values() if len({entry.answers[0].strip() for entry in group}) > 1]
    if not groups:
        return
    labels = bool(material.labels)
    count = sum(map(len, groups))
    examples = (_both(group) for group in groups)
    yield Finding(
        "one prompt, different answers",
        "warning" if labels else "note",
        f"{len(groups):,} prompts have different answers, in {rows(count)}" + (", though the answers are labels" if labels else ""),
        "decide which one is right" if labels else "nothing, if all the answers are good",
        tuple(entry.place for group in groups for entry in group),
        tuple(example for example, _ in zip(examples, range(3))),
    )


def _both(group: list[Entry]) -> str:
    one = group[0]
    other = next(entry for entry in group if entry.answers[0].strip() != one.answers[0].strip())
    return f"{beside(one.place, 'and', other.place)}: {excerpt(one.answers[0])!r} and {excerpt(other.answers[0])!r}"


def own_shingles(texts: list[str], n: int = WORDS) -> list[np.ndarray]:
    """For each text its sequences of `n` words as sorted uint64, without those of the template that many texts share."""
    every = [np.unique(grams(numbers(words(text)), n)) for text in texts]
    if not every:
        return every
    distinct, counts = np.unique(np.concatenate(every), return_counts=True)
    common = distinct[counts > max(20, TEMPLATE * len(texts))]
    return [np.setdiff1d(one, common, assume_unique=True) for one in every]


def _pairs(material: Material) -> list[tuple[Place, Place, float]]:
    """Near duplicates: earlier row, later row, exact Jaccard similarity."""
    try:
        from rensa import RMinHash  # type: ignore[missing-module-attribute]  # noqa: PLC0415 (an extra)
    except ImportError:
        raise Skipped("needs the package rensa", INSTALL) from None
    entries = material.usable
    shingles = own_shingles([entry.whole for entry in entries])
    enough = [i for i, own in enumerate(shingles) if len(own) >= FEWEST]
    if not enough:
        return []
    offsets = np.cumsum([0, *(len(shingles[i]) for i in enough)]).astype(np.uint64)
    flat = np.concatenate([shingles[i] for i in enough])
    made = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, BANDS * HASHES, 0).to_rows()
    digests = np.asarray(made, np.uint32).reshape(len(enough), BANDS, HASHES)
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for i, digest in zip(enough, digests, strict=True):
        for band in range(BANDS):
            buckets[band, digest[band].tobytes()].append(i)
    candidates = {(group[0], other) for group in buckets.values() for other in group[1:]}
    candidates |= {pair for group in buckets.values() for pair in pairwise(group)}
    found = []
    for i, j in sorted(candidates):
        shared = len(np.intersect1d(shingles[i], shingles[j], assume_unique=True))
        alike = shared / (len(shingles[i]) + len(shingles[j]) - shared)
        if alike >= ALIKE:
            found.append((entries[i].place, entries[j].place, alike))
    return found
