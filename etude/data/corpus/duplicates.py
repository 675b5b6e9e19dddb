"""Which documents say what another one says? Groups of equal keys, from all documents at once; the first of each group is kept."""

from collections.abc import Iterable

import numpy as np

from etude.data.ngrams import grams, numbers, words
from etude.data.rules.contract import needs
from etude.recipe.corpus import Near


class Signer:
    """MinHash signatures of documents, folded to one number for each bucket.

    Method: Broder 1997; buckets as in datatrove and FineWeb (https://arxiv.org/abs/2406.17557, section 3.4). The hashes are rensa's.
    """

    def __init__(self, near: Near):
        self.near = near
        self._hashes = needs("rensa", "rensa", "`deduplicate: near`").RMinHash

    def sign(self, texts: Iterable[str]) -> np.ndarray:
        """[documents, buckets] uint64; a document shorter than a shingle has zeros, which stand for no key."""
        near = self.near
        shingles = [np.unique(grams(numbers(words(text)), near.words)) for text in texts]
        sizes = np.array([len(one) for one in shingles], np.int64)
        keys = np.zeros((len(sizes), near.buckets), np.uint64)
        if not sizes.any():
            return keys
        offsets = np.concatenate([[0], np.cumsum(sizes[sizes > 0])]).astype(np.uint64)
        made = self._hashes.digest_matrix_from_flat_token_hashes(
            np.concatenate(shingles), offsets, near.buckets * near.hashes, near.seed
        ).to_rows()
        matrix = np.asarray(made, np.uint64).reshape(-1, near.buckets, near.hashes)
        keys[sizes > 0] = _folded(matrix)
        return keys


def _folded(matrix: np.ndarray) -> np.ndarray:
    """[documents, buckets, hashes] → [documents, buckets]: one number for the hashes of a bucket, never 0."""
    with np.errstate(over="ignore"):
        out = np.zeros(matrix.shape[:2], np.uint64)
        for k in range(matrix.shape[2]):
            out = (out ^ matrix[..., k]) * np.uint64(0x9E3779B97F4A7C15)
            out ^= out >> np.uint64(32)
    return np.maximum(out, np.uint64(1))


def equal(keys: np.ndarray) -> np.ndarray:
    """[documents] int64: for each document the first one with the same key; itself where it is that, or where its key is 0.

    Args:
        keys: [documents, …] uint64; all numbers of a row together are its key.
    """
    count = len(keys)
    columns = keys.reshape(count, int(np.prod(keys.shape[1:])))
    order = np.lexsort((np.arange(count), *columns.T[::-1]))
    ordered = columns[order]
    new = np.ones(count, bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(1)
    first = np.empty(count, np.int64)
    first[order] = order[np.maximum.accumulate(np.where(new, np.arange(count), 0))]
    return np.where(columns.any(1), first, np.arange(count))


def joined(groups: Iterable[np.ndarray], count: int) -> np.ndarray:
    """[documents] int64: the first document of the cluster that each is in, where any group joins its members (as `equal` gives them).

    One group is held in memory at a time: 8 bytes for each document.
    """
    parent = np.arange(count, dtype=np.int64)

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = int(parent[at])
        return at

    for first in groups:
        for member in np.flatnonzero(first != np.arange(count)).tolist():
            one, other = root(member), root(int(first[member]))
            parent[max(one, other)] = min(one, other)
    for member in np.flatnonzero(parent != np.arange(count)).tolist():  # roots come first, so one pass is enough
        parent[member] = parent[parent[member]]
    return parent
