"""KTO: single answers that were liked or not, weighed as people weigh gains and losses. https://arxiv.org/abs/2402.01306"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from pydantic import PositiveFloat
from torch import Tensor

from etude.core.forest import Forest
from etude.core.sample import Example, Sample
from etude.core.scores import Scores
from etude.objective.contract import NOTHING, Objective, Terms

_MISMATCHED = "mismatched"


class KTO(Objective):
    """An answer's reward is measured from a baseline: how far the policy has moved on answers that belong to other prompts.

    loss = weight * (1 - sigmoid(±(reward - baseline))), + for liked answers, with reward = beta * log(p / p_parent) and
    baseline = max(0, the mean reward of each prompt with the next row's answer), which has no gradient.
    """

    kind: ClassVar[str] = "kto"
    beta: PositiveFloat = 0.1
    """Inverse temperature of the implicit reward."""
    desirable_weight: PositiveFloat = 1.0
    """Of liked answers; weigh the rarer kind more, so that weight times count is about equal."""
    undesirable_weight: PositiveFloat = 1.0
    """Of disliked answers."""

    @property
    def roles(self) -> tuple[str, ...]:
        return ("desirable", "undesirable")

    @property
    def unit(self) -> str:
        return "kto, an answer"

    @property
    def prepares(self) -> tuple[str, ...]:
        return (_MISMATCHED,)

    @property
    def prepared(self) -> tuple[str, ...]:
        return ("baseline",)

    @property
    def needs_reference(self) -> bool:
        return True

    @property
    def watched(self) -> tuple[str, ...]:
        return ("accuracy", "baseline")

    def arrange(self, examples: Sequence[Example]) -> list[Example]:
        """Beside each answer the next row's answer behind the same prompt, cut where it would be longer than any row is."""
        longest = max((len(sample) for example in examples for sample in example.samples), default=0)
        return [
            Example((*one.samples, _mismatched(one.samples[-1], other.samples[-1], longest)), one.source, one.row)
            for one, other in pairwise([*examples, *examples[:1]])
        ]

    def weight(self, examples: list[Example]) -> dict[str, float]:
        return {"kto": float(len(examples))}

    def prepare(self, scores: Scores, forest: Forest, reference: Scores | None = None) -> dict[str, tuple[Tensor, str]]:
        return {"baseline": (self._reward(scores, forest, reference).sum(), "kto")}

    def loss(self, scores: Scores, forest: Forest, reference: Scores | None = None, constants: Mapping[str, float] = NOTHING) -> Terms:
        reward, baseline = self._reward(scores, forest, reference), max(0.0, constants["baseline"])
        liked, disliked = forest.samples_with("desirable"), forest.samples_with("undesirable")
        ahead = torch.cat((reward[liked] - baseline, baseline - reward[disliked]))  # [S] how far each lies on its own side
        weight = torch.cat(
            (ahead.new_full((len(liked),), self.desirable_weight), ahead.new_full((len(disliked),), self.undesirable_weight))
        )
        watched = {"accuracy": ahead > 0, "baseline": torch.full_like(ahead, baseline)}
        terms = {"kto": (weight * (1 - torch.sigmoid(ahead))).sum()}
        return Terms(terms, {name: (value.detach().float().sum(), "kto") for name, value in watched.items()})

    def _reward(self, scores: Scores, forest: Forest, reference: Scores | None) -> Tensor:
        """[S] beta * log(p / p_parent) of each answer."""
        assert reference is not None, "kto is always scored beside its parent"
        return self.beta * forest.per_sample(scores.log_probability - reference.log_probability)


def _mismatched(one: Sample, other: Sample, longest: int) -> Sample:
    """The prompt of one with the answer of another: everything before, and everything from, the first supervised token."""
    prompt, answer = one.tokens[: _first(one)], other.tokens[_first(other) :]
    weight = np.concatenate([np.zeros(len(prompt), np.float32), other.weight[_first(other) :]])
    return Sample(np.concatenate([prompt, answer])[:longest], weight[:longest], _MISMATCHED)


def _first(sample: Sample) -> int:
    return int(np.flatnonzero(sample.weight)[0])
