"""The truth that forests are measured against: each sample alone through plain transformers, its own logits, and torch's cross entropy.

Nothing of etude computes here; only its records (samples and their weights) are read.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from etude.core.sample import Example, Sample


def log_probability(model: PreTrainedModel, sample: Sample) -> Tensor:
    """Of a whole path: the weighted sum of its tokens' log-probabilities."""
    tokens = torch.from_numpy(sample.tokens).long()
    logits = model(input_ids=tokens[None], use_cache=False).logits[0, :-1].float()
    return -(torch.from_numpy(sample.weight)[1:] * F.cross_entropy(logits, tokens[1:], reduction="none")).sum()


def next_token(model: PreTrainedModel, examples: list[Example]) -> Tensor:
    """Mean negative log-likelihood over all supervised weight."""
    samples = [sample for example in examples for sample in example.samples]
    return -sum(log_probability(model, sample) for sample in samples) / sum(float(sample.weight.sum()) for sample in samples)


def dpo(model: PreTrainedModel, parent: PreTrainedModel, examples: list[Example], beta: float) -> Tensor:
    """The formula of the paper (equation 7), pair by pair."""
    losses = []
    for example in examples:
        chosen, rejected = (next(s for s in example.samples if s.role == role) for role in ("chosen", "rejected"))
        with torch.no_grad():
            before = log_probability(parent, chosen) - log_probability(parent, rejected)
        now = log_probability(model, chosen) - log_probability(model, rejected)
        losses.append(-torch.log(torch.sigmoid(beta * (now - before))))
    return torch.stack(losses).mean()


def gradients(loss: Tensor, model: PreTrainedModel) -> dict[str, Tensor]:
    """By parameter name; zeros where the loss does not reach."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named.items(), found, strict=True)}
