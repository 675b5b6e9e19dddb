"""Next-token prediction: pre-training, continuing and fine-tuning differ in what is supervised, not in the loss."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from etude.core.forest import Forest
from etude.core.sample import Example
from etude.core.scores import Scores
from etude.objective.contract import NOTHING, Objective, Terms


class NextToken(Objective):
    """Negative log-likelihood, averaged over the weights of all supervised tokens of the step."""

    kind: ClassVar[str] = "next-token"

    @property
    def unit(self) -> str:
        return "nats a token"

    def weight(self, examples: list[Example]) -> dict[str, float]:
        return {"next_token": float(sum(sample.weight.sum(dtype="float64") for example in examples for sample in example.samples))}

    def loss(self, scores: Scores, forest: Forest, reference: Scores | None = None, constants: Mapping[str, float] = NOTHING) -> Terms:
        return Terms({"next_token": -(forest.weight_per_prediction() * scores.log_probability).sum()})

    def coefficients(self, forest: Forest) -> Tensor:
        return -forest.weight_per_prediction()
