"""Planted faults: garbage among the rows, a NaN, a layer that explodes. Found within the step; the run ends as well as one without them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from etude.adaptation.full import Full
from etude.data.rows import Cut
from etude.engine.loop import fit
from etude.engine.score import likelihoods
from etude.engine.stability import Guard
from etude.errors import TrainingError
from etude.objective.next_token import NextToken
from etude.recipe.schema import Stability

STEPS, GARBAGE = 60, range(320, 328)
GUARD = {"window": 16, "threshold": 5.0, "skips": 1}


def progression(start: int, by: int) -> tiny.Sample:
    return tiny.sample(3 + (start + by * np.arange(20)) % (tiny.VOCABULARY - 3))


def rows(count: int, garbage: range = range(0)) -> list:
    """Progressions, which are soon learnt; and where it is planted, what nobody can learn."""
    draw = np.random.default_rng(0)
    samples = [progression(int(draw.integers(90)), int(draw.integers(1, 4))) for _ in range(count)]
    for i in garbage:
        samples[i] = tiny.sample(draw.integers(3, tiny.VOCABULARY, 20))
    return tiny.examples_of(samples)


def run(folder, *, garbage: range = range(0), plant=None, guard=GUARD, steps=STEPS, **train):
    options = dict(learning_rate=3e-3, examples_per_step=8, schedule="constant", checkpoint_every=10, stability=guard, **train)
    made = tiny.course(folder, Full(), NextToken(), examples=rows(640, garbage), steps=steps, **options)
    order = InTurn(made.course.order)
    course = replace(made.course, order=order, examples=8 * STEPS, hooks=[*made.course.hooks, *([(plant(made), 1)] if plant else [])])
    return made, fit(course)


class InTurn:
    """Rows as they stand, so that what is planted comes all in one step."""

    def __init__(self, order):
        self.start = order.start

    def draw(self, drawn, count):
        return [(0, i) for i in range(drawn[0], drawn[0] + count)], (drawn[0] + count,)


def held_out_loss(made) -> float:
    return likelihoods(made.course.policy, rows(40)[-40:], Cut(4096)).mean


def once(step: int, what):
    """A hook that does it after that step, the first time the run comes by."""

    def plant(made):
        done = []

        def hook(moment):
            if moment.step == step and not done:
                done.append(step)
                with torch.no_grad():
                    what(made.attached.trainable)

        return hook

    return plant


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    made, outcome = run(tmp_path_factory.mktemp("clean"))
    assert not outcome.events and outcome.totals.refused_steps == 0, "an ordinary course has no spikes"
    return held_out_loss(made)


def test_a_batch_of_garbage_is_not_learnt_from(tmp_path, clean):
    made, outcome = run(tmp_path, garbage=GARBAGE)
    assert outcome.finished and outcome.totals.refused_steps == 1
    (event,) = outcome.events
    assert event.startswith("step 41 was not taken: ") and "is a spike: it was " in event and event in made.said
    assert held_out_loss(made) == pytest.approx(clean, abs=0.1)
    unguarded, outcome = run(tmp_path / "unguarded", garbage=GARBAGE, guard=None)
    assert not outcome.events and max(unguarded.losses[40:]) > 2 * unguarded.losses[39], "it is a fault"


def test_a_nan_takes_the_run_back_to_where_there_was_none(tmp_path, clean):
    spoil = lambda trainable: trainable["model.norm.weight"].fill_(math.nan)
    made, outcome = run(tmp_path, plant=once(33, spoil))
    assert outcome.finished and all(torch.isfinite(p).all() for p in made.attached.trainable.values())
    assert outcome.events[0] == "step 34 was not taken: loss is not finite"
    assert outcome.events[-1] == "went back from step 35 to 30, passing over 16 rows"
    assert held_out_loss(made) == pytest.approx(clean, abs=0.1)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "event" not in line]
    assert steps == list(range(STEPS + 1)), "each step once, as it was taken in the end"
    assert [line["cut_lines"] for line in lines if line.get("event") == "went back"] == [4]


def test_a_layer_that_explodes_takes_the_run_back(tmp_path, clean):
    explode = lambda trainable: trainable["model.norm.weight"].mul_(30)
    made, outcome = run(tmp_path, plant=once(33, explode))
    assert outcome.finished and "went back from step 35 to 30" in outcome.events[-1]
    assert held_out_loss(made) == pytest.approx(clean, abs=0.1)


def test_what_is_planted_at_the_very_end_is_found_too(tmp_path, clean):
    explode = lambda trainable: trainable["model.norm.weight"].mul_(30)
    made, outcome = run(tmp_path, plant=once(STEPS - 1, explode))
    assert outcome.finished and "went back from step 60 to 50" in outcome.events[-1]
    assert held_out_loss(made) == pytest.approx(clean, abs=0.1)


def test_stopped_and_gone_on_with_it_decides_alike(tmp_path):
    """The guard's memory is in the checkpoint: usual figures, what was refused, what is passed over."""
    whole, outcome = run(tmp_path / "whole", garbage=range(320, 344))
    assert any("went back" in event for event in outcome.events)
    for steps in (40, 50):
        run(tmp_path / "parts", garbage=range(320, 344), steps=steps)
    rest, after = run(tmp_path / "parts", garbage=range(320, 344))
    assert after.events == outcome.events
    for name, p in whole.attached.trainable.items():
        assert torch.equal(p, rest.attached.trainable[name]), name


def test_a_run_that_cannot_be_helped_stops_with_a_remedy(tmp_path):
    def always(made):
        def hook(moment):
            if moment.step > 20:
                with torch.no_grad():
                    made.attached.trainable["model.norm.weight"].fill_(math.nan)

        return hook

    with pytest.raises(TrainingError, match="going back 3 times did not help") as caught:
        run(tmp_path, plant=always)
    assert "learning_rate" in caught.value.remedy


def test_what_is_usual_is_a_median_that_one_wild_value_does_not_move():
    guard = Guard(Stability.model_validate({"window": 8, "threshold": 5.0}))
    assert all(guard.accepts(2.0 + 0.1 * (i % 3), 1.0) for i in range(8))
    assert not guard.accepts(9.0, 1.0) and guard.reason.startswith("loss 9 is a spike: it was 2.1 and scattered by 0.15")
    assert not guard.accepts(2.0, 30.0) and guard.reason.startswith("gradient norm 30 is a spike")
    assert guard.accepts(0.1, 0.01), "better than usual is no fault"
    assert not guard.accepts(math.nan, 1.0) and not guard.accepts(2.0, math.inf)
    assert Guard(Stability()).accepts(1e9, 1e9), "of the first steps nothing is known"


def test_going_back_to_the_very_beginning_leaves_nothing_behind(tmp_path):
    """As a run that never saw these rows: weights to the bit, so the optimizer remembers nothing of steps that are not its own."""
    spoil = lambda trainable: trainable["model.norm.weight"].fill_(math.nan)
    made, outcome = run(tmp_path / "planted", plant=once(3, spoil))
    assert outcome.events[-1] == "went back from step 5 to 0, passing over 16 rows"
    plain = tiny.course(
        tmp_path / "plain",
        Full(),
        NextToken(),
        examples=[one for i, one in enumerate(rows(640)) if not 24 <= i < 40],
        steps=STEPS,
        learning_rate=3e-3,
        examples_per_step=8,
        schedule="constant",
    )
    fit(replace(plain.course, order=InTurn(plain.course.order), examples=8 * STEPS))
    assert all(torch.equal(p, made.attached.trainable[name]) for name, p in plain.attached.trainable.items())
