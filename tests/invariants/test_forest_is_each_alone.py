"""Invariant 1: a forest's loss and gradients are those of each sample alone through plain transformers."""

import alone
import pytest
import tiny
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from etude.adaptation.lora import Lora
from etude.data.rows import Cut
from etude.engine.reference import StoredReference, switched_off
from etude.model.policy import Policy
from etude.objective.dpo import DPO
from etude.objective.next_token import NextToken

# Three words, so that beginnings are often shared, and samples often equal, begin or continue each other.
paths = st.lists(st.integers(3, 5), min_size=1, max_size=14)
weights = st.sampled_from([0.0, 0.5, 1.0, 2.0])
weighted = paths.flatmap(lambda path: st.tuples(st.just(path), st.lists(weights, min_size=len(path), max_size=len(path))))
cuts = st.builds(Cut, st.integers(10, 80), st.integers(1, 6), st.sampled_from(["forest", "forest", "forest", "padded"]))

ONES = [1.0] * 6
SUPERVISED_BEGINNING = [([3, 4, 5, 3, 4, 5], ONES), ([3, 4, 5, 3, 3, 3], ONES), ([3, 4, 5, 5, 4, 5], ONES)]
ONLY_THE_BRANCH = [([3, 4, 5, 3], [0, 0, 0, 1]), ([3, 4, 5, 4], [0, 0, 0, 1]), ([3, 4, 5, 5], [0, 0, 0, 2])]
IDENTICAL = [([3, 4, 5], [0, 1, 1]), ([3, 4, 5], [0, 1, 1]), ([3, 4, 5], [0, 0.5, 0])]
A_ROW_WITHOUT_PREDICTIONS = [([3, 4, 5], [0, 1, 1]), ([5] * 9, [0] * 9)]
ONE_BEGINS_ANOTHER = [([3, 4], [0, 1]), ([3, 4, 5, 3], [0, 1, 0, 1]), ([3], [0])]


@settings(max_examples=80)
@given(st.lists(weighted, min_size=1, max_size=8), cuts)
@example(SUPERVISED_BEGINNING, Cut(99, 1))
@example(ONLY_THE_BRANCH, Cut(99, 1))
@example(IDENTICAL, Cut(99, 1))
@example(ONE_BEGINS_ANOTHER, Cut(99, 1))
@example(A_ROW_WITHOUT_PREDICTIONS, Cut(10, 1))
def test_next_token(llama, raw, cut):
    examples = tiny.examples_of([tiny.sample(tokens, weight) for tokens, weight in raw])
    assume(any(one.samples[0].weight.any() for one in examples))
    truth = tiny.copy_of(llama, "eager")
    expected = alone.next_token(truth, examples)
    trainable = dict(llama.requires_grad_(True).named_parameters())
    result, found = tiny.gradients_of_step(Policy(llama, layout=cut.layout), trainable, NextToken(), examples, cut)
    assert result.metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert tiny.furthest(found, alone.gradients(expected, truth)) < 1e-4
    assert result.logical_tokens == sum(len(path) for path, _ in raw)


# A prompt, a beginning of the answer that both share, and what each says then; either may end where they part.
ends = st.lists(st.integers(3, 5), min_size=0, max_size=5)
pairs = st.tuples(st.lists(st.integers(3, 5), min_size=1, max_size=8), ends, ends, ends).filter(lambda pair: pair[2] != pair[3])


def pair_of(number: int, prompt: list[int], common: list[int], chosen: list[int], rejected: list[int]):
    samples = [
        tiny.sample(prompt + common + end, [0.0] * len(prompt) + [1.0] * (len(common) + len(end)), role)
        for role, end in (("chosen", chosen), ("rejected", rejected))
    ]
    return tiny.Example(tuple(samples), "made", number)


ALIKE_AT_FIRST = [([3, 4], [5, 5], [3, 4], [4]), ([3, 4], [5], [5, 3], []), ([3, 3, 3], [], [3], [4])]


@settings(max_examples=50)
@given(st.lists(pairs, min_size=1, max_size=5), cuts)
@example(ALIKE_AT_FIRST, Cut(99, 1))
def test_dpo_with_a_stored_reference(llama, moved, raw, cut):
    examples = [pair_of(number, *pair) for number, pair in enumerate(raw, 1)]
    parent, truth = tiny.copy_of(llama, "eager"), tiny.copy_of(moved, "eager")
    expected = alone.dpo(truth, parent, examples, beta=0.3)
    stored = StoredReference(examples, StoredReference.compute(Policy(llama, layout=cut.layout), examples, cut))
    trainable = dict(moved.requires_grad_(True).named_parameters())
    result, found = tiny.gradients_of_step(Policy(moved, layout=cut.layout), trainable, DPO(beta=0.3), examples, cut, stored)
    assert result.metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert tiny.furthest(found, alone.gradients(expected, truth)) < 1e-4


@settings(max_examples=30)
@given(st.lists(pairs, min_size=1, max_size=5), cuts)
@example(ALIKE_AT_FIRST, Cut(99, 1))
def test_dpo_of_a_lora_with_its_adapters_switched_off(llama, raw, cut):
    """The truth is the merged model, W + sBA; by the chain rule dA = s Bᵀ dW and dB = s dW Aᵀ."""
    examples = [pair_of(number, *pair) for number, pair in enumerate(raw, 1)]
    parent, truth = tiny.copy_of(llama, "eager"), tiny.copy_of(llama, "eager")
    model = tiny.copy_of(llama).requires_grad_(False)
    attached = Lora(rank=4, alpha=6).attach(model, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in attached.trainable.values():
            p.copy_(0.1 * torch.randn(p.shape, generator=generator))
        for name in {name.split(".lora_")[0] for name in attached.trainable}:
            a, b = (attached.trainable[f"{name}.lora_{which}.default.weight"] for which in "AB")
            truth.get_submodule(name).weight += 1.5 * b @ a
    expected = alone.dpo(truth, parent, examples, beta=0.3)
    whole = alone.gradients(expected, truth)
    wanted = {}
    for name in attached.trainable:
        layer, which = name.split(".lora_")
        a, b = (attached.trainable[f"{layer}.lora_{one}.default.weight"].detach() for one in "AB")
        d_weight = whole[f"{layer}.weight"]
        wanted[name] = 1.5 * (b.T @ d_weight if which.startswith("A") else d_weight @ a.T)
    policy = Policy(model, layout=cut.layout)
    result, found = tiny.gradients_of_step(policy, attached.trainable, DPO(beta=0.3), examples, cut, switched_off(policy, attached))
    assert result.metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert tiny.furthest(found, wanted) < 1e-4
