"""Next-token prediction against sums worked by hand."""

import alone
import pytest
import tiny
import torch
import torch.nn.functional as F

from etude.core.scores import Scores
from etude.data.rows import Cut
from etude.data.trees import forest_of
from etude.evaluation.judgement import NATS
from etude.model.policy import Policy
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


@pytest.mark.parametrize("adaptation", ["full", "lora"])
@pytest.mark.parametrize(("smoothing", "z"), [(0.1, 0.0), (0.0, 0.01), (0.2, 0.03)])
def test_smoothing_and_z_loss_are_torchs_own_on_each_sample_alone(llama, smoothing, z, adaptation):
    """torch's cross entropy with its label smoothing, and the squared log-sum-exp of plain transformers' logits."""
    samples = [tiny.sample([3, 4, 5, 9]), tiny.sample([3, 4, 6, 7, 8]), tiny.sample([30, 31])]
    truth, losses = tiny.copy_of(llama, "eager"), []
    for sample in samples:
        tokens = torch.from_numpy(sample.tokens).long()
        logits = truth(input_ids=tokens[None]).logits[0, :-1]
        losses.append(
            F.cross_entropy(logits, tokens[1:], reduction="sum", label_smoothing=smoothing) + z * logits.logsumexp(-1).square().sum()
        )
    expected = sum(losses) / 8
    model = tiny.copy_of(llama)
    objective, examples = NextToken(label_smoothing=smoothing, z_loss=z), tiny.examples_of(samples)
    if adaptation == "full":
        trainable = dict(model.requires_grad_(True).named_parameters())
        wanted = alone.gradients(expected, truth)
    else:
        trainable, wanted = {"model.norm.weight": model.model.norm.weight.requires_grad_(True)}, None
        model.requires_grad_(False)
        model.model.norm.weight.requires_grad_(True)
    result, found = tiny.gradients_of_step(Policy(model), trainable, objective, examples, Cut(99, 1))
    assert result.metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    wanted = wanted or {"model.norm.weight": alone.gradients(expected, truth)["model.norm.weight"]}
    assert tiny.furthest(found, wanted) < 1e-4
    assert ("unsmoothed" in result.metrics) == (smoothing > 0)


def test_only_plain_likelihoods_are_nats_a_token():
    assert NextToken().unit == NATS, "by which the report draws held-out losses beside those of training"
    assert NATS not in (NextToken(label_smoothing=0.1).unit, NextToken(z_loss=1e-4).unit)
