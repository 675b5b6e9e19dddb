"""Precision is no excuse: in bfloat16 a run learns what it learns in float32, and the same measure catches arithmetic in which it does not.

A small model is first taught some English, so that its gradients mean something; then steps are taken whose changes are smaller than
half a last place of what they are added to.
"""

from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor
from transformers import PreTrainedModel

from etude.adaptation.contract import Attached
from etude.adaptation.full import Full
from etude.adaptation.lora import Lora
from etude.adaptation.lora_layer import LoraLinear
from etude.adaptation.reload import reattach
from etude.engine.loop import fit
from etude.objective.next_token import NextToken

CHARACTERS = 128
ENGLISH = np.frombuffer("".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore"), dtype=np.uint8).astype(np.int64)
STEPS, ROWS, LENGTH = 5, 24, 48
CONSTANT = {"kind": "constant", "warmup": 0}
LITTLE = 7e-5
"""A rate at which five steps change a layer's answer by less than its rounding in bfloat16."""
SHARE = 0.10
"""Of float32's fall: how far bfloat16's may lie from it."""


@pytest.fixture(scope="module")
def taught() -> PreTrainedModel:
    """Some 2 million weights after 40 plain steps on Python's own help texts, character by character."""
    size = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4, head_dim=32)
    model = tiny.llama(attention="sdpa", vocab_size=CHARACTERS, initializer_range=0.03, **size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95))
    draw = np.random.default_rng(0)
    for step in range(40):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 10)
        text = torch.from_numpy(np.stack([ENGLISH[at : at + 65] for at in draw.integers(0, len(ENGLISH) - 65, 8)]))
        loss = F.cross_entropy(model(text[:, :-1]).logits.flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 3.4, "of 4.85 at birth"
    return model


@pytest.fixture(scope="module")
def shouting() -> list[tiny.Example]:
    """The same English in capitals: every step reads all of it."""
    text = np.frombuffer(ENGLISH.astype(np.uint8).tobytes().upper(), dtype=np.uint8)
    return tiny.examples_of([tiny.sample(text[i * LENGTH : (i + 1) * LENGTH]) for i in range(ROWS)])


class Reloaded:
    """An adapter from its files, where another would be born."""

    def __init__(self, folder: Path):
        self.folder = folder

    def attach(self, model: PreTrainedModel, *, seed: int) -> Attached:
        return reattach(model, self.folder)


def learnt(folder: Path, model: PreTrainedModel, adaptation, examples, compute: torch.dtype, rate: float, held: torch.dtype) -> tiny.Made:
    """Five steps on all rows, from a copy of the model."""
    options = dict(examples_per_step=ROWS, schedule=CONSTANT, steps=STEPS, learning_rate=rate, compute=compute)
    made = tiny.course(folder, adaptation, NextToken(), model=tiny.copy_of(model).to(held), examples=examples, **options)
    fit(made.course)
    return made


def fall(made: tiny.Made) -> float:
    return made.losses[0] - made.losses[-1]


@pytest.fixture(scope="module")
def in_float32(taught, shouting, tmp_path_factory) -> tuple[tiny.Made, tiny.Made]:
    """A LoRA's first five steps, and the five after its reload."""
    folder = tmp_path_factory.mktemp("float32")
    torch.set_num_threads(1)
    first = learnt(folder / "first", taught, Lora(rank=8), shouting, torch.float32, LITTLE, torch.float32)
    first.attached.save(folder)
    return first, learnt(folder / "second", taught, Reloaded(folder), shouting, torch.float32, LITTLE, torch.float32)


def test_a_lora_learns_as_in_float32_and_again_after_a_reload(taught, shouting, in_float32, tmp_path):
    first = learnt(tmp_path / "first", taught, Lora(rank=8), shouting, torch.bfloat16, LITTLE, torch.bfloat16)
    assert {p.dtype for p in first.attached.trainable.values()} == {torch.float32}
    assert fall(first) == pytest.approx(fall(in_float32[0]), rel=SHARE)
    first.attached.save(tmp_path)
    second = learnt(tmp_path / "second", taught, Reloaded(tmp_path), shouting, torch.bfloat16, LITTLE, torch.bfloat16)
    assert {type(m) for m in second.attached.model.modules() if isinstance(m, PeftLinear)} == {LoraLinear}
    assert fall(second) == pytest.approx(fall(in_float32[1]), rel=SHARE)
    both, truth = first.losses[0] - second.losses[-1], in_float32[0].losses[0] - in_float32[1].losses[-1]
    assert both == pytest.approx(truth, rel=SHARE), "nothing was lost on the way through the files"


def test_11_the_same_measure_catches_a_delta_that_is_added_after_rounding(taught, shouting, in_float32, tmp_path, monkeypatch):
    """peft's own forward, base(x) rounded and then the delta: the proof that the test above can fail."""
    monkeypatch.setattr(LoraLinear, "forward", PeftLinear.forward)
    made = learnt(tmp_path, taught, Lora(rank=8), shouting, torch.bfloat16, LITTLE, torch.bfloat16)
    assert fall(made) != pytest.approx(fall(in_float32[0]), rel=SHARE)
    assert fall(made) < 0.75 * fall(in_float32[0])


def moved(made: tiny.Made, start: PreTrainedModel) -> Tensor:
    """How far each weight went, all in one."""
    return torch.cat([(p.detach() - start.get_parameter(name)).flatten() for name, p in made.attached.trainable.items()])


def half_last_place(weights: Tensor) -> Tensor:
    """Of bfloat16, whose fraction has seven bits: what is added below this is lost."""
    return 2.0 ** (torch.frexp(weights).exponent - 1 - 8)


def test_12_masters_move_as_in_float32_where_weights_held_in_bfloat16_swallow_their_updates(taught, shouting, tmp_path):
    rate = 1e-5
    plain = learnt(tmp_path / "float32", taught, Full(), shouting, torch.float32, rate, torch.float32)
    narrow = learnt(tmp_path / "bfloat16", taught, Full(), shouting, torch.bfloat16, rate, torch.float32)
    truth, found = moved(plain, taught), moved(narrow, taught)
    assert F.cosine_similarity(found, truth, 0) > 0.99
    weights = torch.cat([taught.get_parameter(name).detach().flatten() for name in plain.attached.trainable])
    assert not ((truth.abs() > half_last_place(weights)) & (found == 0)).any()
    assert (found != 0).float().mean() > 0.999
    assert fall(narrow) == pytest.approx(fall(plain), rel=SHARE)

    pure = tiny.copy_of(taught, "eager").to(torch.bfloat16)
    start = [p.detach().clone() for p in pure.parameters()]
    optimizer = torch.optim.AdamW(pure.parameters(), lr=rate, weight_decay=0.0)
    text = torch.from_numpy(np.stack([example.samples[0].tokens for example in shouting])).long()
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(pure(text).logits[:, :-1].float().flatten(0, 1), text[:, 1:].flatten()).backward()
        optimizer.step()
    swallowed = torch.cat([(p.detach() - before).float().flatten() for p, before in zip(pure.parameters(), start, strict=True)])
    assert (swallowed != 0).float().mean() < 0.2, "most weights never moved"
    assert F.cosine_similarity(swallowed, truth, 0) < 0.5
