"""GRPO: answers that the policy writes itself, compared within the group of answers to one prompt. https://arxiv.org/abs/2402.03300"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt

from etude.core.forest import Forest
from etude.core.sample import Example
from etude.core.scores import Scores
from etude.objective.contract import NOTHING, Objective, Sampling, Terms
from etude.recipe.strict import one_of


class GRPO(Objective):
    """An answer's advantage is its reward's distance from the group's mean; every one of its tokens is moved by it.

    loss = -min(ratio * advantage, clip(ratio) * advantage) + beta * KL(policy ‖ parent), ratio = p / p_when_it_was_written
    """

    kind: ClassVar[str] = "grpo"
    rewards: list[one_of("reward")] = []  # type: ignore[valid-type]
    """What answers are worth; a list is summed."""
    group: Annotated[int, Field(ge=2)] = 8
    """Answers to each prompt. They share it: it is computed once."""
    max_new_tokens: PositiveInt = 128
    """Longest answer."""
    temperature: PositiveFloat = 1.0
    """Of the sampling; ratios compare probabilities at temperature 1."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample only from the likeliest tokens that together have this probability."""
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence from the parent; at 0 the parent is not scored."""
    clip: PositiveFloat = 0.2
    """How far a token's probability may fall below, in relation to what it was, before it is moved no more."""
    clip_high: PositiveFloat | None = None
    """The same above; by default as below (DAPO takes 0.28, https://arxiv.org/abs/2503.14476)."""
    scale: bool = True
    """Divide by the group's standard deviation; without it, easy and hard prompts weigh alike (https://arxiv.org/abs/2503.20783)."""
    average: Literal["token", "answer"] = "token"
    """Whether every token weighs alike, or every answer whatever its length."""

    @property
    def needs_reference(self) -> bool:
        return self.beta > 0

    @property
    def unit(self) -> str:
        return f"{self.kind}, {'a token' if self.average == 'token' else 'an answer'}"

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.group, self.max_new_tokens, self.temperature, self.top_p, tuple(self.rewards))

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(file for reward in self.rewards for file in reward.files)

    @property
    def watched(self) -> tuple[str, ...]:
        return ("clipped", "divergence") if self.beta else ("clipped",)

    def advantages(self, rewards: np.ndarray) -> np.ndarray:
        centred = rewards - rewards.mean()
        return centred / (rewards.std(ddof=1) + 1e-4) if self.scale else centred

    def weight(self, examples: list[Example]) -> dict[str, float]:
        samples = [sample for example in examples for sample in example.samples]
        tokens = sum(sample.weight.sum(dtype="float64") for sample in samples)
        return {self.kind: float(tokens if self.average == "token" else len(samples))}

    def loss(self, scores: Scores, forest: Forest, reference: Scores | None = None, constants: Mapping[str, float] = NOTHING) -> Terms:
        now = scores.log_probability[forest.member_prediction]  # [M]
        advantage = forest.value[forest.member_sample]  # [M]
        weight = forest.member_weight
        if self.average == "answer":
            weight = weight / forest.weight_per_sample()[forest.member_sample]
        ratio = torch.exp(now - forest.member_old)
        kept = ratio.clamp(1 - self.clip, 1 + (self.clip if self.clip_high is None else self.clip_high))
        surrogate = torch.minimum(ratio * advantage, kept * advantage)
        loss = -(weight * surrogate).sum()
        watched = {"clipped": ((kept * advantage < ratio * advantage) * weight).sum()}
        if self.beta:
            assert reference is not None, "the parent is scored where there is a divergence to be weighed"
            apart = reference.log_probability[forest.member_prediction] - now
            divergence = (
                weight * (torch.exp(apart) - apart - 1)
            ).sum()  # unbiased and never negative: http://joschu.net/blog/kl-approx.html
            loss, watched["divergence"] = loss + self.beta * divergence, divergence
        return Terms({self.kind: loss}, {name: (value.detach().float(), self.kind) for name, value in watched.items()})
