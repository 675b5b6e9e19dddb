"""Intervals and tests against scipy and statsmodels; error rates by trial: A against A is noise, a planted regression is caught."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from etude.evaluation import statistics
from etude.evaluation.statistics import Interval


def compare(before, now, confidence=0.95, seed=0, resamples=2_000):
    """Interval and p-value of the difference of means of [n] values."""
    ones = np.ones(len(before))
    parent, tuned = np.stack([before, ones], 1), np.stack([now, ones], 1)
    figures = statistics.side_by_side(statistics.ratio_of_sums)
    *_, difference = statistics.bootstrap(np.concatenate([parent, tuned], 1), figures, confidence, seed, resamples)
    return difference, statistics.randomisation_p(parent, tuned, statistics.ratio_of_sums, seed, resamples)


@pytest.mark.parametrize("n", [12, 80])
def test_bca_interval_agrees_with_scipy(n):
    rows = np.random.default_rng(1).lognormal(0, 1, n)
    theirs = stats.bootstrap((rows,), np.mean, n_resamples=20_000, confidence_level=0.9, method="BCa", rng=np.random.default_rng(2))
    figures = lambda sums: statistics.ratio_of_sums(sums)[..., None]
    [ours] = statistics.bootstrap(np.stack([rows, np.ones(n)], 1), figures, 0.9, seed=3, resamples=20_000)
    tolerance = 0.03 * theirs.standard_error * 3
    assert ours.value == pytest.approx(rows.mean())
    assert (ours.low, ours.high) == pytest.approx(theirs.confidence_interval, abs=tolerance)


def test_bca_interval_of_a_ratio_agrees_with_scipy():
    generator = np.random.default_rng(4)
    tokens = generator.integers(3, 40, 60).astype(float)
    nats = tokens * generator.gamma(4, 0.3, 60)
    ratio = lambda nats, tokens, axis: nats.sum(axis) / tokens.sum(axis)
    theirs = stats.bootstrap(
        (nats, tokens), ratio, paired=True, n_resamples=20_000, method="BCa", rng=np.random.default_rng(5), vectorized=True
    )
    figures = lambda sums: statistics.ratio_of_sums(sums)[..., None]
    [ours] = statistics.bootstrap(np.stack([nats, tokens], 1), figures, 0.95, seed=6, resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx(theirs.confidence_interval, abs=0.1 * theirs.standard_error)


def test_randomisation_agrees_with_scipy():
    generator = np.random.default_rng(7)
    before = generator.normal(0, 1, 40)
    now = before + generator.normal(0.2, 0.7, 40)
    mean_difference = lambda x, y, axis: np.mean(y - x, axis)
    theirs = stats.permutation_test(
        (before, now), mean_difference, permutation_type="samples", n_resamples=20_000, vectorized=True, rng=np.random.default_rng(8)
    )
    assert compare(before, now, resamples=20_000)[1] == pytest.approx(theirs.pvalue, abs=0.012)


def test_mcnemar_agrees_with_statsmodels_and_scipy():
    for lost, gained in [(0, 0), (0, 5), (0, 6), (3, 9), (10, 10), (117, 240), (2500, 2600)]:
        theirs = mcnemar([[5, lost], [gained, 7]], exact=True).pvalue
        assert statistics.mcnemar_p(lost, gained) == pytest.approx(theirs, rel=1e-9)
        if lost + gained:
            assert statistics.mcnemar_p(lost, gained) == pytest.approx(stats.binomtest(lost, lost + gained).pvalue, rel=1e-9)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99, 0.999])
def test_fewest_changed_is_where_mcnemar_first_speaks(confidence):
    fewest = statistics.fewest_changed(confidence)
    assert statistics.mcnemar_p(0, fewest) < 1 - confidence <= statistics.mcnemar_p(0, fewest - 1)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (7, 19), (150, 200)])
def test_wilson_agrees_with_statsmodels(right, n):
    ours = statistics.wilson(right, n, 0.95)
    assert (ours.low, ours.high) == pytest.approx(proportion_confint(right, n, 0.05, method="wilson"), abs=1e-12)


def test_paired_rates_cover_what_they_promise():
    """Few rows change, which is when this interval is used: its true coverage, summed over all outcomes, stays near 95 %."""
    n, down, up = 60, 0.02, 0.06
    covered = 0.0
    for lost in range(n + 1):
        for gained in range(n + 1 - lost):
            rest = n - lost - gained
            ways = math.lgamma(n + 1) - sum(math.lgamma(k + 1) for k in (lost, gained, rest))
            probability = math.exp(ways + lost * math.log(down) + gained * math.log(up) + rest * math.log(1 - down - up))
            interval = statistics.paired_rates(lost, gained, n, 0.95)
            covered += probability * (interval.low <= up - down <= interval.high)
    assert 0.94 <= covered <= 0.99


def test_nothing_changed_is_not_an_interval_of_no_width():
    interval = statistics.paired_rates(0, 0, 200, 0.95)
    assert interval.low < 0 < interval.high and interval.high == pytest.approx(0.0137, abs=1e-3)


def test_equal_seeds_give_equal_intervals_and_equal_models_none():
    values = np.random.default_rng(9).normal(size=30)
    assert compare(values, values + 0.1 * values**2, seed=1) == compare(values, values + 0.1 * values**2, seed=1)
    difference, p_value = compare(values, values)
    assert (difference.low, difference.value, difference.high, p_value) == (0, 0, 0, 1)


def test_chunks_do_not_change_how_rows_are_weighed(monkeypatch):
    monkeypatch.setattr(statistics, "_CELLS", 100)
    counts = np.concatenate(list(statistics._resampled(30, 50, seed=0)))
    assert counts.shape == (50, 30) and (counts.sum(1) == 30).all()


# 200 trials of a true 5 % flag 10 ± 3.1; a binomial with p = 0.05 exceeds 19 in 0.3 % of such experiments. Interval and
# test must both speak, so fewer are expected, and more than 19 would mean that the stated error is not kept.
MOST_FALSE_ALARMS = 19


def test_a_against_a_is_flagged_at_about_the_stated_rate():
    generator = np.random.default_rng(10)
    verdicts = []
    for trial in range(200):
        difficulty = generator.normal(2, 0.5, 60)
        before, now = difficulty + generator.gamma(2, 0.2, (2, 60))  # the same model, its noise drawn twice
        verdicts.append(statistics.judge_difference(*compare(before, now, seed=trial, resamples=1_000), 0.95, higher_is_better=False))
    alarms = sum(verdict != "cannot tell" for verdict in verdicts)
    assert 2 <= alarms <= MOST_FALSE_ALARMS


def test_a_against_a_in_rates_is_flagged_at_most_at_the_stated_rate():
    generator = np.random.default_rng(11)
    alarms = 0
    for trial in range(200):
        chance = generator.beta(2, 1, 100)
        before, now = generator.random((2, 100)) < chance
        lost, gained = int((before & ~now).sum()), int((now & ~before).sum())
        difference, _ = compare(before.astype(float), now.astype(float), seed=trial, resamples=500)
        alarms += statistics.judge_difference(difference, statistics.mcnemar_p(lost, gained), 0.95, higher_is_better=True) != "cannot tell"
    assert alarms <= MOST_FALSE_ALARMS


def test_a_planted_regression_is_caught():
    generator = np.random.default_rng(12)
    caught = 0
    for trial in range(50):
        difficulty = generator.normal(2, 0.5, 60)
        before, now = difficulty + generator.gamma(2, 0.2, (2, 60)) + np.array([[0.0], [0.2]])
        caught += statistics.judge_difference(*compare(before, now, seed=trial, resamples=1_000), 0.95, higher_is_better=False) == "worse"
    assert caught >= 40


def test_the_smallest_difference_is_shown_about_four_times_in_five():
    generator = np.random.default_rng(13)
    difference, _ = compare(*generator.normal(0, 1, (2, 100)))
    planted = statistics.smallest_difference(difference, 0.95)
    shown = 0
    for trial in range(100):
        before, now = generator.normal(0, 1, (2, 100)) + np.array([[0.0], [planted]])
        shown += statistics.judge_difference(*compare(before, now, seed=trial, resamples=500), 0.95, higher_is_better=True) == "better"
    assert 62 <= shown <= 95


@pytest.mark.parametrize(
    ("low", "high", "p_value", "margin", "verdict"),
    [
        (0.1, 0.3, 0.01, None, "better"),
        (-0.3, -0.1, 0.01, None, "worse"),
        (0.1, 0.3, 0.06, None, "cannot tell"),  # the test does not agree
        (-0.1, 0.3, 0.01, None, "cannot tell"),  # the interval does not agree
        (0.01, 0.03, 0.01, 0.05, "unchanged"),
        (-0.01, 0.08, 0.2, 0.05, "cannot tell"),  # not shown to be unchanged either
    ],
)
def test_verdicts_need_interval_and_test(low, high, p_value, margin, verdict):
    difference = Interval(value=(low + high) / 2, low=low, high=high)
    assert statistics.judge_difference(difference, p_value, 0.95, higher_is_better=True, margin=margin) == verdict
    opposite = {"better": "worse", "worse": "better"}.get(verdict, verdict)
    assert statistics.judge_difference(difference, p_value, 0.95, higher_is_better=False, margin=margin) == opposite
