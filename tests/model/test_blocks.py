"""What `train.activation_checkpointing` and `train.compile` do to blocks: the same numbers, at another price."""

import shutil

import pytest
import tiny
import torch

from etude.adaptation.full import Full
from etude.adaptation.lora import Lora
from etude.adaptation.qlora import QLora
from etude.engine.loop import fit
from etude.model.blocks import compile_blocks
from etude.objective.next_token import NextToken

WAYS = {"lora": (Lora(rank=4), 1e-2), "full": (Full(), 3e-3), "qlora": (QLora(rank=4), 1e-2)}


def counted(model) -> list[int]:
    """How often the first block began: filled as it goes. The second time it is left as soon as nothing more is missing."""
    calls: list[int] = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("way", WAYS)
def test_activations_are_computed_again_and_nothing_changes(tmp_path, way):
    adaptation, rate = WAYS[way]
    plain, again = (tiny.course(tmp_path / name, adaptation, NextToken(), steps=4, learning_rate=rate) for name in ("plain", "again"))
    again.course.policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    calls = [counted(made.course.policy.model) for made in (plain, again)]
    for made in (plain, again):
        fit(made.course)
    assert again.losses == pytest.approx(plain.losses, abs=1e-6)
    assert len(calls[1]) == 2 * len(calls[0]), "every block ran twice"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile writes C++ on a CPU")
@pytest.mark.parametrize("way", ["lora", "full"])
def test_compiled_blocks_give_the_same_losses_over_rows_of_any_shape(tmp_path, way):
    adaptation, rate = WAYS[way]
    plain, compiled = (tiny.course(tmp_path / name, adaptation, NextToken(), steps=6, learning_rate=rate) for name in ("plain", "compiled"))
    torch._dynamo.reset()
    said = compile_blocks(compiled.course.policy.model)
    assert said == "2 blocks will be compiled at their first use"
    with torch._dynamo.config.patch(error_on_recompile=False, recompile_limit=8, fail_on_recompile_limit_hit=True):
        for made in (plain, compiled):
            fit(made.course)
    assert compiled.losses == pytest.approx(plain.losses, abs=1e-5)
