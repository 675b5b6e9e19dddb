"""Next-token prediction against sums worked by hand."""

import pytest
import tiny
import torch

from etude.core.scores import Scores
from etude.data.trees import forest_of
from etude.objective.next_token import NextToken


def test_sum_weight_and_coefficients_by_hand():
    samples = [tiny.sample([3, 4, 5], [0, 1, 2]), tiny.sample([3, 4, 6], [0, 0.5, 1])]
    forest = forest_of(samples, [0, 1])
    # Predictions in the order of the row: 4 after 3 (shared, 1 + 0.5), then 5 and 6 after 3 4.
    assert forest.target.tolist() == [4, 5, 6]
    log_p = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    objective = NextToken()
    terms = objective.loss(Scores(log_p), forest)
    assert terms.loss["next_token"].item() == pytest.approx(1.5 * 1 + 2 * 2 + 1 * 3)
    assert objective.weight(tiny.examples_of(samples)) == {"next_token": 4.5}
    (gradient,) = torch.autograd.grad(terms.loss["next_token"], log_p)
    assert torch.equal(gradient, objective.coefficients(forest)), "what the head was promised"
    assert (objective.roles, objective.needs_reference, objective.watched) == ((), False, ())
