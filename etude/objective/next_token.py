"""Next-token prediction: pre-training, continuing and fine-tuning differ in what is supervised, not in the loss."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from etude.core.forest import Forest
from etude.core.sample import Example
from etude.core.scores import Scores
from etude.objective.contract import NOTHING, Objective, Terms


class NextToken(Objective):
    """Negative log-likelihood, averaged over the weights of all supervised tokens of the step."""

    kind: ClassVar[str] = "next-token"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target's mass that is spread over the whole vocabulary. https://arxiv.org/abs/1512.00567"""
    z_loss: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared log-sum-exp of the logits, which keeps them from drifting; 1e-4 is usual. https://arxiv.org/abs/2204.02311"""

    @property
    def weighs_tokens(self) -> bool:
        return True

    @property
    def reads_everything(self) -> bool:
        return self.label_smoothing > 0 or self.z_loss > 0

    @property
    def unit(self) -> str:
        return super().unit if self.reads_everything else "nats a token"

    @property
    def watched(self) -> tuple[str, ...]:
        return ("unsmoothed",) if self.label_smoothing else ()

    def weight(self, examples: list[Example]) -> dict[str, float]:
        tokens = float(sum(sample.weight.sum(dtype="float64") for example in examples for sample in example.samples))
        return {"next_token": tokens} | ({"z": tokens} if self.z_loss else {})

    def loss(self, scores: Scores, forest: Forest, reference: Scores | None = None, constants: Mapping[str, float] = NOTHING) -> Terms:
        weight, said = forest.weight_per_prediction(), scores.log_probability
        if not self.reads_everything:
            return Terms({"next_token": -(weight * said).sum()})
        assert scores.log_sum_exp is not None and scores.mean_logit is not None, "all was read"
        anything = scores.mean_logit - scores.log_sum_exp  # [N] mean log-probability over the vocabulary
        smooth = (1 - self.label_smoothing) * said + self.label_smoothing * anything
        terms = {"next_token": -(weight * smooth).sum()}
        if self.z_loss:
            terms["z"] = self.z_loss * (weight * scores.log_sum_exp.square()).sum()
        return Terms(terms, {"unsmoothed": (-(weight * said).sum().detach(), "next_token")} if self.label_smoothing else {})

    def coefficients(self, forest: Forest) -> Tensor | None:
        return None if self.reads_everything else -forest.weight_per_prediction()
