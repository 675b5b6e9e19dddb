"""What every objective over pairs shares: two answers to one prompt, a reward for each, a loss of the margin between them."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor

from etude.core.forest import Forest
from etude.core.sample import Example
from etude.core.scores import Scores
from etude.objective.contract import NOTHING, Objective, Terms


class PairObjective(Objective):
    """A leaf says what an answer's reward is, and what a margin costs."""

    supervised: Annotated[float, Field(ge=0)] = 0.0
    """Weight of next-token loss on the chosen answers, beside the preference."""

    @property
    def roles(self) -> tuple[str, ...]:
        return ("chosen", "rejected")

    @property
    def unit(self) -> str:
        return f"{self.kind}, a pair"

    @property
    def watched(self) -> tuple[str, ...]:
        return ("accuracy", "margin", "reward_chosen", "reward_rejected")

    def weight(self, examples: list[Example]) -> dict[str, float]:
        chosen = sum(sample.weight.sum(dtype="float64") for example in examples for sample in example.samples if sample.role == "chosen")
        return {self.kind: float(len(examples))} | ({"supervised": float(chosen)} if self.supervised else {})

    @abstractmethod
    def reward(self, answer: Tensor, length: Tensor, parent: Tensor | None) -> Tensor:
        """What each answer is worth, [S].

        Args:
            answer: [S] its log-probability.
            length: [S] its supervised tokens.
            parent: [S] its log-probability under the parent, where the objective needs a reference.
        """

    @abstractmethod
    def cost(self, margin: Tensor) -> Tensor:
        """[P] the loss of each pair, from how much more the chosen answer is worth."""

    def loss(self, scores: Scores, forest: Forest, reference: Scores | None = None, constants: Mapping[str, float] = NOTHING) -> Terms:
        assert (reference is not None) == self.needs_reference, "the parent's scores come where they are asked for"
        chosen, rejected = forest.samples_with("chosen"), forest.samples_with("rejected")  # [P] each
        answer = forest.per_sample(scores.log_probability)  # [S]
        parent = forest.per_sample(reference.log_probability) if reference is not None else None
        reward = self.reward(answer, forest.weight_per_sample(), parent)  # [S]
        margin = reward[chosen] - reward[rejected]  # [P]
        terms = {self.kind: self.cost(margin).sum()}
        if self.supervised:
            terms["supervised"] = -self.supervised * answer[chosen].sum()
        watched = {"accuracy": margin > 0, "margin": margin, "reward_chosen": reward[chosen], "reward_rejected": reward[rejected]}
        return Terms(terms, {name: (value.detach().float().sum(), self.kind) for name, value in watched.items()})
