"""How far the policy's next-token distributions lie from a teacher's: read in chunks, so that no [T, vocabulary] tensor ever exists."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from etude.model.head import CHUNK, Shape


@dataclass(frozen=True, slots=True)
class Teaching:
    """Whose distributions the policy's are compared with, and how."""

    teacher: str
    """`parent`, or a model by its name."""
    top_k: int | None
    """The teacher's likeliest tokens that are stored, with all others as one outcome; None where it is asked in memory."""
    divergence: Literal["forward", "reverse", "jsd"]
    temperature: float
    mix: float
    """Share of the teacher in the mixture that `jsd` measures from."""

    def between(self, teacher: Tensor, policy: Tensor) -> Tensor:
        """[n] nats, from log-probabilities [n, outcomes] of both. https://arxiv.org/abs/2306.13649"""
        if self.divergence == "forward":
            return _from(teacher, policy)
        if self.divergence == "reverse":
            return _from(policy, teacher)
        sides = torch.stack((teacher + _log(self.mix, teacher), policy + _log(1 - self.mix, policy)))
        mixture = sides.logsumexp(0)
        return self.mix * _from(teacher, mixture) + (1 - self.mix) * _from(policy, mixture)


def _from(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q)."""
    return (p.exp() * (p - q)).sum(-1)


def _log(share: float, like: Tensor) -> Tensor:
    return torch.tensor(share, dtype=like.dtype, device=like.device).log()


class Distributions(Protocol):
    """A model's distributions at the predictions of a forest, as `divergence.States` has them."""

    def log_distribution(self, start: int, stop: int) -> Tensor:
        """[stop - start, vocabulary] log-probabilities, float32."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class TopK:
    """What is stored of them: the likeliest tokens, and all others as one outcome.

    Joined outcomes tell less: the divergence between them is at most the whole one. Left out instead, their mass would be given to the
    likeliest, which teaches to be surer than the teacher is (https://arxiv.org/abs/2503.16870).
    """

    ids: Tensor
    """[N, k] int64"""
    log_probability: Tensor
    """[N, k + 1] at the teaching's temperature, the others' last."""


def joined(logits: Tensor, ids: Tensor) -> Tensor:
    """[n, k + 1] log-probabilities of these tokens, and of all others together, from logits [n, vocabulary]."""
    total = logits.logsumexp(-1, keepdim=True)
    others = logits.scatter(-1, ids, float("-inf")).logsumexp(-1, keepdim=True)
    return torch.cat((logits.gather(-1, ids), others), -1) - total


def taught(
    hidden: Tensor, head: nn.Module, target: Tensor, shape: Shape, teacher: Distributions | TopK, teaching: Teaching
) -> tuple[Tensor, Tensor]:
    """[N] log-probability of each target; [N] the policy's divergence from the teacher in nats; float32, differentiable in states and head.

    The logits of a chunk are computed again in the backward pass.
    """

    def chunk(h: Tensor, t: Tensor, start: int) -> Tensor:
        logits = shape.apply(_logits(h, head).float())
        said = torch.log_softmax(logits, -1).gather(-1, t[:, None])[:, 0]
        softer, stop = logits / teaching.temperature, start + len(h)
        if isinstance(teacher, TopK):
            of_teacher, of_policy = teacher.log_probability[start:stop], joined(softer, teacher.ids[start:stop])
        else:
            with torch.no_grad():
                of_teacher = torch.log_softmax(teacher.log_distribution(start, stop) / teaching.temperature, -1)
            of_policy = torch.log_softmax(softer, -1)
        return torch.stack((said, teaching.between(of_teacher, of_policy)))

    pieces = []
    for start in range(0, len(target), CHUNK):
        part = hidden[start : start + CHUNK], target[start : start + CHUNK], start
        pieces.append(checkpoint(chunk, *part, use_reentrant=False) if torch.is_grad_enabled() else chunk(*part))
    log_probability, divergence = torch.cat(pieces, 1) if pieces else hidden.new_zeros(2, 0, dtype=torch.float32)
    return log_probability, divergence


def _logits(hidden: Tensor, head: nn.Module) -> Tensor:
    """A plain head in the type that computes; its float32 masters get their gradients summed in float32."""
    if type(head) is not nn.Linear:
        return head(hidden)
    return F.linear(hidden, head.weight.to(hidden.dtype), None if head.bias is None else head.bias.to(hidden.dtype))
