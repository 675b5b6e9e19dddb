"""SimPO: preferences without a parent, by the average log-probability of a token. https://arxiv.org/abs/2405.14734"""

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import Tensor

from etude.objective.pairs import PairObjective


class SimPO(PairObjective):
    """Long answers gain nothing by their length, and the chosen one must be ahead by a target margin.

    loss = -log sigmoid(beta * (log p(chosen) / |chosen| - log p(rejected) / |rejected|) - target_margin)
    """

    kind: ClassVar[str] = "simpo"
    beta: PositiveFloat = 2.0
    """Scale of the reward; the paper takes 2 to 10."""
    target_margin: Annotated[float, Field(ge=0)] = 1.0
    """How far the chosen answer's reward must be ahead; the paper takes about half of beta."""

    def reward(self, answer: Tensor, length: Tensor, parent: Tensor | None) -> Tensor:
        return self.beta * answer / length

    def cost(self, margin: Tensor) -> Tensor:
        return -F.logsigmoid(margin - self.target_margin)
