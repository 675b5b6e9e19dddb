"""A metric as a reward: what answers are judged by can also be learnt from."""

from typing import ClassVar

from pydantic import Field

from etude.objective.rewards.contract import Reward
from etude.recipe.strict import one_of


class ByMetric(Reward):
    """1 where the metric counts the answer as right, 0 where it does not."""

    kind: ClassVar[str] = "metric"
    metric: one_of("metric", "exact-match") = Field(default="exact-match", validate_default=True)  # type: ignore[valid-type]
    """Such as `valid-json` with its keys, `exact-match`, `accuracy`."""

    def score(self, prompt: str, expected: str, answer: str) -> float:
        return float(self.metric.read(expected, answer).right)
