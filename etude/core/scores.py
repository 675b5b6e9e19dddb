"""What a policy says about a forest: readings for each distinct prediction."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Readings at `source → target`, in float32, differentiable unless scored without gradient."""

    log_probability: Tensor
    """[N] natural logarithm of the probability of each target."""
    log_sum_exp: Tensor | None = None
    """[N] of the logits at each source: how far they are from being log-probabilities themselves. Only where it is asked for."""
    mean_logit: Tensor | None = None
    """[N] over the vocabulary. Only where `log_sum_exp` is."""
    divergence: Tensor | None = None
    """[N] from a teacher's distribution, in nats. Only where there is a teacher."""
