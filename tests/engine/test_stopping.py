"""Stopping early: by hand on a made-up curve, the best weights kept, resumed to the same bits, agreed by two processes."""

import math
import os
import shutil
import socket
from dataclasses import replace

import pytest
import tiny
import torch
import torch.distributed as dist
import torch.multiprocessing as spawning
from pydantic import ValidationError

from etude import catalog
from etude.adaptation.full import Full
from etude.adaptation.lora import Lora
from etude.engine.loop import fit
from etude.engine.score import likelihoods
from etude.engine.stopping import Stopping
from etude.objective.next_token import NextToken
from etude.recipe.schema import Train

STOPS = {"evaluate_every": 2, "early_stopping": {"patience": 2}}


def options(**train):
    return Train.model_validate(train, context={"tables": catalog.TABLES})


@pytest.mark.parametrize(
    ("curve", "minimum", "best_step", "ends"),
    [
        ([3.0, 2.0, 2.5, 1.9, 1.95, 2.0], 0.0, 3, 5),
        ([3.0, 2.0, 2.5, 1.9, 1.95, 2.0], 0.2, 1, 3),
        ([3.0, 2.0, 1.0, 0.5], 0.0, 3, None),
        ([math.nan, 3.0, math.nan, math.nan], 0.0, 1, 3),
    ],
)
@pytest.mark.parametrize("figure", ["held_out_loss", "held_out_preferred"])
def test_patience_and_gain_by_hand(curve, minimum, best_step, ends, figure):
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    settings = {"patience": 2, "minimum_gain": minimum}
    stopping, step = Stopping(options(evaluate_every=1, early_stopping=settings), {"w": weight}), 0
    sign = 1 if "loss" in figure else -1
    while not stopping.ended and step < len(curve):
        with torch.no_grad():
            weight.fill_(step)
        stopping.look(step, {"loss": 1.0, figure: sign * curve[step]}, edge=False)
        step += 1
    kept = stopping.finish(step - 1, 20, lambda line: None)
    assert (kept.best_step, step - 1 if stopping.ended else None) == (best_step, ends)
    assert kept.best == sign * curve[best_step] and kept.steps_not_taken == 20 - (step - 1)
    assert weight[0, 0] == best_step, "the weights are those of the best look"


def made(folder, adaptation, steps=40, stops=STOPS, **train):
    """Learns eight rows by heart, and is looked at on eight others."""
    examples = tiny.some_examples(NextToken(), 16)
    rate = 3e-3 if adaptation.kind == "full" else 2e-2
    usual = dict(examples=examples[:8], steps=steps, schedule={"kind": "constant", "warmup": 0}, learning_rate=rate)
    found = tiny.course(folder, adaptation, NextToken(), **usual | stops | train)
    look = lambda moment: {"held_out_loss": likelihoods(found.course.policy, examples[8:], found.course.cut).mean}
    return replace(found, course=replace(found.course, hooks=[(look, 2), *found.course.hooks]))


@pytest.mark.parametrize("adaptation", [Full(), Lora(rank=4)], ids=lambda a: a.kind)
def test_it_ends_with_the_best_weights_also_when_killed_and_resumed(tmp_path, adaptation):
    whole = made(tmp_path / "whole", adaptation, checkpoint_every=2)
    outcome = fit(whole.course)
    kept = outcome.kept
    assert outcome.finished and outcome.steps == kept.best_step + 4 < 40 and kept.steps_not_taken == 40 - outcome.steps
    assert kept.best < kept.last
    said = f"stopped early at step {outcome.steps}: the weights of step {kept.best_step} are kept"
    assert any(line.startswith(said) for line in whole.said)
    shorter = made(tmp_path / "shorter", adaptation, steps=max(kept.best_step, 1), stops={})
    fit(shorter.course)
    for name, p in whole.attached.trainable.items():
        assert torch.equal(p, shorter.attached.trainable[name]), "those of a run that ended there"
    for at in range(kept.best_step, outcome.steps + 1, 2):  # killed behind the best step: what was best is not seen again
        shutil.copytree(tmp_path / "whole", folder := tmp_path / f"killed-{at}")
        for path in (folder / "checkpoints").iterdir():
            if int(path.name.split("-")[1]) > at:
                shutil.rmtree(path)
        if not (folder / "checkpoints" / f"step-{at:08d}").exists():
            continue  # not kept so long
        rest = made(folder, adaptation, checkpoint_every=2)
        again = fit(rest.course)
        assert again.kept == kept and again.steps == outcome.steps
        assert len(rest.losses) == outcome.steps - at
        for name, p in whole.attached.trainable.items():
            assert torch.equal(p, rest.attached.trainable[name]), (at, name)


def test_a_run_that_reaches_its_end_keeps_the_best_too(tmp_path):
    patient = {"evaluate_every": 2, "early_stopping": {"patience": 30}}
    found = made(tmp_path, Lora(rank=4), steps=20, stops=patient)
    outcome = fit(found.course)
    assert outcome.steps == 20 and outcome.kept.steps_not_taken == 0 and outcome.kept.best_step < 20
    assert any(line.startswith("ended at step 20: the weights of step") for line in found.said)


def one_of_two(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = made(folder, Lora(rank=4))
    if rank:  # as it is composed: the first process alone looks
        found = replace(found, course=replace(found.course, hooks=[]))
    outcome = fit(found.course)
    weights = torch.cat([p.detach().flatten() for p in found.attached.trainable.values()])
    torch.save({"steps": outcome.steps, "best": outcome.kept.best_step, "weights": weights}, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_agree(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "two").mkdir()
    spawning.spawn(one_of_two, (port, tmp_path / "two"), nprocs=2)
    first, second = (torch.load(tmp_path / "two" / f"{rank}.pt") for rank in range(2))
    assert first["steps"] == second["steps"] < 40 and first["best"] == second["best"]
    assert torch.equal(first["weights"], second["weights"])
    assert fit(made(tmp_path / "alone", Lora(rank=4)).course).steps == first["steps"]


def test_what_it_needs_is_said():
    with pytest.raises(ValidationError, match="every `evaluate_every` steps: set that"):
        options(early_stopping={})
