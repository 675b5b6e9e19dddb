"""One step: what is divided by what, what is refused, what moves."""

import math

import pytest
import tiny
import torch

from etude.core.sample import Example
from etude.data.rows import Cut
from etude.engine.step import take_step
from etude.errors import TrainingError
from etude.model.policy import Policy
from etude.objective.dpo import DPO
from etude.objective.next_token import NextToken

CUT = Cut(4096, 4)


@pytest.fixture
def model(llama):
    return tiny.copy_of(llama).requires_grad_(True)


def step(model, objective, examples, *, optimizer=None, **options):
    parameters = list(model.parameters())
    optimizer = optimizer or torch.optim.SGD(parameters, lr=1.0)
    return take_step(Policy(model), objective, examples, options.pop("cut", CUT), optimizer, parameters, **options)


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_step_moves_by_at_most_the_clip_and_reports_the_norm_before(model):
    before = weights(model)
    examples = tiny.some_examples(NextToken(), 8)
    result = step(model, NextToken(), examples, clip=0.01)
    assert result.taken and result.metrics["gradient_norm"] > 0.1
    assert float((weights(model) - before).norm()) == pytest.approx(0.01, rel=1e-2)


def test_without_a_clip_it_moves_by_the_gradient(model):
    before = weights(model)
    result = step(model, NextToken(), tiny.some_examples(NextToken(), 8), clip=None)
    assert float((weights(model) - before).norm()) == pytest.approx(result.metrics["gradient_norm"], rel=1e-4)


def test_counts_are_of_the_whole_step(model):
    examples = tiny.some_examples(NextToken(), 8)
    samples = [sample for example in examples for sample in example.samples]
    for cut in (CUT, Cut(60, 4), Cut(4096, 1000)):
        result = step(model, NextToken(), examples, cut=cut)
        assert result.logical_tokens == sum(map(len, samples))
        assert result.supervised_tokens == sum(int((sample.weight > 0).sum()) for sample in samples)
    assert result.computed_tokens == result.logical_tokens, "nothing was shared"


def test_a_shared_prediction_counts_for_each_sample_that_holds_it(model):
    twice = tiny.examples_of([tiny.sample([3, 4, 5, 6])] * 2)
    kept = tiny.Kept(dict(model.named_parameters()))
    once, both = (step(model, NextToken(), examples, optimizer=kept) for examples in (twice[:1], twice))
    assert both.metrics["loss"] == pytest.approx(once.metrics["loss"], abs=1e-6)
    assert (once.supervised_tokens, both.supervised_tokens) == (3, 6)
    assert both.computed_tokens == once.computed_tokens


def test_a_step_with_nothing_to_learn_is_refused(model):
    before = weights(model)
    with pytest.raises(TrainingError, match="nothing to learn in this step for next_token"):
        step(model, NextToken(), tiny.examples_of([tiny.sample([3, 4, 5], 0.0)]))
    rejected = Example((tiny.sample([3, 4], 0.0, "chosen"), tiny.sample([3, 5], 1.0, "rejected")), "made", 1)
    with pytest.raises(TrainingError, match="for supervised"):
        step(model, DPO(supervised=1.0), [rejected])
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_moves_nothing(model, value):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = value
    before = weights(model)
    result = step(model, NextToken(), tiny.some_examples(NextToken(), 4), optimizer=optimizer)
    assert not result.taken and not math.isfinite(result.metrics["gradient_norm"])
    assert torch.equal(weights(model).nan_to_num(), before.nan_to_num()) and not optimizer.state
    assert all(p.grad is None for p in model.parameters()), "nothing is left for the next step"


def test_gradients_of_an_earlier_step_are_not_added(model):
    examples = tiny.some_examples(NextToken(), 4)
    kept = tiny.Kept(dict(model.named_parameters()))
    step(model, NextToken(), examples, optimizer=kept, clip=None)
    first = kept.gradients
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    step(model, NextToken(), examples, optimizer=kept, clip=None)
    assert all(torch.equal(g, kept.gradients[name]) for name, g in first.items())
