"""Accuracy: the label is the expected one. https://scikit-learn.org/stable/modules/model_evaluation.html#accuracy-score"""

from typing import ClassVar

from etude.evaluation.answer_json import first_object, label_in, parse_strictly
from etude.evaluation.metric import Metric, Reading


class Accuracy(Metric):
    """Share of answers whose label is the expected one; an answer in which no label can be read is wrong, and counted as such."""

    kind: ClassVar[str] = "accuracy"
    field: str | None = None
    """Field of a JSON object that holds the label; without it the whole answer is the label."""
    anywhere: bool = False
    """With `field`: accept a JSON object among other words too. A program that parses the answer would not."""
    ignore_case: bool = False
    """Capital and small letters count as the same."""

    @property
    def title(self) -> str:
        return self._titled("accuracy")

    def read(self, expected: str, answer: str) -> Reading:
        wanted = self._label(expected)
        try:
            found = self._label(answer)
        except ValueError:
            found = None
        return Reading(found == wanted, wanted, found)

    def _titled(self, name: str) -> str:
        found = [f"of “{self.field}”"] if self.field else []
        found += ["anywhere in the answer"] if self.field and self.anywhere else []
        found += ["ignoring case"] if self.ignore_case else []
        return " ".join([name, ", ".join(found)]).rstrip()

    def _label(self, text: str) -> str:
        if self.field is None:
            label = " ".join(text.split())
            if not label:
                raise ValueError("the answer is empty")
        else:
            label = label_in(first_object(text) if self.anywhere else parse_strictly(text), self.field)
        return label.casefold() if self.ignore_case else label
