"""What a policy says about a forest: a reading for each distinct prediction."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Readings at `source → target`, in float32, differentiable unless scored without gradient."""

    log_probability: Tensor
    """[N] natural logarithm of the probability of each target."""

    def detach(self) -> "Scores":
        return Scores(self.log_probability.detach())
