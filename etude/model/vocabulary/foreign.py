"""What do texts hold that a vocabulary has no token for? In words, so that nothing is lost silently."""

from collections.abc import Mapping

from etude.errors import DataError


class ForeignLetter(DataError):
    """A text holds what is no letter, and none is to be taken for unknown; who read the text knows where."""

    def __init__(self, letter: str, place: str = ""):
        where = f"{place}: " if place else ""
        super().__init__(f"{where}{letter!r} is no letter of this alphabet", "mend the text, or let it be marked: `foreign=mark`")
        self.letter = letter


def told(counts: Mapping[str, int], total: int, become: str) -> str:
    """One line: how many characters, how often, the most frequent of them, and what becomes of them."""
    often = sum(counts.values())
    most = sorted(counts, key=lambda character: (-counts[character], character))[:8]
    shown = ", ".join(f"{character!r} {counts[character]:,}" for character in most)
    more = ", …" if len(counts) > len(most) else ""
    share = f"{often / total:.2%}" if often >= total / 10_000 else "less than 0.01 %"
    what = "1 character is" if len(counts) == 1 else f"{len(counts):,} characters are"
    return f"{what} not in the vocabulary and {become}: {often:,} of {total:,} occurrences ({share}): {shown}{more}"
