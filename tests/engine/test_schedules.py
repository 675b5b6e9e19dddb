"""Schedules by hand: their corners, and what warm-up means as a share and as a number."""

import math

import pytest
from pydantic import ValidationError

from etude.engine.schedules import Constant, Cosine, Linear, WarmupStableDecay


def factors(schedule, steps: int) -> list[float]:
    return [schedule.factor(step, steps) for step in range(steps)]


def test_warmup_as_a_number_and_as_a_share():
    assert factors(Constant(warmup=4), 6) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert factors(Constant(warmup=0.5), 4) == pytest.approx([0.5, 1, 1, 1])
    assert factors(Constant(warmup=0), 3) == [1, 1, 1]
    assert factors(Constant(warmup=100), 2) == pytest.approx([0.5, 1.0]), "a warm-up longer than the run still reaches its peak"
    assert factors(Constant(), 1) == [1.0], "a single step is taken at the peak"


def test_linear():
    assert factors(Linear(warmup=0), 4) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert factors(Linear(warmup=0, floor=0.2), 4) == pytest.approx([1, 0.8, 0.6, 0.4])


def test_cosine():
    assert factors(Cosine(warmup=1), 5) == pytest.approx([1, *((1 + math.cos(math.pi * i / 4)) / 2 for i in range(4))])
    assert Cosine(warmup=0, floor=0.1).factor(500, 1000) == pytest.approx(0.55)


def test_warmup_stable_decay():
    schedule = WarmupStableDecay(warmup=2, decay_share=0.5, floor=0.0)
    assert factors(schedule, 10) == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert factors(WarmupStableDecay(warmup=0, decay_share=1, floor=0.5), 2) == pytest.approx([1, 0.75])


@pytest.mark.parametrize("schedule", [Constant(), Linear(), Cosine(), WarmupStableDecay()])
def test_never_above_the_peak_never_below_zero_and_down_once_warm(schedule):
    for steps in (1, 2, 3, 7, 100):
        found = factors(schedule, steps)
        assert all(0 <= factor <= 1 for factor in found) and max(found) == 1
        warm = found.index(1)
        assert found[warm:] == sorted(found[warm:], reverse=True)


def test_options_out_of_range_are_refused():
    for kind, options in ((Linear, {"floor": 1.5}), (Cosine, {"warmup": -1}), (WarmupStableDecay, {"decay_share": 0})):
        with pytest.raises(ValidationError):
            kind(**options)
