"""KTO: single answers that were liked or not, weighed as people weigh gains and losses. https://arxiv.org/abs/2402.01306"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import PositiveFloat
from torch import Tensor

from etude.core.forest import Forest
from etude.core.sample import Example, Sample
from etude.core.scores import Scores
from etude.errors import TrainingError
from etude.objective.contract import NOTHING, Objective, Terms

_MISMATCHED = "mismatched"


class KTO(Objective):
    """An answer's reward is measured from a baseline: how far the policy has moved on answers that belong to other prompts.

    loss = weight * (1 - sigmoid(±(reward - baseline))), + for liked answers, with reward = beta * log(p / p_parent) and
    baseline = max(0, the mean reward of each prompt with the answer of the next row that asks something else), which has no gradient.
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
        """Beside each answer that of the next row that asks something else, cut where it would be longer than any row is."""
        longest = max((len(sample) for example in examples for sample in example.samples), default=0)
        prompts = [_prompt(example.samples[-1]) for example in examples]
        if len({prompt.tobytes() for prompt in prompts}) == 1:
            raise TrainingError(
                f"{examples[0].source}: every row asks the same, and kto compares with answers to other prompts", "take dpo"
            )
        return [
            Example((*one.samples, _mismatched(one.samples[-1], other.samples[-1], longest)), one.source, one.row)
            for one, other in zip(examples, _others(examples, prompts), strict=True)
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


def _others(examples: Sequence[Example], prompts: Sequence[np.ndarray]) -> list[Example]:
    """For each example the next one that asks something else, around the end."""
    found: list[Example] = []
    for i in range(2 * len(examples) - 1, -1, -1):  # backwards, so that what comes next is known
        here, after = i % len(examples), (i + 1) % len(examples)
        other = examples[after]
        if found and np.array_equal(prompts[after], prompts[here]):
            other = found[-1]
        found.append(other)
    return found[: len(examples) - 1 : -1]


def _mismatched(one: Sample, other: Sample, longest: int) -> Sample:
    """The prompt of one with the answer of another: everything before, and everything from, the first supervised token."""
    prompt, start = _prompt(one), len(_prompt(other))
    answer, weight = other.tokens[start:], np.concatenate([np.zeros(len(prompt), np.float32), other.weight[start:]])
    return Sample(np.concatenate([prompt, answer])[:longest], weight[:longest], _MISMATCHED)


def _prompt(sample: Sample) -> np.ndarray:
    """[P] everything before the first supervised token."""
    return sample.tokens[: int(np.flatnonzero(sample.weight)[0])]
