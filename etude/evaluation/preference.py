"""Of each pair of answers, which does a model find likelier? What a preference stage is for, without any sampling."""

from typing import ClassVar

from etude.evaluation.metric import Metric, Reading

CHOSEN, REJECTED = "chosen", "rejected"
UNDESIRABLE = "undesirable"
"""The role of a rated answer that was not liked: never one that should be given."""


class Preferred(Metric):
    """Share of held-out pairs whose chosen answer is the likelier one. An answer here is the word `chosen` or `rejected`.

    Likelihoods are sums over whole answers, as the objective itself compares them (https://arxiv.org/abs/2305.18290, §4).
    """

    kind: ClassVar[str] = "preferred"
    by_head: bool = False
    """By what a reward head says of both, rather than by likelihood."""

    @property
    def title(self) -> str:
        return "chosen answer worth more" if self.by_head else "chosen answer likelier"

    def read(self, expected: str, answer: str) -> Reading:
        return Reading(answer == expected, expected, answer)
