"""PPO: answers that the policy writes itself, moved token by token towards what a value head did not expect. https://arxiv.org/abs/1707.06347"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt

from etude.core.forest import Forest
from etude.core.sample import Example
from etude.core.scores import Outputs, Scores
from etude.objective.contract import NOTHING, Objective, Sampling, Terms, Written
from etude.recipe.strict import one_of


class PPO(Objective):
    """Each token earns minus beta * log(p / p_parent), the last one the answer's reward besides (https://arxiv.org/abs/2203.02155).

    loss = -min(ratio * advantage, clip(ratio) * advantage) + value_weight * max((value - return)², (clip(value) - return)²) / 2, with
    advantages by generalised advantage estimation. The value is a linear head on the final hidden state that predicts the token.
    """

    kind: ClassVar[str] = "ppo"
    rewards: list[one_of("reward")] = []  # type: ignore[valid-type]
    """What answers are worth; a list is summed."""
    group: PositiveInt = 1
    """Answers to each prompt. They share it: it is computed once."""
    max_new_tokens: PositiveInt = 128
    """Longest answer."""
    temperature: PositiveFloat = 1.0
    """Of the sampling; ratios compare probabilities at temperature 1."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample only from the likeliest tokens that together have this probability."""
    beta: Annotated[float, Field(ge=0)] = 0.05
    """What a nat of distance from the parent costs, taken out of the reward; at 0 the parent is not scored."""
    updates: PositiveInt = 4
    """Optimizer steps on the answers of one step, each on all of them."""
    clip: PositiveFloat = 0.2
    """How far a token's probability may move, in relation to what it was, before it is moved no more."""
    clip_value: PositiveFloat = 0.2
    """The same of its value."""
    value_weight: Annotated[float, Field(ge=0)] = 0.1
    """Of the value's loss beside the policy's."""
    discount: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What the next token's worth counts now; the papers' γ."""
    smoothing: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Between 0, trusting the value of the next token, and 1, trusting only what came of it; λ in https://arxiv.org/abs/1506.02438."""
    whiten: bool = True
    """Shift and scale the step's advantages to mean 0 and variance 1."""

    @property
    def outputs(self) -> Outputs:
        return Outputs(("value",), "source")

    @property
    def unit(self) -> str:
        return "ppo, a token"

    @property
    def sampling(self) -> Sampling:
        rewards = tuple(self.rewards)
        return Sampling(self.group, self.max_new_tokens, self.temperature, self.top_p, rewards, self.updates, beside_parent=self.beta > 0)

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(file for reward in self.rewards for file in reward.files)

    @property
    def watched(self) -> tuple[str, ...]:
        return ("clipped", "value_clipped", "value_error")

    def by_token(self, written: Sequence[Written]) -> list[dict[str, np.ndarray]]:
        found = []
        for one in written:
            earned = np.zeros(len(one.old)) if one.parent is None else -self.beta * (one.old - one.parent)
            earned[-1] += one.reward
            advantage = advantages(earned, one.value, self.discount, self.smoothing)
            found.append({"advantage": advantage, "value": one.value, "return": advantage + one.value})
        if self.whiten:
            every = np.concatenate([one["advantage"] for one in found])
            for one in found:
                one["advantage"] = (one["advantage"] - every.mean()) / (every.std() + 1e-8)
        return found

    def weight(self, examples: list[Example]) -> dict[str, float]:
        tokens = float(sum(sample.weight.sum(dtype="float64") for example in examples for sample in example.samples))
        return {"ppo": tokens, "value": tokens}

    def loss(self, scores: Scores, forest: Forest, reference: Scores | None = None, constants: Mapping[str, float] = NOTHING) -> Terms:
        assert scores.outputs is not None, "values were read"
        now, value = scores.log_probability[forest.member_prediction], scores.outputs[:, 0][forest.member_prediction]  # [M] each
        advantage, before, returned = (forest.member_known[name] for name in ("advantage", "value", "return"))
        weight = forest.member_weight
        ratio = torch.exp(now - forest.member_old)
        kept = ratio.clamp(1 - self.clip, 1 + self.clip)
        policy = -(weight * torch.minimum(ratio * advantage, kept * advantage)).sum()
        near = value.clamp(before - self.clip_value, before + self.clip_value)
        error, kept_error = (value - returned).square(), (near - returned).square()
        terms = {"ppo": policy, "value": self.value_weight / 2 * (weight * torch.maximum(error, kept_error)).sum()}
        watched = {"clipped": kept * advantage < ratio * advantage, "value_clipped": kept_error > error, "value_error": error}
        return Terms(terms, {name: ((weight * seen).sum().detach().float(), "ppo") for name, seen in watched.items()})


def advantages(earned: np.ndarray, value: np.ndarray, discount: float, smoothing: float) -> np.ndarray:
    """[L] generalised advantage estimation (https://arxiv.org/abs/1506.02438, equation 16); behind the last token nothing is earned.

    Args:
        earned: [L] the reward of each token.
        value: [L] what was expected before each token.
    """
    following = np.append(value[1:], 0.0)
    surprise = earned + discount * following - value  # [L] δ
    found, later = np.zeros(len(earned)), 0.0
    for i in range(len(earned) - 1, -1, -1):
        found[i] = later = surprise[i] + discount * smoothing * later
    return found
