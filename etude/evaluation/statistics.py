"""Is a difference more than noise? Paired intervals and tests of any figure that is a function of sums over rows.

Two models answer the same rows, so rows are resampled, and models swapped, in pairs. Only numpy; seeded; no loops over
rows. Sources: Efron & Tibshirani, An Introduction to the Bootstrap, ch. 14 and 15 (BCa, randomisation); Wilson 1927;
McNemar 1947; Bonett & Price 2012, https://doi.org/10.1002/sim.4386 (paired difference of rates).
"""

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Literal

import numpy as np

from etude.recipe.strict import Strict

Figure = Callable[[np.ndarray], np.ndarray]
"""[…, F] sums of features over rows → […] the figure."""

Verdict = Literal["better", "worse", "unchanged", "cannot tell"]
"""`unchanged` is said only where a margin was stated and the whole interval lies within it."""

RESAMPLES = 10_000
_CELLS = 4_000_000  # resamples × rows held at once: 32 MB
_NORMAL = NormalDist()


class Interval(Strict):
    """A figure and the interval it can be believed to lie in."""

    value: float
    """The figure on all rows."""
    low: float
    """Lower end, at the stated confidence."""
    high: float
    """Upper end."""

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def ratio_of_sums(sums: np.ndarray) -> np.ndarray:
    """[…, 2] → […]: the first sum over the second, such as nats over tokens, or right answers over rows."""
    return sums[..., 0] / sums[..., 1]


def bootstrap(features: np.ndarray, figures: Figure, confidence: float, seed: int, resamples: int = RESAMPLES) -> list[Interval]:
    """Bias-corrected and accelerated (BCa) bootstrap intervals over rows.

    Args:
        features: [n, F] what is summed over rows; for two models, both models' features side by side.
        figures: [..., F] sums → [..., S] figures; an interval for each of the S comes back.
        confidence: of the two-sided interval, such as 0.95.
    """
    n = len(features)
    assert n > 1, "an interval over rows needs two rows"
    total = features.sum(0)
    value = figures(total)  # [S]
    drawn = np.concatenate([figures(counts @ features) for counts in _resampled(n, resamples, seed)])  # [resamples, S]
    without = figures(total - features)  # [n, S], each row left out once
    pull = without.mean(0) - without
    spread = (pull**2).sum(0) ** 1.5
    acceleration = np.divide((pull**3).sum(0), 6 * spread, out=np.zeros_like(value), where=spread > 0)
    below = ((drawn < value).mean(0) + (drawn <= value).mean(0)) / 2  # ties count half: 0/1 rows have many
    intervals = []
    for s in range(len(value)):
        bias = _NORMAL.inv_cdf(min(max(below[s], 1 / resamples), 1 - 1 / resamples))
        z = _NORMAL.inv_cdf((1 + confidence) / 2)
        shifted = [bias + (bias + side) / (1 - acceleration[s] * (bias + side)) for side in (-z, z)]
        low, high = np.quantile(drawn[:, s], [_NORMAL.cdf(x) for x in shifted])
        intervals.append(Interval(value=value[s], low=low, high=high))
    return intervals


def _resampled(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """[chunk, n] float64: how often each row was drawn, a chunk of resamples at a time."""
    generator = np.random.default_rng(seed)
    chunk = max(1, _CELLS // n)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        rows = generator.integers(0, n, (size, n)) + np.arange(size)[:, None] * n
        yield np.bincount(rows.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def side_by_side(figure: Figure) -> Figure:
    """[..., parent's F then tuned's F] sums → [..., 3]: the parent's figure, the tuned one's, and their difference."""

    def figures(sums: np.ndarray) -> np.ndarray:
        parent, tuned = (figure(half) for half in np.split(sums, 2, axis=-1))
        return np.stack([parent, tuned, tuned - parent], axis=-1)

    return figures


def randomisation_p(parent: np.ndarray, tuned: np.ndarray, figure: Figure, seed: int, resamples: int = RESAMPLES) -> float:
    """Two-sided p-value of a paired randomisation test: how often is the difference as large if models change places at random, row by row?

    Args:
        parent, tuned: [n, F] features of the same rows.
    """
    generator = np.random.default_rng(seed)
    both, change = np.stack([parent.sum(0), tuned.sum(0)]), tuned - parent
    seen = abs(figure(both[1]) - figure(both[0]))
    as_large, chunk = 0, max(1, _CELLS // len(change))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        moved = generator.integers(0, 2, (size, len(change))).astype(np.float64) @ change  # [size, F]
        difference = np.abs(figure(both[1] - moved) - figure(both[0] + moved))
        as_large += int((difference >= seen * (1 - 1e-9)).sum())  # sums in another order may round lower
    return (1 + as_large) / (1 + resamples)


def mcnemar_p(lost: int, gained: int) -> float:
    """Exact two-sided McNemar: of the rows that only one of two models got right, is the split unlike a fair coin's?"""
    changed, fewer = lost + gained, min(lost, gained)
    term = ways = 1  # in whole numbers: exact for any count of rows
    for k in range(fewer):
        term = term * (changed - k) // (k + 1)
        ways += term
    return min(1.0, 2 * ways / 2**changed)


def fewest_changed(confidence: float) -> int:
    """How many rows must change, all the same way, before McNemar's exact test can speak: 6 at 95 %."""
    return math.floor(1 - math.log2(1 - confidence)) + 1


def wilson(right: int, n: int, confidence: float) -> Interval:
    """Wilson's score interval of a rate; honest at 0 and 1, where the bootstrap sees no spread."""
    z, rate = _NORMAL.inv_cdf((1 + confidence) / 2), right / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return Interval(value=rate, low=max(0.0, min(rate, centre - half)), high=min(1.0, max(rate, centre + half)))


def paired_rates(lost: int, gained: int, n: int, confidence: float) -> Interval:
    """Bonett and Price's interval of the difference of two paired rates: for few changed rows, where resampling sees too little."""
    z = _NORMAL.inv_cdf((1 + confidence) / 2)
    down, up = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    half = z * math.sqrt((down + up - (up - down) ** 2) / (n + 2))
    return Interval(value=(gained - lost) / n, low=max(-1.0, up - down - half), high=min(1.0, up - down + half))


def smallest_difference(interval: Interval, confidence: float, power: float = 0.8) -> float:
    """About the smallest true difference that these rows would have shown with probability `power`.

    Normal approximation, (z_confidence + z_power) · standard error, with the standard error read off the interval that was
    measured; good to a few tenths of itself, and meant for "this many rows are too few", not for planning to the row.
    """
    z = _NORMAL.inv_cdf((1 + confidence) / 2)
    return (z + _NORMAL.inv_cdf(power)) * (interval.high - interval.low) / (2 * z)


def judge_difference(
    difference: Interval, p_value: float, confidence: float, higher_is_better: bool, margin: float | None = None
) -> Verdict:
    """What may be said of a difference (tuned − parent): better or worse only where interval and test agree.

    With a margin, a difference whose whole interval lies within ±margin is `unchanged`, however sure its sign.
    """
    if margin is not None and -margin < difference.low and difference.high < margin:
        return "unchanged"
    if not difference.excludes_zero or p_value >= 1 - confidence:
        return "cannot tell"
    return "better" if (difference.value > 0) == higher_is_better else "worse"
