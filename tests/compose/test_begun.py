"""What a stage is, before it is run."""

from types import SimpleNamespace

import pytest
import torch
from pydantic import Field
from small_project import stage

from etude import catalog
from etude.compose.begun import NEWBORN_RATE, _identity
from etude.recipe.birth import Newborn
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


def identity(kind: type[Stage], *, base="a base", adapt="lora", objective="next-token", rewarding=None, **changes) -> str:
    written = stage("rows.jsonl", adapt=adapt, objective=objective)
    written["train"] |= changes
    known = SimpleNamespace(parent=SimpleNamespace(fingerprint="a" * 64), outline=SimpleNamespace(stop_ids=frozenset()))
    made = kind.model_validate(written, context={"tables": catalog.TABLES})
    prepared = SimpleNamespace(fingerprint="b" * 64, replayed=None)
    return _identity(SimpleNamespace(base=base), made, known, None, prepared, torch.float32, rewarding or {})


def test_a_key_that_a_later_etude_adds_makes_no_other_stage():
    assert identity(Later) == identity(Later, momentum=0.5) == identity(Stage)
    assert identity(Later, momentum=0.6) != identity(Stage)


def test_the_rate_of_a_newborn_is_no_other_models_default():
    """Taken by default or written out, 1e-3 is not the 1e-5 of a full tuning, whose parent may be the same files."""
    born = Newborn(size="1k")
    usual = identity(Stage, adapt="full", learning_rate=None)
    assert identity(Stage, base=born, adapt="full", learning_rate=None) != usual
    assert identity(Stage, base=born, adapt="full", learning_rate=None) == identity(Stage, adapt="full", learning_rate=NEWBORN_RATE)


def test_which_reward_is_asked_of_which_artefact():
    models = {name: SimpleNamespace(parent=SimpleNamespace(fingerprint=name * 64)) for name in "ab"}

    def rewarded(*names):
        aim = {"kind": "grpo", "rewards": [{"kind": "artefact", "artefact": name, "weight": i + 1.0} for i, name in enumerate(names)]}
        return identity(Stage, objective=aim, rewarding={name: models[name] for name in dict.fromkeys(names)})

    assert rewarded("a", "b", "a") != rewarded("a", "b", "b")
    assert rewarded("a", "b") != rewarded("b", "a")


@pytest.mark.parametrize("changes", [{"beta2": 0.99}, {"seed": 1}, {"schedule": {"kind": "cosine", "warmup": 3}}, {"rates": {"*": 2.0}}])
def test_what_differs_from_its_default_makes_another_stage(changes):
    assert identity(Stage, **changes) != identity(Stage)
