"""Examples → their negative log-likelihoods under a policy, without gradient: for held-out loss and for judging."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from etude.core.sample import Example
from etude.data.rows import Cut, rows_of
from etude.engine.progress import Progress, silent
from etude.model.policy import Policy


@dataclass(frozen=True, slots=True, eq=False)
class Likelihoods:
    """For each example, in the order given: sums over its samples' supervised tokens, each counted with its weight."""

    negative_log_likelihood: np.ndarray
    """[examples] nats, float64"""
    weight: np.ndarray
    """[examples] supervised weight, float64"""

    @property
    def mean(self) -> float:
        """Nats per supervised token."""
        return float(self.negative_log_likelihood.sum() / self.weight.sum())


def likelihoods(policy: Policy, examples: Sequence[Example], cut: Cut, progress: Progress = silent) -> Likelihoods:
    """Score examples in forests, a few hundred at a time, so that their beginnings are shared. Model and mode are left as they are."""
    loss, weight = np.zeros(len(examples)), np.zeros(len(examples))
    with torch.no_grad():
        for low in range(0, len(examples), 256):
            for row in rows_of(examples[low : low + 256], cut):
                forest = row.to(policy.device)
                numbers = np.asarray(row.example) + low
                np.add.at(loss, numbers, -forest.per_sample(policy(forest).log_probability).double().cpu().numpy())
                np.add.at(weight, numbers, row.weight_per_sample().double().numpy())
                progress(row.logical_tokens)
    return Likelihoods(loss, weight)


def leaf_outputs(policy: Policy, examples: Sequence[Example], cut: Cut, progress: Progress = silent) -> np.ndarray:
    """[samples, outputs] float64, what the linear head says at the last token of every sample, in the order given."""
    starts = np.cumsum([0, *(len(one.samples) for one in examples)])
    found: np.ndarray | None = None
    with torch.no_grad():
        for low in range(0, len(examples), 256):
            for row in rows_of(examples[low : low + 256], cut):
                read = policy(row.to(policy.device), outputs="leaf").outputs
                assert read is not None, "leaves were asked for"
                said = read.double().cpu().numpy()  # [S, outputs]
                found = np.zeros((starts[-1], said.shape[1])) if found is None else found
                # A row holds whole examples, their samples in order.
                found[np.concatenate([np.arange(starts[i + low], starts[i + low + 1]) for i in dict.fromkeys(row.example)])] = said
                progress(row.logical_tokens)
    assert found is not None, "something is scored"
    return found
