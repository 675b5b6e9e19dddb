"""Macro-F1: the harmonic mean of precision and recall, averaged over labels so that rare ones count as much.

As `sklearn.metrics.f1_score(expected, found, labels=sorted(set(expected)), average="macro", zero_division=0)`.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from etude.evaluation.metric import Reading
from etude.evaluation.metrics.accuracy import Accuracy


class MacroF1(Accuracy):
    """F1 averaged over the labels that are expected; labels are read as accuracy reads them.

    A label that is never expected, or none at all, is a miss of the expected one; it opens no class of its own.
    """

    kind: ClassVar[str] = "macro-f1"

    @property
    def title(self) -> str:
        return self._titled("macro-F1")

    @property
    def is_rate(self) -> bool:
        return False

    def features(self, readings: Sequence[Reading]) -> np.ndarray:
        """[n, 3 · labels]: hit, found and expected, each one-hot over the labels."""
        labels = np.array(sorted({reading.expected for reading in readings}))
        expected = np.array([reading.expected for reading in readings])[:, None] == labels  # [n, labels]
        found = np.array([[reading.found == label for label in labels] for reading in readings])  # [n, labels]
        return np.concatenate([expected & found, found, expected], axis=1).astype(np.float64)

    def figure(self, sums: np.ndarray) -> np.ndarray:
        hits, found, expected = np.split(sums, 3, axis=-1)  # […, labels] each
        # found + expected is 0 only for a label that a resample missed; such labels are left out of its mean.
        f1 = 2 * hits / np.maximum(found + expected, 1)
        there = expected > 0
        return (f1 * there).sum(-1) / there.sum(-1)
