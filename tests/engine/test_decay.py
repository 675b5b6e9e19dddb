"""Weight decay towards the parent: AdamW by hand in float64, what it means for each kind of adaptation, and resumed to the bit."""

import math
import shutil

import pytest
import tiny
import torch
from pydantic import ValidationError

from etude import catalog
from etude.adaptation.full import Full
from etude.adaptation.lora import Lora
from etude.adaptation.pissa import Pissa
from etude.adaptation.sequence_classifier import add_outputs
from etude.core.scores import Outputs
from etude.engine.decay import Anchors
from etude.engine.loop import fit
from etude.engine.optimizer import make_optimizer
from etude.errors import TrainingError
from etude.objective.next_token import NextToken
from etude.recipe.schema import Train

PULLED = {"weight_decay": 0.3, "decay_to": "parent"}


def options(**train):
    return Train.model_validate(train, context={"tables": catalog.TABLES})


@pytest.mark.parametrize("clue", ["zero", "parent"])
def test_three_steps_by_hand(clue):
    """w ← w - rate · decay · (w - w₀), then Adam's own step; vectors too where the parent is the place."""
    attached, rate, decay = Full().attach(tiny.llama(), seed=0), 0.05, 0.3
    train = options(weight_decay=decay, decay_to=clue)
    anchors = Anchors(attached, train)
    optimizer = make_optimizer(attached, train, rate, anchors)
    draw = torch.Generator().manual_seed(0)
    names = ("model.norm.weight", "model.layers.0.mlp.up_proj.weight")
    by_hand = {name: attached.trainable[name].detach().double() for name in names}
    first = {name: value.clone() for name, value in by_hand.items()}
    m, v = ({name: torch.zeros_like(value) for name, value in by_hand.items()} for _ in range(2))
    for step in range(1, 4):
        for name, p in attached.trainable.items():
            p.grad = torch.randn(p.shape, generator=draw)
            if name in names:
                pulled = by_hand[name].dim() > 1 or clue == "parent"
                to = first[name] if clue == "parent" else torch.zeros_like(first[name])
                gradient, w = p.grad.double(), by_hand[name]
                w = w - rate * decay * (w - to) if pulled else w
                m[name] = 0.9 * m[name] + 0.1 * gradient
                v[name] = 0.999 * v[name] + 0.001 * gradient.square()
                by_hand[name] = w - rate * (m[name] / (1 - 0.9**step)) / ((v[name] / (1 - 0.999**step)).sqrt() + 1e-8)
        optimizer.step()
    for name, expected in by_hand.items():
        assert (attached.trainable[name].double() - expected).abs().max() < 1e-6, name
    if clue == "parent":
        apart = sum((p.detach().double() - anchors.origins[name].double()).square().sum() for name, p in attached.trainable.items())
        size = sum(origin.double().square().sum() for origin in anchors.origins.values())
        assert anchors.distance() == pytest.approx(math.sqrt(apart / size))
    else:
        assert anchors.distance() is None and not anchors.origins


def test_it_stays_nearer_to_the_parent_and_says_how_near(tmp_path):
    far = fit(tiny.course(tmp_path / "far", Full(), NextToken(), steps=8, weight_decay=1e-9, decay_to="parent").course)
    made = tiny.course(tmp_path / "near", Full(), NextToken(), steps=8, weight_decay=20.0, decay_to="parent")
    near = fit(made.course)
    assert near.distance < 0.8 * far.distance
    assert any("tensors back to the parent, of which a copy takes" in line for line in made.said)
    assert fit(tiny.course(tmp_path / "none", Full(), NextToken(), steps=2).course).distance is None


def test_a_step_that_is_not_taken_pulls_nothing():
    attached = Full().attach(tiny.llama(), seed=0)
    train = options(**PULLED)
    optimizer = make_optimizer(attached, train, 0.1, Anchors(attached, train))
    assert all(group["weight_decay"] == 0 for group in optimizer.param_groups), "not to zero as well"
    before = {name: p.detach().clone() for name, p in attached.trainable.items()}
    for p in attached.trainable.values():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert all(torch.equal(p, before[name]) for name, p in attached.trainable.items()), "at the parent there is nothing to pull"


