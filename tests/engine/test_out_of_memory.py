"""A device that is too small: rows are cut in half and the same step is taken, with the same result; or the run says what to do."""

from pathlib import Path

import pytest
import tiny
import torch

from etude.adaptation.lora import Lora
from etude.engine.course import Outcome
from etude.engine.loop import fit
from etude.errors import TrainingError
from etude.objective.next_token import NextToken


def run(folder: Path, most: int | None = None) -> tuple[tiny.Made, Outcome]:
    """A course whose model itself refuses rows of more than `most` tokens, as an allocator would."""
    made = tiny.course(folder, Lora(rank=4), NextToken(), steps=4)

    def refuse(_module, _arguments, keywords):
        if most is not None and keywords["input_ids"].shape[-1] > most:
            raise torch.OutOfMemoryError("out of memory")

    made.course.policy.model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)
    return made, fit(made.course)


def test_rows_are_cut_smaller_and_the_steps_stay_the_same(tmp_path):
    roomy, _ = run(tmp_path / "roomy")
    tight, outcome = run(tmp_path / "tight", most=60)
    assert tight.losses == pytest.approx(roomy.losses, abs=1e-5)
    assert outcome.totals.smaller_rows >= 1
    assert any("out of memory; repeating it in rows of" in line for line in tight.said)


def test_a_single_example_too_large_says_what_to_do(tmp_path):
    with pytest.raises(TrainingError, match=r"out of memory\n.*train\.tokens_per_row.*data\.context"):
        run(tmp_path, most=10)
