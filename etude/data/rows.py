"""A step's examples → rows: forests of at most so many tokens, cut so that sharing is kept and rows are full.

The step comes first: it is a set of examples chosen by the order alone. How it is cut into rows changes neither the loss nor
any gradient, because every sum is divided only once, by the weight of the whole step.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from etude.core.forest import Forest
from etude.core.sample import Example, Sample
from etude.data.trees import forest_of, shared_length, shared_lengths, sort_key


@dataclass(frozen=True, slots=True)
class Cut:
    """How steps are cut into rows."""

    tokens_per_row: int
    """Most tokens computed at once. An example that alone is larger makes a row of its own, however long."""
    minimum_shared: int = 16
    """Shorter common runs are laid out once per sample."""
    layout: str = "forest"
    """`forest` shares beginnings; `padded` is for models that cannot: one sample a line, every line as long as the longest."""


def rows_of(examples: Sequence[Example], cut: Cut) -> list[Forest]:
    """Cut a step into rows, largest first. A pure function of its arguments."""
    if cut.layout == "padded":
        bins = _padded_bins(examples, cut.tokens_per_row)
    else:
        bins = _best_fit(_clusters(examples, cut), cut.tokens_per_row)
    forests = [forest for chosen in bins for forest in _forests(examples, sorted(chosen), cut)]
    return sorted(forests, key=lambda forest: -forest.computed_tokens)


def _forests(examples: Sequence[Example], chosen: Sequence[int], cut: Cut) -> list[Forest]:
    """One forest, or two halves where runs too short to share made it larger than its neighbours' beginnings promised."""
    forest = _forest(examples, chosen, cut)
    if forest.computed_tokens <= cut.tokens_per_row or len(chosen) == 1:
        return [forest]
    half = len(chosen) // 2
    return _forests(examples, chosen[:half], cut) + _forests(examples, chosen[half:], cut)


def _forest(examples: Sequence[Example], chosen: Sequence[int], cut: Cut) -> Forest:
    pairs = [(sample, i) for i in chosen for sample in examples[i].samples]
    return forest_of([s for s, _ in pairs], [i for _, i in pairs], minimum_shared=cut.minimum_shared, share=cut.layout == "forest")


def _clusters(examples: Sequence[Example], cut: Cut) -> list[tuple[int, list[int]]]:
    """Examples that share beginnings, with the tokens they take together; none takes more than a row if it can be helped."""
    owned = sorted(((sort_key(sample), i, sample) for i, example in enumerate(examples) for sample in example.samples), key=lambda t: t[:2])
    shared = shared_lengths([sample for *_, sample in owned])
    cluster = list(range(len(examples)))  # union-find: an example keeps its samples together, a beginning keeps examples together

    def root(i: int) -> int:
        while cluster[i] != i:
            cluster[i] = i = cluster[cluster[i]]
        return i

    for ((_, a, _), (_, b, _)), common in zip(pairwise(owned), shared[1:], strict=True):
        if common >= cut.minimum_shared:
            cluster[root(a)] = root(b)
    members: dict[int, list[int]] = {}
    for i in dict.fromkeys(i for _, i, _ in owned):  # in sorted order, so that a tree too large is cut between distant branches
        members.setdefault(root(i), []).append(i)
    return [piece for chosen in members.values() for piece in _pieces(examples, chosen, cut)]


def _pieces(examples: Sequence[Example], chosen: Sequence[int], cut: Cut) -> list[tuple[int, list[int]]]:
    """Cut a cluster into pieces of at most a row; what a piece shares with the one before it is computed again."""
    pieces: list[tuple[int, list[int]]] = []
    current, size, laid = [], 0, []
    for i in chosen:
        more = _insert(examples[i].samples, laid, cut.minimum_shared)
        if current and size + more > cut.tokens_per_row:
            pieces.append((size, current))
            current, size, laid = [], 0, []
            more = _insert(examples[i].samples, laid, cut.minimum_shared)
        current.append(i)
        size += more
    return [*pieces, (size, current)]


def _insert(samples: Sequence[Sample], laid: list[tuple[bytes, int, Sample]], minimum_shared: int) -> int:
    """Add samples to those laid out (sorted, in place); returns how many tokens they add."""
    added = 0
    for sample in samples:
        entry = (sort_key(sample), id(sample), sample)
        at = bisect_left(laid, entry[:2], key=lambda e: e[:2])
        common = max((shared_length(sample, laid[j][2]) for j in (at - 1, at) if 0 <= j < len(laid)), default=0)
        added += len(sample) - (common if common >= minimum_shared else 0)
        insort(laid, entry, key=lambda e: e[:2])
    return added


def _best_fit(items: list[tuple[int, list[int]]], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: each item into the fullest row that still holds it."""
    free: list[tuple[int, int]] = []  # (tokens left, row), sorted
    bins: list[list[int]] = []
    for size, chosen in sorted(items, key=lambda item: (-item[0], item[1])):
        at = bisect_left(free, (size, -1))
        if at < len(free):
            left, row = free.pop(at)
        else:
            left, row = max(capacity, size), len(bins)
            bins.append([])
        bins[row].extend(chosen)
        insort(free, (left - size, row))
    return bins


def _padded_bins(examples: Sequence[Example], capacity: int) -> list[list[int]]:
    """Lines of like length together, so that little is padded."""
    longest = [max(len(sample) for sample in example.samples) for example in examples]
    bins: list[list[int]] = []
    lines, width = 0, 0
    for i in sorted(range(len(examples)), key=lambda i: (-longest[i], i)):
        more = len(examples[i].samples)
        if not bins or (lines + more) * width > capacity:
            bins.append([])
            lines, width = 0, longest[i]  # longest first, so the first line sets the width
        bins[-1].append(i)
        lines += more
    return bins
