"""What is counted in an answer: one reading a row, and one figure for all rows that paired statistics can resample."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from etude.evaluation.statistics import ratio_of_sums
from etude.recipe.strict import Leaf


@dataclass(frozen=True, slots=True)
class Reading:
    """What one metric makes of one answer."""

    right: bool
    """Whether the answer counts as right."""
    expected: str
    """The label, or the normalised text, that was expected."""
    found: str | None
    """The label, or the normalised text, of the answer; None where none can be read, which counts as wrong."""


class Metric(Leaf):
    """A metric reads rows one by one and sums features of them; its figure is a function of those sums alone.

    That is what makes every metric fit for the same paired bootstrap, jackknife and randomisation test, without loops.
    """

    @property
    @abstractmethod
    def title(self) -> str:
        """What stands in the report's table, options included where they change the meaning."""

    @property
    def is_rate(self) -> bool:
        """Whether the figure is the share of right answers: then Wilson's interval and McNemar's test apply."""
        return True

    @abstractmethod
    def read(self, expected: str, answer: str) -> Reading:
        """One row. ValueError where the *expected* answer itself cannot be read: the data is at fault, not a model."""

    def features(self, readings: Sequence[Reading]) -> np.ndarray:
        """[n, F] float64, what is summed over rows; by default right (0 or 1) beside a one that counts the row."""
        return np.array([[reading.right, 1] for reading in readings], dtype=np.float64)

    def figure(self, sums: np.ndarray) -> np.ndarray:
        """[…, F] sums of features over some rows → […] the figure for those rows."""
        return ratio_of_sums(sums)
