"""What a policy says about a forest: readings for each distinct prediction."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a linear head on the final hidden state says, beside or instead of the vocabulary's."""

    labels: tuple[str, ...]
    """A name for each output."""
    at: Literal["leaf", "source"]
    """Read at each sample's last token, where nothing of the vocabulary is then computed; or wherever a token is predicted."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Readings at `source → target`, in float32, differentiable unless scored without gradient."""

    log_probability: Tensor
    """[N] natural logarithm of the probability of each target; empty where only leaves are read."""
    log_sum_exp: Tensor | None = None
    """[N] of the logits at each source: how far they are from being log-probabilities themselves. Only where it is asked for."""
    mean_logit: Tensor | None = None
    """[N] over the vocabulary. Only where `log_sum_exp` is."""
    outputs: Tensor | None = None
    """[S, outputs] of the linear head at each leaf, or [N, outputs] at each source. Only where it is asked for."""
    divergence: Tensor | None = None
    """[N] from a teacher's distribution, in nats. Only where there is a teacher."""
