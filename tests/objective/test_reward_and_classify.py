"""Rewards and classes on each sample alone, by formulas in float64 and by transformers' own classifiers: losses and every gradient."""

import copy
import math

import alone
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, CohereConfig, PreTrainedModel

from etude.adaptation.full import Full
from etude.adaptation.lora import Lora
from etude.adaptation.sequence_classifier import add_outputs
from etude.core.scores import Outputs
from etude.data.rows import Cut
from etude.engine.loop import fit
from etude.errors import DataError, ModelError
from etude.model import head
from etude.model.outputs import outputs_weight
from etude.model.policy import Policy
from etude.objective.classify import Classify
from etude.objective.reward import RewardModel

CUTS = {"one row": Cut(4096, 1), "small": Cut(40, 1), "nothing shared": Cut(4096, 99), "padded": Cut(4096, 16, "padded")}


def plain_classifier(model: PreTrainedModel, outputs: int) -> PreTrainedModel:
    """transformers' own on the same weights, in float64, with a head that is not zero; etude's model is given the same head."""
    made = AutoModelForSequenceClassification.from_config(copy.deepcopy(model.config), attn_implementation="eager")
    made.config.num_labels = made.num_labels = outputs
    made.score = torch.nn.Linear(model.config.hidden_size, outputs, bias=False)
    made.model.load_state_dict(model.model.state_dict())
    weight = outputs_weight(model)
    with torch.no_grad():
        weight.copy_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
        made.score.weight.copy_(weight)
    return made.double().eval()


def step(moved: PreTrainedModel, objective, examples, cut: Cut):
    attached = Full().attach(moved, seed=0)
    if objective.outputs is not None:
        add_outputs(attached, objective.outputs)
    plain = objective.outputs is None
    truth = tiny.copy_of(moved, "eager").double() if plain else plain_classifier(moved, len(objective.outputs.labels))
    policy = Policy(moved, layout=cut.layout)
    result, found = tiny.gradients_of_step(policy, attached.trainable, objective, examples, cut)
    return result, found, truth


def agrees(result, found: dict[str, Tensor], expected: Tensor, truth: PreTrainedModel) -> None:
    assert result.metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert tiny.furthest({name: g.double() for name, g in found.items()}, alone.gradients(expected, truth)) < 1e-4


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("centring", [0.0, 0.3])
def test_rewards_are_bradley_and_terrys_on_each_answer_alone(moved, monkeypatch, cut, centring):
    monkeypatch.setattr(head, "log_probabilities", None)  # whoever computed the vocabulary's head would fail
    objective, examples = tiny.task(RewardModel(centring=centring), 6)
    moved = tiny.copy_of(moved)
    result, found, truth = step(moved, objective, examples, CUTS[cut])
    expected = torch.zeros((), dtype=torch.float64)
    right = 0
    for example in examples:
        worth = {one.role: truth(input_ids=torch.from_numpy(one.tokens).long()[None]).logits[0, 0] for one in example.samples}
        margin = worth["chosen"] - worth["rejected"]
        expected = expected + torch.log1p(torch.exp(-margin)) + centring * (worth["chosen"] + worth["rejected"]) ** 2
        right += int(margin > 0)
    agrees(result, found, expected / len(examples), truth)
    assert result.metrics["accuracy"] == pytest.approx(right / len(examples))


@pytest.mark.parametrize("cut", CUTS)
def test_classes_are_those_of_transformers(moved, cut):
    objective, examples = tiny.task(Classify(), 7)
    moved = tiny.copy_of(moved)
    result, found, truth = step(moved, objective, examples, CUTS[cut])
    losses = [
        truth(input_ids=torch.from_numpy(one.tokens).long()[None], labels=torch.tensor([int(one.value)])).loss
        for one in (example.samples[0] for example in examples)
    ]
    agrees(result, found, torch.stack(losses).mean(), truth)


@pytest.mark.parametrize("cut", CUTS)
def test_labels_as_words_are_a_softmax_over_siblings(moved, cut):
    objective, examples = tiny.task(Classify(head=False), 7)
    moved = tiny.copy_of(moved)
    result, found, truth = step(moved, objective, examples, CUTS[cut])
    losses = []
    for example in examples:
        scores = []
        for one in example.samples:
            tokens = torch.from_numpy(one.tokens).long()
            said = torch.log_softmax(truth(input_ids=tokens[None]).logits[0, :-1], -1).gather(-1, tokens[1:, None])[:, 0]
            scores.append(said[torch.from_numpy(one.weight)[1:] > 0].sum())
        losses.append(F.cross_entropy(torch.stack(scores), torch.tensor([one.value for one in example.samples]).argmax()))
    agrees(result, found, torch.stack(losses).mean(), truth)
    if cut == "one row":
        assert result.computed_tokens < 0.5 * result.logical_tokens, "a prompt is computed once for all its labels"


@pytest.mark.parametrize(("kind", "first"), [(RewardModel, math.log(2)), (Classify, math.log(3))])
def test_at_birth_nothing_is_preferred(tmp_path, kind, first):
    objective, examples = tiny.task(kind(), 8)
    made = tiny.course(tmp_path, Lora(rank=4), objective, examples=examples, steps=2)
    fit(made.course)
    assert made.losses[0] == pytest.approx(first, abs=1e-6) and made.losses[1] < made.losses[0]


def test_the_labels_are_those_of_the_rows():
    said: list[str] = []
    rows = tiny.examples_of([tiny.sample([1, 4, 5 + i % 2, 2], [0, 0, 1, 1]) for i in range(5)])
    decode = lambda tokens: {5: "no", 6: "yes"}[tokens[0]]
    settled = Classify().settle(rows[:4], rows[4:], decode, said.append)
    assert settled.labels == ["no", "yes"] and settled.usual_choice == "no" and dict(settled.choices) == {"no": (5, 2), "yes": (6, 2)}
    assert said == ["2 labels: 'no' (2 training rows), 'yes' (2 training rows)"]
    arranged = settled.arrange(rows)
    assert [one.samples[0].value for one in arranged] == [0, 1, 0, 1, 0]
    assert all(np.array_equal(one.samples[0].tokens, [1, 4]) for one in arranged)
    assert Classify(labels=["yes", "no"]).settle(rows, [], decode, said.append).arrange(rows)[0].samples[0].value == 1
    with pytest.raises(DataError, match="made:1: the label 'no' is none of"):
        Classify(labels=["yes", "maybe"]).settle(rows, [], decode, said.append)
    with pytest.raises(DataError, match="no row has the label 'maybe'"):
        Classify(labels=["yes", "no", "maybe"]).settle(rows, [], decode, said.append)
    with pytest.raises(DataError, match="raw text, which says no label"):
        Classify().settle(tiny.examples_of([tiny.sample([1, 4, 5])]), [], decode, said.append)


def test_an_architecture_without_a_classifier_is_refused_before_training():
    sizes = dict(vocab_size=61, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2)
    model = AutoModelForCausalLM.from_config(CohereConfig(**sizes)).requires_grad_(False)
    with pytest.raises(ModelError, match="no sequence classifier beside CohereForCausalLM"):
        add_outputs(Lora(rank=2).attach(model, seed=0), Outputs(("reward",), "leaf"))
