"""Every adaptation and every objective of the catalog: one trajectory however a step is cut, on one process or two, and resumed."""

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor
from two_processes import on_two

from etude import catalog
from etude.data.rows import Cut
from etude.engine.loop import fit
from etude.objective.contract import Objective
from etude.objective.next_token import NextToken
from etude.objective.rewards.by_function import ByFunction

WHOLE = Cut(4096, 4)
CUTS = {"small rows": Cut(90, 4), "nothing shared": Cut(4096, 1000), "padded": Cut(4096, 16, "padded")}
OTHERS = [name for name in catalog.OBJECTIVES if name not in ("next-token", "dpo")]
WITH_HEADS = [name for name in OTHERS if catalog.find("objective", name)().outputs is not None]
WAYS = [*((kind, "next-token") for kind in catalog.ADAPTATIONS), *(("lora", objective) for objective in OTHERS)]
WAYS += [("full", objective) for objective in WITH_HEADS]
REWARD = "def reward(prompt, expected, answer):\n    return sum(word in ('7', '11', '30') for word in answer.split())\n"


def made(folder: Path, way: tuple[str, str], cut: Cut, steps: int = 3, **train: object) -> tiny.Made:
    adaptation, kind = way
    rate = {"full": 3e-3, "last_layers": 3e-3, "lora+": 1e-3}.get(adaptation, 1e-2)
    aim, examples = _aim(folder.parent, kind, adaptation)
    # Plain descent: Adam would make of a last bit in a gradient near zero a whole step.
    options = dict(learning_rate=rate, cut=cut, examples_per_step=8, schedule="constant", epsilon=1e-2, **train)
    return tiny.course(folder, catalog.find("adaptation", adaptation)(), aim, examples=examples, steps=steps, **options)


def _aim(folder: Path, kind: str, adaptation: str) -> tuple[Objective, list]:
    if catalog.find("objective", kind)().sampling is None:
        return tiny.task(catalog.find("objective", kind)(), 16)
    (folder / "reward.py").write_text(REWARD)
    rewards = [ByFunction(file=str(folder / "reward.py"))]
    options = {"beta": 0.0} if adaptation == "full" else {}  # there is no parent to switch back to
    return catalog.find("objective", kind)(group=3, max_new_tokens=4, rewards=rewards, **options), tiny.some_examples(NextToken(), 16)


def trajectory(folder: Path, way: tuple[str, str], cut: Cut) -> list[float]:
    course = made(folder, way, cut)
    fit(course.course)
    return course.losses


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_any_cut_is_one_trajectory(tmp_path, way):
    expected = trajectory(tmp_path / "whole", way, WHOLE)
    for name, cut in CUTS.items():
        if (way[0], name) != ("prefix", "padded"):
            assert trajectory(tmp_path / name, way, cut) == pytest.approx(expected, abs=2e-5), name


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_stopped_and_gone_on_is_never_stopped(tmp_path, way):
    whole = made(tmp_path / "whole", way, WHOLE, steps=4)
    fit(whole.course)
    fit(made(tmp_path / "half", way, WHOLE, steps=2, checkpoint_every=1).course)
    rest = made(tmp_path / "half", way, WHOLE, steps=4)
    fit(rest.course)
    for name, p in whole.attached.trainable.items():
        assert torch.equal(p, rest.attached.trainable[name]), name


def everything(folder: Path) -> dict[str, Tensor]:
    return {"/".join(way): torch.tensor(trajectory(folder / "-".join(way) / "run", way, CUTS["small rows"])) for way in WAYS}


def test_two_processes_are_one(tmp_path):
    for way in WAYS:
        for name in ("run", "alone"):
            (tmp_path / name / "-".join(way)).mkdir(parents=True)
    first, second = on_two(everything, tmp_path)
    expected = everything(tmp_path / "alone")
    for what, losses in expected.items():
        assert torch.equal(first[what], second[what]), what
        assert (first[what] - losses).abs().max() < 2e-5, what
