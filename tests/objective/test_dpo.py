"""DPO against its formula, worked by hand with plain floats."""

import math

import pytest
import tiny
import torch
from pydantic import ValidationError

from etude.core.sample import Example
from etude.core.scores import Scores
from etude.data.trees import forest_of
from etude.objective.dpo import DPO

# Two pairs; the first pair's answers begin alike (a token in common). Log-probabilities by path: policy, parent.
PAIRS = [
    Example((tiny.sample([3, 4, 5, 6], [0, 0, 1, 1], "chosen"), tiny.sample([3, 4, 5, 7], [0, 0, 1, 1], "rejected")), "made", 1),
    Example((tiny.sample([3, 8, 9], [0, 0, 1], "rejected"), tiny.sample([3, 8, 4], [0, 0, 1], "chosen")), "made", 2),
]
POLICY = {(3, 4, 5): -1.0, (3, 4, 5, 6): -0.5, (3, 4, 5, 7): -2.0, (3, 8, 9): -3.0, (3, 8, 4): -0.25}
PARENT = {(3, 4, 5): -1.5, (3, 4, 5, 6): -0.75, (3, 4, 5, 7): -1.0, (3, 8, 9): -2.0, (3, 8, 4): -1.0}


def read(forest, values) -> Scores:
    """Each prediction's log-probability, found by the path that leads to it."""
    found = []
    for source, target in zip(forest.source.tolist(), forest.target.tolist(), strict=True):
        path = [k for k in range(source + 1) if forest.end[k] > source]
        found.append(values[(*forest.tokens[path].tolist(), target)])
    return Scores(torch.tensor(found))


@pytest.fixture
def forest():
    samples = [sample for example in PAIRS for sample in example.samples]
    return forest_of(samples, [0, 0, 1, 1])


def margins(beta: float) -> list[float]:
    first = ((-1.5) - (-2.25)) - ((-3.0) - (-2.5))
    second = ((-0.25) - (-1.0)) - ((-3.0) - (-2.0))
    return [beta * first, beta * second]


@pytest.mark.parametrize(("beta", "smoothing"), [(0.1, 0.0), (2.0, 0.0), (0.5, 0.2)])
def test_loss_and_what_is_watched(forest, beta, smoothing):
    objective = DPO(beta=beta, label_smoothing=smoothing)
    terms = objective.loss(read(forest, POLICY), forest, read(forest, PARENT))
    log_sigmoid = lambda x: -math.log1p(math.exp(-x))
    expected = sum(-(1 - smoothing) * log_sigmoid(m) - smoothing * log_sigmoid(-m) for m in margins(beta))
    assert terms.loss["dpo"].item() == pytest.approx(expected, rel=1e-6)
    watched = {name: value.item() for name, (value, term) in terms.metrics.items() if term == "dpo"}
    assert watched["margin"] == pytest.approx(sum(margins(beta)), rel=1e-5)
    assert watched["accuracy"] == 2.0
    assert watched["reward_chosen"] == pytest.approx(beta * (0.75 + 0.75), rel=1e-5)
    assert watched["reward_rejected"] == pytest.approx(beta * (-0.5 + -1.0), rel=1e-5)
    assert set(watched) == set(objective.watched)
    assert objective.weight(PAIRS) == {"dpo": 2.0}


def test_the_supervised_term_has_a_weight_of_its_own(forest):
    objective = DPO(supervised=0.5)
    terms = objective.loss(read(forest, POLICY), forest, read(forest, PARENT))
    assert terms.loss["supervised"].item() == pytest.approx(-0.5 * (-1.5 + -0.25))
    assert objective.weight(PAIRS) == {"dpo": 2.0, "supervised": 3.0}


def test_at_its_parent_the_loss_is_ln_two_and_nothing_is_won(forest):
    terms = DPO().loss(read(forest, PARENT), forest, read(forest, PARENT))
    assert terms.loss["dpo"].item() == pytest.approx(2 * math.log(2))
    assert terms.metrics["accuracy"][0] == 0


def test_what_a_pair_shares_has_no_gradient_between_them(forest):
    """The shared first token lifts both answers alike, so its two memberships cancel."""
    scores = read(forest, POLICY)
    scores.log_probability.requires_grad_()
    DPO().loss(scores, forest, read(forest, PARENT)).loss["dpo"].backward()
    gradient = dict(zip(forest.target.tolist(), scores.log_probability.grad.tolist(), strict=True))
    assert gradient[5] == pytest.approx(0.0, abs=1e-9) and gradient[6] < 0 < gradient[7]


def test_options_out_of_range_are_refused():
    for options in ({"beta": 0}, {"label_smoothing": 0.5}, {"supervised": -1}, {"betta": 0.1}):
        with pytest.raises(ValidationError):
            DPO(**options)
