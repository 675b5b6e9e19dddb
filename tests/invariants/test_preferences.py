"""Invariant 1 for every preference objective: the loss in a forest, and its gradients, are those of the paper's formula on each
answer alone through plain transformers."""

import math
from collections.abc import Callable

import alone
import pytest
import tiny
import torch
from torch import Tensor

from etude.core.sample import Example
from etude.data.rows import Cut
from etude.engine.reference import StoredReference
from etude.model.policy import Policy
from etude.objective.cpo import CPO
from etude.objective.dpo import DPO
from etude.objective.kto import KTO
from etude.objective.orpo import ORPO
from etude.objective.simpo import SimPO

PROMPT = [3, 9, 4, 11, 5, 8]
# Prompt, what both answers begin with, the chosen one's end, the rejected one's: alike at first, of one length, one the other's beginning.
PAIRS = [([], [5, 6], [7]), ([12, 13], [5, 6, 7], [9]), ([14], [5, 3], []), ([], [20], [21, 22, 23, 24])]
CUTS = {"one row": Cut(999, 1), "a pair a row": Cut(1, 1), "nothing shared": Cut(999, 99), "padded": Cut(999, 16, "padded")}

sigmoid = torch.sigmoid


def answer(body: list[int], said: list[int], role: str):
    return tiny.sample(body + said, [0.0] * len(body) + [1.0] * len(said), role)


