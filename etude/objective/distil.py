"""Distillation: the policy learns a teacher's whole distributions, not its words alone. https://arxiv.org/abs/1503.02531"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from etude.core.forest import Forest
from etude.core.sample import Example
from etude.core.scores import Scores
from etude.model.taught import Teaching
from etude.objective.contract import NOTHING, Objective, Terms
from etude.recipe.strict import ModelText


class Distil(Objective):
    """At every supervised token, the divergence from the teacher's distribution, beside next-token loss on the row itself.

    loss = share * temperature² * D(teacher, policy) + (1 - share) * -log p(token)
    """

    kind: ClassVar[str] = "distil"
    teacher: ModelText = "parent"
    """Whose distributions: `parent` (which holds on to what it knew), `base`, or a model as `base` takes it, with the same vocabulary; an
    artefact that another stage of the same recipe makes is made first. Without `top_k` it is a second model in memory, unless it is the
    parent under an adapter."""
    top_k: PositiveInt | None = None
    """Ask the teacher once, before training, and store this many of its likeliest tokens at each supervised one, all others as one outcome;
    then it leaves memory. The divergence between joined outcomes is at most the whole one. https://arxiv.org/abs/2503.16870"""
    divergence: Literal["forward", "reverse", "jsd"] = "forward"
    """KL(teacher ‖ policy), which covers all that the teacher might say; KL(policy ‖ teacher), which settles on what it does say; or their
    mixture, the generalised Jensen-Shannon divergence. https://arxiv.org/abs/2306.13649"""
    mix: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """For `jsd`, the teacher's share in the distribution that both are measured from."""
    temperature: PositiveFloat = 1.0
    """Above 1, both are softened: the unlikely tokens say more. Its square keeps the gradient's size."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Of the divergence in the loss; the rest is next-token loss."""

    @property
    def weighs_tokens(self) -> bool:
        return True

    @property
    def unit(self) -> str:
        return "distil, a token"

    @property
    def watched(self) -> tuple[str, ...]:
        return ("divergence",)

    @property
    def teaching(self) -> Teaching:
        return Teaching(self.teacher, self.top_k, self.divergence, self.temperature, self.mix)

    def weight(self, examples: list[Example]) -> dict[str, float]:
        tokens = float(sum(sample.weight.sum(dtype="float64") for example in examples for sample in example.samples))
        return {"distil": tokens} | ({"next_token": tokens} if self.share < 1 else {})

    def loss(self, scores: Scores, forest: Forest, reference: Scores | None = None, constants: Mapping[str, float] = NOTHING) -> Terms:
        assert scores.divergence is not None, "a teacher was there"
        weight = forest.weight_per_prediction()
        apart = (weight * scores.divergence).sum()
        terms = {"distil": self.share * self.temperature**2 * apart}
        if self.share < 1:
            terms["next_token"] = -(1 - self.share) * (weight * scores.log_probability).sum()
        return Terms(terms, {"divergence": (apart.detach(), "distil")})
