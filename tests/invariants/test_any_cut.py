"""Invariant 1, second half: one trajectory, whichever way the step is cut, shared or padded, on one process or on two."""

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor
from two_processes import on_two

from etude.adaptation.full import Full
from etude.adaptation.lora import Lora
from etude.data.rows import Cut
from etude.engine.loop import fit
from etude.engine.reference import StoredReference, switched_off
from etude.model.policy import Policy
from etude.objective.dpo import DPO
from etude.objective.next_token import NextToken

OBJECTIVES = {"next-token": NextToken(), "dpo": DPO(beta=0.5, supervised=0.3, label_smoothing=0.1)}
ADAPTATIONS = {"lora": Lora(rank=4), "full": Full()}
WHOLE = Cut(4096, 4)
CUTS = {
    "small rows": Cut(120, 4),
    "an example a row": Cut(1, 4),
    "nothing shared": Cut(4096, 1000),
    "everything shared": Cut(4096, 1),
    "padded": Cut(4096, 16, "padded"),
    "padded, small": Cut(90, 16, "padded"),
}
STEPS = 5


def first_step(objective: str, adaptation: str, cut: Cut) -> tuple[dict[str, float], dict[str, Tensor], int]:
    """Metrics and gradients, with an adapter that has left its parent; and how many rows it took."""
    torch.manual_seed(0)
    aim, model = OBJECTIVES[objective], tiny.llama().requires_grad_(False)
    examples = tiny.some_examples(aim, 16)
    attached = ADAPTATIONS[adaptation].attach(model, seed=0)
    policy = Policy(model, layout=cut.layout)
    reference = None
    if aim.needs_reference:
        stored = None if attached.can_switch_off else StoredReference(examples, StoredReference.compute(policy, examples, cut))
        reference = stored or switched_off(policy, attached)
    with torch.no_grad():
        for p in attached.trainable.values():
            p.add_(0.02 * torch.randn_like(p))
    result, gradients = tiny.gradients_of_step(policy, attached.trainable, aim, examples, cut, reference)
    return result.metrics, gradients, result.computed_tokens


def trajectory(folder: Path, objective: str, adaptation: str, cut: Cut) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of five real steps, and what was trained."""
    aim = OBJECTIVES[objective]
    made = tiny.course(folder, ADAPTATIONS[adaptation], aim, examples=tiny.some_examples(aim, 16), cut=cut, steps=STEPS, learning_rate=3e-3)
    fit(made.course)
    return made.losses, made.attached.trainable


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_any_cut_is_one_step(objective, adaptation):
    metrics, gradients, computed = first_step(objective, adaptation, WHOLE)
    sizes = {computed}
    for name, cut in CUTS.items():
        other_metrics, other_gradients, size = first_step(objective, adaptation, cut)
        assert other_metrics == pytest.approx(metrics, abs=1e-5), name
        assert tiny.furthest(other_gradients, gradients) < 1e-5, name
        sizes.add(size)
    assert len(sizes) > 3, "the cuts were different"


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_any_cut_is_one_trajectory(tmp_path, objective, adaptation):
    expected, _ = trajectory(tmp_path / "whole", objective, adaptation, WHOLE)
    assert expected[-1] < expected[0]
    for name, cut in CUTS.items():
        losses, _ = trajectory(tmp_path / name, objective, adaptation, cut)
        assert losses == pytest.approx(expected, abs=1e-5), name


def everything(folder: Path) -> dict[str, Tensor]:
    """Trajectories and first steps of all objectives and adaptations; where the step is one row, the second rank has nothing to do."""
    found: dict[str, Tensor] = {}
    for objective, cut in zip(OBJECTIVES, (WHOLE, CUTS["small rows"]), strict=True):
        for adaptation in ADAPTATIONS:
            what = f"{objective}/{adaptation}"
            metrics, gradients, _ = first_step(objective, adaptation, cut)
            losses, weights = trajectory(folder / objective / adaptation, objective, adaptation, cut)
            found[f"{what}/metrics"] = torch.tensor(list(metrics.values()), dtype=torch.float64)
            found[f"{what}/losses"] = torch.tensor(losses, dtype=torch.float64)
            found |= {f"{what}/gradient/{name}": g for name, g in gradients.items()}
            found |= {f"{what}/weight/{name}": p.detach().clone() for name, p in weights.items()}
    return found


def test_two_processes_are_one(tmp_path):
    first, second = on_two(everything, tmp_path)
    expected = everything(tmp_path / "alone")
    assert first.keys() == second.keys() == expected.keys()
    for name, tensor in first.items():
        if "/metrics" in name or "/losses" in name:
            assert torch.equal(tensor, second[name])
            assert (tensor - expected[name]).abs().max() < 1e-5, name
        else:
            assert torch.equal(tensor, second[name]), f"{name}: ranks hold the same"
    for what in {"/".join(name.split("/")[:2]) for name in expected}:
        start = f"{what}/gradient/"
        mine, truth = ({name: g for name, g in found.items() if name.startswith(start)} for found in (first, expected))
        assert tiny.furthest(mine, truth) < 1e-5, what
