"""DPO: direct preference optimisation against a frozen parent. https://arxiv.org/abs/2305.18290"""

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field, PositiveFloat

from etude.core.forest import Forest
from etude.core.sample import Example
from etude.core.scores import Scores
from etude.objective.contract import Objective, Terms


class DPO(Objective):
    """Raises what the parent's log-probability ratio says of the chosen answer over the rejected one.

    loss = -log sigmoid(beta * ((log p(chosen) - log p_parent(chosen)) - (log p(rejected) - log p_parent(rejected))))
    """

    kind: ClassVar[str] = "dpo"
    beta: PositiveFloat = 0.1
    """Inverse temperature of the implicit reward: the larger, the closer to the parent."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Probability that a label is the wrong way round (conservative DPO)."""
    supervised: Annotated[float, Field(ge=0)] = 0.0
    """Weight of next-token loss on the chosen answers, beside the preference (RPO)."""

    @property
    def roles(self) -> tuple[str, ...]:
        return ("chosen", "rejected")

    @property
    def needs_reference(self) -> bool:
        return True

    @property
    def watched(self) -> tuple[str, ...]:
        return ("accuracy", "margin", "reward_chosen", "reward_rejected")

    def weight(self, examples: list[Example]) -> dict[str, float]:
        chosen = sum(sample.weight.sum(dtype="float64") for example in examples for sample in example.samples if sample.role == "chosen")
        return {"dpo": float(len(examples))} | ({"supervised": float(chosen)} if self.supervised else {})

    def loss(self, scores: Scores, forest: Forest, reference: Scores | None = None) -> Terms:
        assert reference is not None, "dpo is always scored beside its parent"
        chosen, rejected = forest.samples_with("chosen"), forest.samples_with("rejected")  # [P] each
        answer = forest.per_sample(scores.log_probability)  # [S]
        reward = self.beta * (answer - forest.per_sample(reference.log_probability))  # [S]
        margin = reward[chosen] - reward[rejected]  # [P]
        smooth = self.label_smoothing
        loss = -(1 - smooth) * F.logsigmoid(margin) - smooth * F.logsigmoid(-margin)
        terms = {"dpo": loss.sum()}
        if self.supervised:
            terms["supervised"] = -self.supervised * answer[chosen].sum()
        watched = {"accuracy": margin > 0, "margin": margin, "reward_chosen": reward[chosen], "reward_rejected": reward[rejected]}
        return Terms(terms, {name: (value.detach().float().sum(), "dpo") for name, value in watched.items()})
