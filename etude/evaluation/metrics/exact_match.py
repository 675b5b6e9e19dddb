"""Exact match: the answer is the expected text. As in SQuAD, https://arxiv.org/abs/1606.05250 §6, without its articles and punctuation."""

from typing import ClassVar

from etude.evaluation.metric import Metric, Reading


class ExactMatch(Metric):
    """Share of answers that are, letter for letter, what was expected."""

    kind: ClassVar[str] = "exact-match"
    ignore_whitespace: bool = True
    """Runs of spaces and line breaks count as one space, and those at the ends not at all."""
    ignore_case: bool = False
    """Capital and small letters count as the same."""

    @property
    def title(self) -> str:
        options = (["ignoring case"] if self.ignore_case else []) + ([] if self.ignore_whitespace else ["every space counting"])
        return " ".join(["exact match", ", ".join(options)]).rstrip()

    def read(self, expected: str, answer: str) -> Reading:
        wanted, found = self._normal(expected), self._normal(answer)
        return Reading(found == wanted, wanted, found)

    def _normal(self, text: str) -> str:
        text = " ".join(text.split()) if self.ignore_whitespace else text
        return text.casefold() if self.ignore_case else text
