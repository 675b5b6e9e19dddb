"""Reward models: a number for an answer, learnt from which of two people preferred. https://arxiv.org/abs/2203.02155"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field

from etude.core.forest import Forest
from etude.core.sample import Example
from etude.core.scores import Outputs, Scores
from etude.objective.contract import NOTHING, Objective, Terms


class RewardModel(Objective):
    """Bradley–Terry: the chosen answer wins with probability sigmoid(reward(chosen) - reward(rejected)).

    A reward is read from the final hidden state of an answer's last token, the one that ends it; the vocabulary's head is not computed.
    loss = -log sigmoid(reward(chosen) - reward(rejected)) + centring * (reward(chosen) + reward(rejected))²
    """

    kind: ClassVar[str] = "reward"
    centring: Annotated[float, Field(ge=0)] = 0.0
    """Pulls the rewards of each pair towards a mean of zero, which the preference alone leaves open; 0.01 is usual
    (https://arxiv.org/abs/2312.09244)."""

    @property
    def roles(self) -> tuple[str, ...]:
        return ("chosen", "rejected")

    @property
    def outputs(self) -> Outputs:
        return Outputs(("reward",), "leaf")

    @property
    def unit(self) -> str:
        return "reward, a pair"

    @property
    def watched(self) -> tuple[str, ...]:
        return ("accuracy", "margin", "reward_chosen", "reward_rejected")

    def weight(self, examples: list[Example]) -> dict[str, float]:
        return {"reward": float(len(examples))} | ({"centring": float(len(examples))} if self.centring else {})

    def loss(self, scores: Scores, forest: Forest, reference: Scores | None = None, constants: Mapping[str, float] = NOTHING) -> Terms:
        assert scores.outputs is not None, "leaves were read"
        reward = scores.outputs[:, 0]  # [S]
        chosen, rejected = reward[forest.samples_with("chosen")], reward[forest.samples_with("rejected")]  # [P] each
        margin = chosen - rejected
        terms = {"reward": -F.logsigmoid(margin).sum()}
        if self.centring:
            terms["centring"] = self.centring * (chosen + rejected).square().sum()
        watched = {"accuracy": margin > 0, "margin": margin, "reward_chosen": chosen, "reward_rejected": rejected}
        return Terms(terms, {name: (value.detach().float().sum(), "reward") for name, value in watched.items()})
