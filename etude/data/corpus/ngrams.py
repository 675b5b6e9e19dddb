"""Which sequences of words does a text hold? As numbers, so that millions of them can be compared at once."""

import re
from functools import lru_cache
from hashlib import blake2b

import numpy as np

_WORD = re.compile(r"\w+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


@lru_cache(maxsize=1_000_000)
def _number(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def numbers(found: list[str]) -> np.ndarray:
    """[words] uint64: the same word has the same number everywhere."""
    return np.fromiter(map(_number, found), np.uint64, len(found))


def grams(numbered: np.ndarray, n: int) -> np.ndarray:
    """[words - n + 1] uint64: each sequence of `n` words as one number; empty where the text is shorter."""
    if len(numbered) < n:
        return numbered[:0]
    with np.errstate(over="ignore"):
        out = numbered[: len(numbered) - n + 1].copy()
        for k in range(1, n):
            out *= _FACTOR
            out += numbered[k : len(numbered) - n + 1 + k]
        out ^= out >> np.uint64(31)  # the low bits of a polynomial alone would know only the last words
        out *= _MIX
        out ^= out >> np.uint64(29)
    return out
