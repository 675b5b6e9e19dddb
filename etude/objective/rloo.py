"""RLOO: REINFORCE with the other answers as the baseline. https://arxiv.org/abs/2402.14740"""

from typing import ClassVar

import numpy as np

from etude.objective.grpo import GRPO


class RLOO(GRPO):
    """An answer's advantage is its reward less the mean of the others': unbiased, and not divided by anything."""

    kind: ClassVar[str] = "rloo"
    scale: bool = False
    """Divide by the group's standard deviation, which is no longer unbiased."""

    def advantages(self, rewards: np.ndarray) -> np.ndarray:
        others = (rewards.sum() - rewards) / (len(rewards) - 1)
        return (rewards - others) / (rewards.std(ddof=1) + 1e-4 if self.scale else 1)
