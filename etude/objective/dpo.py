"""DPO: direct preference optimisation against a frozen parent. https://arxiv.org/abs/2305.18290"""

from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import Tensor

from etude.objective.pairs import PairObjective


class DPO(PairObjective):
    """Raises what the parent's log-probability ratio says of the chosen answer over the rejected one.

    margin = beta * ((log p(chosen) - log p_parent(chosen)) - (log p(rejected) - log p_parent(rejected)))
    """

    kind: ClassVar[str] = "dpo"
    beta: PositiveFloat = 0.1
    """Inverse temperature of the implicit reward: the larger, the closer to the parent."""
    variant: Literal["sigmoid", "hinge", "ipo", "robust"] = "sigmoid"
    """What a margin costs: -log sigmoid(margin); max(0, 1 - margin) (https://arxiv.org/abs/2305.10425); a squared distance to a margin of
    1/2, with rewards per token (IPO, https://arxiv.org/abs/2310.12036); or freed of the bias of flipped labels
    (https://arxiv.org/abs/2403.00409)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Probability that a label is the wrong way round, for `sigmoid` (conservative DPO) and `robust`."""

    @property
    def needs_reference(self) -> bool:
        return True

    def reward(self, answer: Tensor, length: Tensor, parent: Tensor | None) -> Tensor:
        assert parent is not None, "dpo is always scored beside its parent"
        return self.beta * (answer - parent) / (length if self.variant == "ipo" else 1)

    def cost(self, margin: Tensor) -> Tensor:
        wrong = self.label_smoothing
        match self.variant:
            case "hinge":
                return F.relu(1 - margin)
            case "ipo":
                return ((margin - 0.5) / self.beta).square()
            case "robust":
                return (-(1 - wrong) * F.logsigmoid(margin) + wrong * F.logsigmoid(-margin)) / (1 - 2 * wrong)
        return -(1 - wrong) * F.logsigmoid(margin) - wrong * F.logsigmoid(-margin)
