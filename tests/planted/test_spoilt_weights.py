"""Weights that are no longer numbers: never saved, and the checkpoint before them stays."""

from dataclasses import replace

import pytest
import tiny
import torch

from etude.adaptation.full import Full
from etude.engine.checkpoint import Checkpoints
from etude.engine.loop import fit
from etude.errors import TrainingError
from etude.objective.next_token import NextToken


def test_a_nan_in_the_weights_is_never_saved(tmp_path):
    made = tiny.course(tmp_path, Full(), NextToken(), steps=6, checkpoint_every=2, learning_rate=1e-3)

    def spoil(moment) -> None:
        if moment.step == 3:
            with torch.no_grad():
                next(iter(made.attached.trainable.values())).view(-1)[5] = float("nan")

    with pytest.raises(TrainingError, match=r"step 4: 1 tensors of weights are no longer finite, model\.embed_tokens\.weight first"):
        fit(replace(made.course, hooks=[(spoil, 1)]))
    found = Checkpoints(tmp_path / "checkpoints", 2).newest()
    assert found.step == 2 and all(torch.isfinite(tensor).all() for tensor in found.tensors.values())
