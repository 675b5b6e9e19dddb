"""What is learnt from: a path of tokens with a weight on each prediction."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One path of tokens, as the model will see it, special tokens included.

    `weight[i]` is how much predicting `tokens[i]` from `tokens[:i]` counts; 0 where nothing is learnt. The first token
    has nothing before it, so `weight[0]` is always 0.
    """

    tokens: np.ndarray
    """[L] int32"""
    weight: np.ndarray
    """[L] float32"""
    role: str = ""
    """What an objective knows this sample as: "chosen", "rejected", … ; empty where it stands alone."""
    value: float = 0.0
    """What an objective knows of the whole sample, such as its advantage."""
    old: np.ndarray | None = None
    """[L] float32: each token's log-probability when the policy wrote it; None for what it did not write."""
    known: Mapping[str, np.ndarray] = field(default_factory=dict)
    """By name, [L] float32 each: what else an objective knows of its tokens, such as their advantages; the same names in all of a step."""

    def __post_init__(self) -> None:
        assert self.tokens.dtype == np.int32 and self.weight.dtype == np.float32, "int32 tokens, float32 weights"
        assert self.tokens.shape == self.weight.shape and len(self.tokens) > 0, "one weight a token, at least one token"
        assert self.weight[0] == 0, "nothing predicts the first token"

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def answer_at(self) -> int:
        """Where its last run of supervised tokens begins: all before it is what is asked."""
        supervised = np.flatnonzero(self.weight)
        gaps = np.flatnonzero(np.diff(supervised) != 1)
        return int(supervised[gaps[-1] + 1 if len(gaps) else 0])


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One unit of the order: the samples that one row of data became, read together by the objective.

    A pair has two samples (chosen, rejected). A conversation whose template rewrites its history has one for each
    assistant turn. Packing never parts the samples of an example.
    """

    samples: tuple[Sample, ...]
    source: str
    """File or data set it came from."""
    row: int
    """Row number in that source, counted from 1."""