@pytest.mark.parametrize("kind", sorted(catalog.ADAPTATIONS))
def test_every_adaptation_goes_back_to_its_parent_or_says_that_it_cannot(kind):
    """Pulled all the way, what was learnt is gone: the model is its parent again."""
    model = tiny.llama()
    tokens = torch.arange(3, 20)[None]
    attached = catalog.find("adaptation", kind)().attach(tiny.copy_of(model, "eager"), seed=3)
    train = options(weight_decay=1.0, decay_to="parent")
    if kind in ("prefix", "prompt", "p-tuning"):
        with pytest.raises(TrainingError, match="virtual tokens are nothing in the parent"):
            Anchors(attached, train)
        return
    anchors = Anchors(attached, train)
    optimizer = make_optimizer(attached, train, 1.0, anchors)
    said = attached.model(input_ids=tokens).logits
    with torch.no_grad():
        for p in attached.trainable.values():
            p.add_(0.1)
            p.grad = torch.zeros_like(p)
    for group in optimizer.param_groups:
        group["lr"] = 1.0
    optimizer.step()
    with torch.no_grad():
        assert (attached.model(input_ids=tokens).logits - said).abs().max() < (1e-3 if kind == "qlora" else 2e-4)


@pytest.mark.parametrize("adaptation", [Full(), Pissa(rank=4)], ids=lambda a: a.kind)
def test_resumed_to_the_bit(tmp_path, adaptation):
    whole = tiny.course(tmp_path / "whole", adaptation, NextToken(), steps=4, **PULLED)
    expected = fit(whole.course)
    fit(tiny.course(tmp_path / "again", adaptation, NextToken(), steps=4, checkpoint_every=2, **PULLED).course)
    (tmp_path / "again" / "checkpoints" / "step-00000004").rename(tmp_path / "aside")
    rest = tiny.course(tmp_path / "again", adaptation, NextToken(), steps=4, **PULLED)
    found = fit(rest.course)
    assert any(line.startswith("going on from step 2") for line in rest.said)
    assert all(torch.equal(p, rest.attached.trainable[name]) for name, p in whole.attached.trainable.items())
    assert found.distance == expected.distance


def test_resumed_where_another_decomposition_is_found_it_is_pulled_to_the_first(tmp_path):
    """Another machine, or another number of iterations, begins PiSSA elsewhere; what was begun stays what it was."""
    whole = tiny.course(tmp_path / "whole", Pissa(rank=4), NextToken(), steps=4, checkpoint_every=2, **PULLED)
    expected = fit(whole.course)
    shutil.rmtree(tmp_path / "whole" / "checkpoints" / "step-00000004")
    rest = tiny.course(tmp_path / "whole", Pissa(rank=4, iterations=1), NextToken(), steps=4, **PULLED)
    assert any(not torch.equal(first, rest.attached.origins[name]) for name, first in whole.attached.origins.items())
    found = fit(rest.course)
    assert all(torch.equal(p, rest.attached.trainable[name]) for name, p in whole.attached.trainable.items())
    assert found.distance == expected.distance
    assert any("of which a copy takes 0.0 MiB" in line for line in rest.said), "the layers remember it anyway"


@pytest.mark.parametrize("kind", sorted(catalog.ADAPTATIONS))
@pytest.mark.parametrize("clue", ["zero", "parent"])
def test_a_newborn_head_decays_to_the_zero_it_was_born_at(kind, clue):
    """Whatever its adaptation is pulled to, by whichever optimizer; it is no part of how far the rest is from its parent."""
    virtual = kind in ("prefix", "prompt", "p-tuning")
    if virtual and clue == "parent":
        return
    attached = catalog.find("adaptation", kind)().attach(tiny.llama(), seed=0)
    add_outputs(attached, Outputs(("reward",), "leaf"))
    train = options(weight_decay=0.5, decay_to=clue, optimizer="muon")
    anchors = Anchors(attached, train)
    optimizer = make_optimizer(attached, train, 0.1, anchors)
    head = attached.trainable["score.weight"]
    (group,) = [group for group in optimizer.param_groups if any(p is head for p in group["params"])]
    assert group["weight_decay"] == 0.5 and "betas" in group, "heads go by AdamW"
    assert "score.weight" not in anchors.origins
    with torch.no_grad():
        head.fill_(2.0)
    assert not anchors.distance(), "nothing else has moved"
    for p in attached.trainable.values():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.allclose(head, torch.full_like(head, 2.0 * (1 - 0.1 * 0.5)))


def test_a_lora_is_pulled_to_zero_already(tmp_path):
    made = tiny.course(tmp_path / "to", Lora(rank=4), NextToken(), steps=3, **PULLED)
    plain = tiny.course(tmp_path / "plain", Lora(rank=4), NextToken(), steps=3, weight_decay=0.3)
    assert fit(made.course).distance is None and fit(plain.course).finished
    assert any("decay to the parent is decay to zero here" in line for line in made.said)
    assert made.losses == plain.losses


def test_without_decay_there_is_nothing_to_pull():
    with pytest.raises(ValidationError, match="pulls by `weight_decay`, which is 0"):
        options(decay_to="parent")
