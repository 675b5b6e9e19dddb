"""What the caller measured of both models on the same rows: likelihoods and answers, checked before anything is judged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from etude.errors import DataError, TrainingError

MORE_ROWS = "hold out more rows (`data.held_out`)"
MORE_TEXT = "score more general text (`evaluate.keep.tokens`), or give more (`evaluate.keep.source`)"


@dataclass(frozen=True, slots=True, eq=False)
class Likelihoods:
    """What both models make of the same texts, one entry a row (held-out rows) or a passage (general text)."""

    parent: np.ndarray
    """[n] minus the parent's log-probability of the row's supervised tokens, summed, in nats."""
    tuned: np.ndarray
    """[n] the same of the tuned model."""
    tokens: np.ndarray
    """[n] how many tokens were summed, the same for both; at least one."""
    bytes: np.ndarray | None = None
    """[n] UTF-8 bytes of the scored text, for bits per byte; None where unknown."""
    divergence: np.ndarray | None = None
    """[n] KL(parent ‖ tuned) over the vocabulary, summed over the tokens, in nats; None where unmeasured."""
    compressed: float | None = None
    """Bits for each byte of the same text under `gzip -9`, a mark to read bits per byte by; None where `bytes` are."""

    def check(self, name: str, more: str) -> None:
        """DataError where rows do not fit together or are too few, TrainingError where a number is not finite.

        Args:
            name: of what is measured.
            more: what to do where there are too few rows.
        """
        n = len(self.tokens)
        _enough(n, f"for the {name}", more)
        sides = {"parent": self.parent, "tuned": self.tuned, "tokens": self.tokens, "bytes": self.bytes, "divergence": self.divergence}
        for side, array in sides.items():
            if array is None:
                continue
            if array.shape != (n,):
                raise DataError(f"{name}: {array.shape} entries for {side} but {n} for tokens", "score the same rows with both models")
            if not np.isfinite(array).all():
                row = int(np.flatnonzero(~np.isfinite(array))[0])
                where = f"{name}: {side} is {array[row]} in row {row + 1} of {n}"
                raise TrainingError(where, "train with a lower learning rate, or score in float32")
        if (self.tokens <= 0).any():
            row = int(np.flatnonzero(self.tokens <= 0)[0])
            raise DataError(f"{name}: row {row + 1} of {n} has no scored token", "leave out rows without an answer")


@dataclass(frozen=True, slots=True, eq=False)
class Preferences:
    """Of each held-out pair, whether the chosen answer was put above the rejected one; arrays of one length."""

    parent: np.ndarray | None
    """[n] bool, of the parent; None where it has no head to tell them apart by, so that chance stands in its place."""
    tuned: np.ndarray
    """[n] bool, of the tuned model."""
    by_head: bool = False
    """By a reward head, rather than by likelihood."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What both models wrote for the same rows; sequences of one length."""

    places: Sequence[str]
    """File and row of each."""
    prompts: Sequence[str]
    """What was asked."""
    expected: Sequence[str]
    """What should have been answered."""
    parent: Sequence[str]
    """The parent's answers, without the stop token."""
    tuned: Sequence[str]
    """The tuned model's."""
    parent_stopped: Sequence[bool]
    """Whether the answer ended with a stop token, rather than at the token limit."""
    tuned_stopped: Sequence[bool]
    """The same of the tuned model."""

    def __len__(self) -> int:
        return len(self.places)

    def check(self) -> None:
        """DataError where the sequences differ in length or hold fewer than two rows."""
        lengths = {name: len(getattr(self, name)) for name in self.__slots__}
        if len(set(lengths.values())) > 1:
            raise DataError(f"answers do not belong to the same rows: {lengths}", "ask both models every row")
        _enough(len(self), "with answers", MORE_ROWS)

    @property
    def unfinished(self) -> tuple[int, int]:
        """How many of the parent's and of the tuned model's answers ran into the token limit."""
        return sum(not stopped for stopped in self.parent_stopped), sum(not stopped for stopped in self.tuned_stopped)


def _enough(n: int, what: str, more: str) -> None:
    if n < 2:
        raise DataError(f"only {n} rows {what}: no difference can be told from fewer than two", more)
