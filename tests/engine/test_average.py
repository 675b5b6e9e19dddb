"""The average of the weights: what the formula says, what is looked at and kept, and nothing that training would see."""

import tiny
from torch import Tensor

from etude.adaptation.lora import Lora
from etude.engine.loop import fit
from etude.objective.next_token import NextToken

SHARE = 0.3
"""In the first steps (1 + t) / (10 + t) is less: 2/11, 3/12, 4/13."""


def made(folder, steps=5, **train) -> tuple[tiny.Made, list[dict[str, Tensor]]]:
    """A course, and what weights its hooks will find after each step, from birth on."""
    found = tiny.course(folder, Lora(rank=4), NextToken(), steps=steps, schedule="constant", **train)
    seen: list[dict[str, Tensor]] = []
    found.course.hooks.append((lambda _moment: seen.append(now(found)), 1))
    return found, seen


def now(found: tiny.Made) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in found.attached.trainable.items()}


def averages(weights: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """By the formula, in float64."""
    found = [{name: tensor.double() for name, tensor in weights[0].items()}]
    for step, one in enumerate(weights[1:], 1):
        kept = min(SHARE, (1 + step) / (10 + step))
        found.append({name: kept * found[-1][name] + (1 - kept) * tensor.double() for name, tensor in one.items()})
    return found


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def test_the_average_is_looked_at_and_kept_and_training_never_sees_it(tmp_path):
    plain, weights = made(tmp_path / "plain")
    fit(plain.course)
    found, seen = made(tmp_path / "averaged", ema=SHARE, evaluate_every=2)
    fit(found.course)
    assert found.losses == plain.losses and any("share of 0.3" in line for line in found.said)
    expected = averages(weights)
    assert furthest(expected[5], weights[5]) > 1e-3, "it is something else"
    assert furthest(now(found), expected[5]) < 1e-6
    for step in (0, 2, 4, 5):  # looks
        assert furthest(seen[step], expected[step]) < 1e-6
    for step in (1, 3):
        assert furthest(seen[step], weights[step]) == 0


def test_stopped_and_gone_on_is_never_stopped(tmp_path):
    whole, _ = made(tmp_path / "whole", ema=SHARE)
    fit(whole.course)
    fit(made(tmp_path / "half", steps=2, ema=SHARE, checkpoint_every=1)[0].course)
    rest, _ = made(tmp_path / "half", ema=SHARE)
    fit(rest.course)
    assert rest.losses == whole.losses[2:] and furthest(now(rest), now(whole)) == 0


def test_the_best_is_the_best_average(tmp_path):
    plain, weights = made(tmp_path / "plain")
    fit(plain.course)
    found, _ = made(tmp_path / "averaged", ema=SHARE, evaluate_every=1, early_stopping={"patience": 1})
    figures = iter([3.0, 2.0, 1.0, 2.0])
    found.course.hooks.append((lambda _moment: {"held_out_loss": next(figures)}, 1))
    outcome = fit(found.course)
    assert outcome.kept is not None and (outcome.steps, outcome.kept.best_step) == (3, 2)
    assert furthest(now(found), averages(weights)[2]) < 1e-6
