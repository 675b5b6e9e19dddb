"""A base whose blocks come and go computes what it computes when it stays: to the bit, forward and backward, from disk and from host memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from etude.adaptation.lora import Lora
from etude.adaptation.qlora import QLora
from etude.data.rows import Cut
from etude.engine.loop import fit
from etude.errors import ModelError
from etude.model.blocks import first_blocks, stack_of
from etude.model.policy import Policy
from etude.model.probe import choose_layout
from etude.model.shards import DiskShelf, HostShelf, map_shard, stored_type, write_shard
from etude.model.shelving import shelve
from etude.model.streamed import stream_of
from etude.model.widened import widened
from etude.objective.next_token import NextToken

SIZES = dict(hidden_size=64, intermediate_size=128, head_dim=16, num_hidden_layers=4)
CPU = torch.device("cpu")


def streamed(model, where: str, folder: Path, dtype: torch.dtype = torch.float32):
    """The model with its blocks on a shelf; what was in memory is not any more."""
    model.requires_grad_(False)
    shelves = lambda what, needed: DiskShelf(folder / what, needed) if where == "disk" else HostShelf(pinned=False)
    shelve(model, shelves, dtype=dtype, device=CPU)
    return model


def base(dtype: torch.dtype = torch.float32):
    return tiny.llama(**SIZES).to(dtype).requires_grad_(False)


def trained(folder: Path, adaptation, model, **train) -> tuple[list[float], dict[str, torch.Tensor]]:
    made = tiny.course(folder, adaptation, NextToken(), model=model, compute=model.dtype, cut=Cut(64), steps=4, **train)
    fit(made.course)
    return made.losses, {name: p.detach().clone() for name, p in made.attached.trainable.items()}


@pytest.mark.parametrize("where", ["disk", "host"])
@pytest.mark.parametrize("adaptation", [Lora(rank=4), Lora(rank=4, targets=["q_proj"]), QLora(rank=4), QLora(rank=4, targets=["down_proj"])], ids=repr)
@pytest.mark.parametrize("again", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_streamed_is_resident_to_the_bit(where, adaptation, again, dtype, tmp_path):
    """Losses and weights of four steps, each of several rows."""
    results = []
    for name, model in (("resident", base(dtype)), ("streamed", streamed(base(dtype), where, tmp_path, dtype))):
        if again:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        results.append(trained(tmp_path / name, adaptation, model))
    (losses, weights), (their_losses, their_weights) = results
    assert losses == their_losses and losses[-1] < losses[0]
    assert weights.keys() == their_weights.keys()
    assert all(torch.equal(weights[name], their_weights[name]) for name in weights)
