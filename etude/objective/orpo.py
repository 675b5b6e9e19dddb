"""ORPO: fine-tuning and preferences at once, by odds ratios and without a parent. https://arxiv.org/abs/2403.07691"""

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import Tensor

from etude.objective.pairs import PairObjective


class ORPO(PairObjective):
    """The odds of an answer are p / (1 - p), with p the geometric mean of its tokens' probabilities.

    loss = next-token loss on the chosen answer - weight_of_odds * log sigmoid(log odds(chosen) - log odds(rejected))
    """

    kind: ClassVar[str] = "orpo"
    weight_of_odds: PositiveFloat = 0.1
    """Of the odds ratio beside the next-token loss; the paper's λ."""
    supervised: Annotated[float, Field(ge=0)] = 1.0
    """Weight of next-token loss on the chosen answers."""

    def reward(self, answer: Tensor, length: Tensor, parent: Tensor | None) -> Tensor:
        mean = (answer / length).clamp(max=-torch.finfo(answer.dtype).eps)  # of a certain answer the odds are infinite
        return mean - torch.log(-torch.expm1(mean))

    def cost(self, margin: Tensor) -> Tensor:
        return -self.weight_of_odds * F.logsigmoid(margin)
