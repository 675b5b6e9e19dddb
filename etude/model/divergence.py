"""How far two models' next-token distributions lie apart, position by position, without a [T, vocabulary] tensor."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from etude.core.forest import Forest
from etude.model.head import CHUNK, Shape
from etude.model.policy import Policy


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """What is left of a forward pass when a distribution must be made from it later."""

    hidden: Tensor
    """[N, hidden size]"""
    head: nn.Module
    shape: Shape

    @classmethod
    def of(cls, policy: Policy, forest: Forest, head: nn.Module) -> "States":
        """`head` is the policy's, or a copy of it where the policy will be trained before the states are read."""
        with torch.no_grad():
            return cls(policy.hidden(forest), head, policy.shape)

    def log_distribution(self, start: int, stop: int) -> Tensor:
        """[stop - start, vocabulary] log-probabilities, float32."""
        return torch.log_softmax(self.shape.apply(self.head(self.hidden[start:stop].to(self.head.weight.dtype)).float()), -1)  # type: ignore[union-attr]


def divergence(parent: States, tuned: States) -> Tensor:
    """[N] KL(parent ‖ tuned) in nats: what is lost by believing the tuned model where the parent is right."""
    pieces = []
    with torch.no_grad():
        for start in range(0, len(parent.hidden), CHUNK):
            p, q = (states.log_distribution(start, start + CHUNK) for states in (parent, tuned))
            pieces.append((p.exp() * (p - q)).sum(-1))
    return torch.cat(pieces)