def pairs() -> list[Example]:
    found = []
    for row, (common, chosen, rejected) in enumerate(PAIRS, 1):
        body = [*PROMPT, 30 + row // 2]
        found.append(Example((answer(body, common + chosen, "chosen"), answer(body, common + rejected, "rejected")), "made", row))
    return found


def odds(log_p: Tensor) -> Tensor:
    return log_p.exp() / (1 - log_p.exp())


# Of one pair: log-probabilities of chosen and rejected, of the parent's, and the answers' lengths. With its weight of next-token loss.
Formula = Callable[[Tensor, Tensor, Tensor, Tensor, int, int], Tensor]
OBJECTIVES: dict[str, tuple[object, Formula, float]] = {
    "sigmoid": (DPO(beta=0.4), lambda c, r, pc, pr, m, n: -torch.log(sigmoid(0.4 * (c - pc - r + pr))), 0),
    "smoothed": (
        DPO(beta=0.4, label_smoothing=0.1),
        lambda c, r, pc, pr, m, n: -0.9 * torch.log(sigmoid(0.4 * (c - pc - r + pr))) - 0.1 * torch.log(sigmoid(-0.4 * (c - pc - r + pr))),
        0,
    ),
    "hinge": (DPO(beta=0.4, variant="hinge"), lambda c, r, pc, pr, m, n: torch.clamp(1 - 0.4 * (c - pc - r + pr), min=0), 0),
    "ipo": (DPO(beta=0.4, variant="ipo"), lambda c, r, pc, pr, m, n: ((c - pc) / m - (r - pr) / n - 1 / (2 * 0.4)) ** 2, 0),
    "robust": (
        DPO(beta=0.4, variant="robust", label_smoothing=0.1),
        lambda c, r, pc, pr, m, n: (
            (-0.9 * torch.log(sigmoid(0.4 * (c - pc - r + pr))) + 0.1 * torch.log(sigmoid(-0.4 * (c - pc - r + pr)))) / 0.8
        ),
        0,
    ),
    "with next-token": (
        DPO(beta=0.4, supervised=0.3),
        lambda c, r, pc, pr, m, n: -torch.log(sigmoid(0.4 * (c - pc - r + pr))),
        0.3,
    ),
    "simpo": (SimPO(beta=2.5, target_margin=0.7), lambda c, r, pc, pr, m, n: -torch.log(sigmoid(2.5 * c / m - 2.5 * r / n - 0.7)), 0),
    "cpo": (CPO(beta=0.2), lambda c, r, pc, pr, m, n: -torch.log(sigmoid(0.2 * (c - r))), 1),
    "orpo": (
        ORPO(weight_of_odds=0.25),
        lambda c, r, pc, pr, m, n: -0.25 * torch.log(sigmoid(torch.log(odds(c / m)) - torch.log(odds(r / n)))),
        1,
    ),
}


def by_hand(truth, parent, examples: list[Example], formula: Formula, supervised: float) -> Tensor:
    losses, said, tokens = [], [], 0.0
    for one in examples:
        chosen, rejected = one.samples
        with torch.no_grad():
            before = [alone.log_probability(parent, sample).double() for sample in (chosen, rejected)]
        now = [alone.log_probability(truth, sample).double() for sample in (chosen, rejected)]
        losses.append(formula(*now, *before, int(chosen.weight.sum()), int(rejected.weight.sum())))
        said.append(now[0])
        tokens += float(chosen.weight.sum())
    return torch.stack(losses).mean() - supervised * torch.stack(said).sum() / tokens


def step_of(llama, moved, objective, examples: list[Example], cut: Cut):
    stored = None
    if objective.needs_reference:
        stored = StoredReference(examples, StoredReference.compute(Policy(llama, layout=cut.layout), examples, cut))
    trainable = dict(moved.requires_grad_(True).named_parameters())
    return tiny.gradients_of_step(Policy(moved, layout=cut.layout), trainable, objective, examples, cut, stored)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_pairs(llama, moved, name, cut):
    objective, formula, supervised = OBJECTIVES[name]
    examples, truth = pairs(), tiny.copy_of(moved, "eager")
    expected = by_hand(truth, tiny.copy_of(llama, "eager"), examples, formula, supervised)
    result, found = step_of(llama, moved, objective, examples, CUTS[cut])
    assert result.metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert tiny.furthest(found, alone.gradients(expected.float(), truth)) < 1e-4


def rated() -> list[Example]:
    found = []
    for row, (common, chosen, rejected) in enumerate(PAIRS, 1):
        body, liked = [*PROMPT, 30 + row // 2], row % 2
        found.append(Example((answer(body, common + (chosen if liked else rejected), ("undesirable", "desirable")[liked]),), "made", row))
    return found


@pytest.mark.parametrize("cut", CUTS)
def test_kto(llama, moved, cut):
    """Equations 7 and 8 of the paper; the baseline from each prompt with another prompt's answer, without gradient."""
    objective = KTO(beta=0.4, desirable_weight=1.5, undesirable_weight=0.75)
    alone_examples = rated()
    truth, parent = tiny.copy_of(moved, "eager"), tiny.copy_of(llama, "eager")

    def moved_by(sample) -> Tensor:
        with torch.no_grad():
            before = alone.log_probability(parent, sample).double()
        return alone.log_probability(truth, sample).double() - before

    split = [int(one.samples[0].weight.argmax()) for one in alone_examples]
    mixed = []
    for i, one in enumerate(alone_examples):
        j = {0: 1, 1: 3, 2: 3, 3: 0}[i]  # the second and the third row ask the same
        said = alone_examples[j].samples[0].tokens[split[j] :].tolist()
        mixed.append(answer(one.samples[0].tokens[: split[i]].tolist(), said, ""))
    baseline = max(0.0, sum(float(moved_by(sample).detach()) for sample in mixed) / len(mixed))
    losses = []
    for one in alone_examples:
        ratio = moved_by(one.samples[0])
        if one.samples[0].role == "desirable":
            losses.append(1.5 * (1 - sigmoid(0.4 * (ratio - baseline))))
        else:
            losses.append(0.75 * (1 - sigmoid(0.4 * (baseline - ratio))))
    expected = torch.stack(losses).mean()
    result, found = step_of(llama, moved, objective, objective.arrange(alone_examples), CUTS[cut])
    assert result.metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert result.metrics["baseline"] == pytest.approx(0.4 * baseline, abs=1e-5) and baseline > 0
    assert tiny.furthest(found, alone.gradients(expected.float(), truth)) < 1e-4
    assert result.logical_tokens == sum(len(one.samples[0]) for one in alone_examples), "what is only scored is not what is learnt"


def test_a_mismatched_answer_is_no_longer_than_any_row():
    rows = rated()
    longest = max(len(one.samples[0]) for one in rows)
    arranged = KTO().arrange(rows)
    assert all(len(sample) <= longest for one in arranged for sample in one.samples)
    assert [one.samples[0] for one in arranged] == [one.samples[0] for one in rows]
    assert [sample.role for one in arranged for sample in one.samples[1:]] == ["mismatched"] * len(rows)


def test_the_odds_of_a_certain_answer_are_finite():
    forest_free = ORPO().reward(torch.zeros(1), torch.ones(1), None)
    assert math.isfinite(float(forest_free))
