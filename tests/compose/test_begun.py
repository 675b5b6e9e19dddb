"""What a stage is, before it is run."""

from types import SimpleNamespace

import pytest
import torch
from pydantic import Field
from small_project import stage

from etude import catalog
from etude.compose.begun import _identity
from etude.recipe.data import Data
from etude.recipe.schema import Stage, Train


class LaterTrain(Train):
    """As a later etude will know it."""

    momentum: float = 0.5
    """A key that is new."""


class LaterData(Data):
    """The same of the data."""

    mixed: bool = False
    """A key that is new."""


class Later(Stage):
    """The same of the stage."""

    data: LaterData
    train: LaterTrain = Field(default={}, validate_default=True)
    placement: str = "here"
    """A key that is new."""


def identity(kind: type[Stage], **changes) -> str:
    written = stage("rows.jsonl")
    written["train"] |= changes
    known = SimpleNamespace(parent=SimpleNamespace(fingerprint="a" * 64), outline=SimpleNamespace(stop_ids=frozenset()))
    made = kind.model_validate(written, context={"tables": catalog.TABLES})
    prepared = SimpleNamespace(fingerprint="b" * 64, replayed=None)
    return _identity(made, known, None, prepared, torch.float32, {})


def test_a_key_that_a_later_etude_adds_makes_no_other_stage():
    assert identity(Later) == identity(Later, momentum=0.5) == identity(Stage)
    assert identity(Later, momentum=0.6) != identity(Stage)


@pytest.mark.parametrize("changes", [{"beta2": 0.99}, {"seed": 1}, {"schedule": {"kind": "cosine", "warmup": 3}}, {"rates": {"*": 2.0}}])
def test_what_differs_from_its_default_makes_another_stage(changes):
    assert identity(Stage, **changes) != identity(Stage)
