"""How the learning rate moves: pure functions of the step, as a factor of the peak rate."""

import math
from abc import abstractmethod
from typing import Annotated, ClassVar

from pydantic import Field

from etude.recipe.strict import Leaf


class Schedule(Leaf):
    """`factor(step, steps)` for step 0 … steps - 1, at most 1."""

    warmup: Annotated[float, Field(ge=0)] = 0.03
    """Share of the steps over which the rate rises from near zero; 1 or more is a number of steps."""

    @abstractmethod
    def decay(self, progress: float) -> float:
        """The factor after warm-up, for progress in [0, 1)."""

    def factor(self, step: int, steps: int) -> float:
        warm = math.ceil(self.warmup * steps) if self.warmup < 1 else min(int(self.warmup), steps)
        if step < warm:
            return (step + 1) / warm
        return self.decay((step - warm) / max(1, steps - warm))


class Constant(Schedule):
    """The peak rate throughout, after warm-up."""

    kind: ClassVar[str] = "constant"

    def decay(self, progress: float) -> float:
        return 1.0


class Linear(Schedule):
    """A straight line down to `floor`."""

    kind: ClassVar[str] = "linear"
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Factor at the end."""

    def decay(self, progress: float) -> float:
        return 1.0 - (1.0 - self.floor) * progress


class Cosine(Schedule):
    """Half a cosine down to `floor`. https://arxiv.org/abs/1608.03983"""

    kind: ClassVar[str] = "cosine"
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Factor at the end."""

    def decay(self, progress: float) -> float:
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))


class WarmupStableDecay(Schedule):
    """Flat, then a straight line down over the last `decay_share` of the steps. https://arxiv.org/abs/2404.06395"""

    kind: ClassVar[str] = "warmup-stable-decay"
    decay_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the steps after warm-up that go down."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Factor at the end."""

    def decay(self, progress: float) -> float:
        left = 1.0 - progress
        return 1.0 if left >= self.decay_share else self.floor + (1.0 - self.floor) * left / self.decay_share
