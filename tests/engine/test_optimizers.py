"""Muon beside AdamW: as torch's own do it, saved and gone on with to the bit."""

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from etude import catalog
from etude.adaptation.full import Full
from etude.adaptation.lora import Lora
from etude.adaptation.p_tuning import PTuning
from etude.adaptation.prefix import Prefix
from etude.adaptation.prompt import Prompt
from etude.engine.loop import fit
from etude.engine.optimizer import make_optimizer
from etude.engine.optimizers.adamw import AdamW
from etude.engine.optimizers.muon import Muon
from etude.engine.step import take_step
from etude.model.policy import Policy
from etude.objective.next_token import NextToken
from etude.objective.reward import RewardModel
from etude.recipe.schema import Train


def made(folder, optimizer, steps=4, adaptation=None, **train):
    options = dict(learning_rate=3e-3, steps=steps, schedule="constant", optimizer=optimizer, weight_decay=0.1, **train)
    return tiny.course(folder, adaptation or Full(), NextToken(), **options)


def test_muon_takes_the_steps_that_torch_takes(tmp_path):
    """Against torch's two optimizers side by side, over gradients of the engine's own steps."""
    found = made(tmp_path / "ours", Muon(momentum=0.9), steps=3, clip=None)
    plain = tiny.copy_of(found.course.policy.model)
    fit(found.course)
    plain.requires_grad_(True)
    hidden = [p for name, p in plain.named_parameters() if p.dim() == 2 and "embed" not in name]
    decayed = [p for name, p in plain.named_parameters() if p.dim() == 2 and "embed" in name]
    vectors = [p for p in plain.parameters() if p.dim() < 2]
    muon = torch.optim.Muon(hidden, lr=3e-3, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=3e-3, fused=True)

    class Pair:
        steps = 0

        def step(self):
            rate = 3e-3 * found.course.train.schedule.factor(self.steps, 3)
            self.steps += 1
            for group in (*muon.param_groups, *adam.param_groups):
                group["lr"] = rate
            muon.step(), adam.step()

        def zero_grad(self, set_to_none):
            muon.zero_grad(), adam.zero_grad()

    drawn = found.course.order.start()
    pair = Pair()
    for _ in range(3):
        places, drawn = found.course.order.draw(drawn, 8)
        examples = [found.course.sources[source][index] for source, index in places]
        take_step(Policy(plain), NextToken(), examples, found.course.cut, pair, list(plain.parameters()), clip=None)
    ours = dict(found.course.policy.model.named_parameters())
    for name, p in plain.named_parameters():
        assert torch.equal(ours[name], p), name


def gpt2() -> PreTrainedModel:
    """With learnt positions."""
    torch.manual_seed(0)
    shape = dict(vocab_size=tiny.VOCABULARY, n_positions=64, n_embd=32, n_layer=1, n_head=4)
    return AutoModelForCausalLM.from_config(GPT2Config(**shape), attn_implementation="etude")


@pytest.mark.parametrize("adaptation", [Full(), Prompt(tokens=4), Prefix(tokens=4), PTuning(tokens=4)], ids=lambda one: one.kind)
def test_no_row_of_an_embedding_and_no_virtual_token_is_made_orthogonal(adaptation):
    attached = adaptation.attach(gpt2().requires_grad_(False), seed=0)
    train = Train.model_validate({"optimizer": "muon"}, context={"tables": catalog.TABLES})
    optimizer = make_optimizer(attached, train, 1e-2)
    parts = [part for part in getattr(optimizer, "parts", [optimizer]) if isinstance(part, torch.optim.Muon)]
    ours = {id(p) for part in parts for group in part.param_groups for p in group["params"]}
    names = {name for name, p in attached.trainable.items() if id(p) in ours}
    blocks = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert names == ({f"transformer.h.0.{name}.weight" for name in blocks} if adaptation.kind == "full" else set())


@pytest.mark.parametrize("adaptation", [Full(), Lora(rank=4)], ids=["full", "lora"])
def test_a_head_goes_by_adamw_beside_muon(tmp_path, adaptation):
    """Its steps are those of AdamW alone while all else stands still; and it goes on where it stopped."""
    options = dict(learning_rate=3e-3, schedule="constant", weight_decay=0.1, rates={"*layers*": 1e-12, "*embed*": 1e-12, "*norm*": 1e-12})
    options["rates"] = options["rates"] if adaptation.kind == "full" else {"*layers*": 1e-12}
    heads = []
    for optimizer in (Muon(), AdamW()):
        found = tiny.course(tmp_path / optimizer.kind, adaptation, RewardModel(), steps=3, optimizer=optimizer, **options)
        fit(found.course)
        heads.append(found.attached.trainable["score.weight"].detach())
    assert heads[0].abs().max() > 1e-3
    assert torch.allclose(*heads, atol=1e-7)
    plain = dict(learning_rate=3e-3, schedule="constant", optimizer=Muon())
    whole = tiny.course(tmp_path / "whole", adaptation, RewardModel(), steps=4, **plain)
    fit(whole.course)
    fit(tiny.course(tmp_path / "half", adaptation, RewardModel(), steps=2, checkpoint_every=1, **plain).course)
    rest = tiny.course(tmp_path / "half", adaptation, RewardModel(), steps=4, **plain)
    fit(rest.course)
    assert all(torch.equal(p, rest.attached.trainable[name]) for name, p in whole.attached.trainable.items())


@pytest.mark.parametrize("adaptation", [Full(), Lora(rank=4)], ids=["full", "lora"])
def test_stopped_and_gone_on_is_never_stopped(tmp_path, adaptation):
    whole = made(tmp_path / "whole", Muon(), adaptation=adaptation)
    fit(whole.course)
    fit(made(tmp_path / "half", Muon(), steps=2, checkpoint_every=1, adaptation=adaptation).course)
    rest = made(tmp_path / "half", Muon(), adaptation=adaptation)
    fit(rest.course)
    for name, p in whole.attached.trainable.items():
        assert torch.equal(p, rest.attached.trainable[name]), name
    assert whole.losses[2:] == rest.losses


def test_steps_of_so_many_tokens_go_on_where_they_stopped(tmp_path):
    whole = made(tmp_path / "whole", AdamW(), tokens_per_step=150)
    fit(whole.course)
    fit(made(tmp_path / "half", AdamW(), steps=2, tokens_per_step=150, checkpoint_every=1).course)
    rest = made(tmp_path / "half", AdamW(), tokens_per_step=150)
    fit(rest.course)
    assert whole.losses[2:] == rest.losses
    assert all(110 < one["logical_tokens"] < 190 for one in whole.metrics)
