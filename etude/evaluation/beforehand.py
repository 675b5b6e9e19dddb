"""What does the base make of the rows, before anything is trained? Those it answers already, and those it finds absurd."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from etude.core.sample import Example
from etude.data.checks.contract import Finding, Place, first, rows
from etude.data.rows import Cut, rows_of
from etude.engine.progress import Progress, silent
from etude.evaluation.preference import REJECTED, UNDESIRABLE
from etude.model.policy import Policy

LIKELY = 0.5
"""A token with more than half of the probability is the one that a greedy answer takes."""
FEWEST = 30
FAR = 6.0
"""Robust deviations (1.4826 times the median absolute deviation) from which a loss is an outlier."""
LEAST = 1.0
"""Nats a token by which it lies above the median besides."""


def findings(policy: Policy, examples: Sequence[Example], cut: Cut, progress: Progress = silent) -> Iterator[Finding]:
    """Score every row and say which are known already, and which are outliers of loss.

    A row counts as known where every learnt token has more than half of the probability: then a greedy answer must be this one. Answers
    that would be greedy with less are not counted, so the number is a low bound.
    """
    loss, least = scores(policy, examples, cut, progress)
    places = [Place(example.source, example.row) for example in examples]
    known = tuple(place for place, p in zip(places, least, strict=True) if p > LIKELY)
    if known:
        yield Finding(
            "rows that the base answers already",
            "warning" if len(known) * 2 > len(places) else "note",
            f"{len(known):,} of {rows(len(places))}: the base's own answer is the expected one, token for token",
            "nothing, where it is few; where it is most, ask whether there is anything to learn, or keep the harder rows",
            known,
        )
    if len(examples) < FEWEST:
        return
    middle = float(np.median(loss))
    spread = 1.4826 * float(np.median(np.abs(loss - middle)))
    far = np.flatnonzero(loss > middle + max(FAR * spread, LEAST))
    if len(far):
        far = far[np.argsort(-loss[far])]
        yield Finding(
            "rows that the base finds absurd",
            "warning",
            rows(len(far), f"have a loss far beyond all others' (half of them have up to {middle:.2f} nats a token)"),
            "look at them, the first ones first: wrong answers, other languages, garbage; or what is new and should be learnt",
            tuple(places[i] for i in far),
            first(f"{places[i]}: {loss[i]:.2f} nats a token" for i in far),
        )


def scores(policy: Policy, examples: Sequence[Example], cut: Cut, progress: Progress = silent) -> tuple[np.ndarray, np.ndarray]:
    """For each example its mean loss in nats a learnt token, and the smallest probability of any; of a pair, of the better answer.

    Returns: two arrays [examples], float64.
    """
    total, weight, least = np.zeros(len(examples)), np.zeros(len(examples)), np.ones(len(examples))
    with torch.no_grad():
        for low in range(0, len(examples), 256):
            for row in rows_of([_better(example) for example in examples[low : low + 256]], cut):
                forest = row.to(policy.device)
                log_probability = policy(forest).log_probability.double().cpu().numpy()  # [N]
                members = log_probability[row.member_prediction.numpy()]  # [M]
                numbers = np.asarray(row.example)[row.member_sample.numpy()] + low
                counts = row.member_weight.double().numpy()
                np.add.at(total, numbers, -members * counts)
                np.add.at(weight, numbers, counts)
                np.minimum.at(least, numbers[counts > 0], np.exp(members[counts > 0]))
                progress(row.logical_tokens)
    return total / np.maximum(weight, 1e-9), least


def _better(example: Example) -> Example:
    """Without an answer that lost, and as it is where nothing else is there."""
    samples = tuple(sample for sample in example.samples if sample.role not in (REJECTED, UNDESIRABLE))
    return Example(samples or example.samples, example.source, example.row)
