"""CPO: contrastive preference optimisation, DPO under a uniform parent beside next-token loss. https://arxiv.org/abs/2401.08417"""

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import Tensor

from etude.objective.pairs import PairObjective


class CPO(PairObjective):
    """No parent is scored; the next-token loss on the chosen answers keeps the model where it was.

    loss = -log sigmoid(beta * (log p(chosen) - log p(rejected))) + supervised * next-token loss
    """

    kind: ClassVar[str] = "cpo"
    beta: PositiveFloat = 0.1
    """Scale of the margin."""
    supervised: Annotated[float, Field(ge=0)] = 1.0
    """Weight of next-token loss on the chosen answers."""

    def reward(self, answer: Tensor, length: Tensor, parent: Tensor | None) -> Tensor:
        return self.beta * answer

    def cost(self, margin: Tensor) -> Tensor:
        return -F.logsigmoid(margin)
