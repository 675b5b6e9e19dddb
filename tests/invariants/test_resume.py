"""Invariant 2: killed at any moment and resumed ≡ never killed, bit for bit; and what cannot be so is said."""

import json
import multiprocessing
import random
import signal
import time
from pathlib import Path

import pytest
import tiny
import torch

from etude.adaptation.full import Full
from etude.adaptation.lora import Lora
from etude.engine.checkpoint import TENSORS
from etude.engine.loop import fit
from etude.objective.dpo import DPO
from etude.objective.next_token import NextToken

STEPS, KILLS = 16, 20
RUNS = {"lora with dropout": (Lora(rank=4, dropout=0.2), NextToken()), "full": (Full(), DPO())}


def run(folder: Path, kind: str, *, stop_after: int | None = None) -> list[str]:
    """Goes on with a run, or starts it; at its end what was trained lies in `folder/trained`. Returns what was said."""
    adaptation, objective = RUNS[kind]
    made = tiny.course(folder, adaptation, objective, steps=STEPS, examples_per_step=4, checkpoint_every=2, keep_checkpoints=2)

    def stop(moment) -> None:
        if moment.step == stop_after:
            signal.raise_signal(signal.SIGTERM)

    object.__setattr__(made.course, "hooks", [*made.course.hooks, (stop, 1)])
    torch.manual_seed(len(list(folder.glob("**/*"))))  # what a new process happens to begin with must not matter
    outcome = fit(made.course)
    if outcome.finished:
        (aside := folder / "aside").mkdir(exist_ok=True)
        made.attached.save(aside)
        aside.rename(folder / "trained")
    return made.said


def trained(folder: Path) -> bytes:
    """The trained weights, to the byte."""
    (file,) = (folder / "trained").glob("*.safetensors")
    return file.read_bytes()


def journal(folder: Path) -> list[tuple[int, float]]:
    """Each step's number and loss, as written down."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


@pytest.fixture(scope="module", params=RUNS)
def undisturbed(request, tmp_path_factory):
    """A kind of run, and the folder of one that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    torch.set_num_threads(1)
    run(folder, request.param)
    return request.param, folder


def child(folder: Path, kind: str, ready) -> None:
    """One process of a run that will be killed."""
    torch.set_num_threads(1)
    ready.set()
    (folder / f"said-{time.monotonic_ns()}").write_text("\n".join(run(folder, kind)))


def test_killed_at_random_moments(undisturbed, tmp_path, monkeypatch):
    """SIGKILL, half of the twenty for each kind: as often as it takes, and a new run whenever one came to its end."""
    kind, whole = undisturbed
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["tiny", "peft", "transformers.models.llama.modeling_llama"])
    draw, kills, folders, resumed = random.Random(kind), 0, [], 0
    seconds = 2.0
    while kills < KILLS // len(RUNS) or not (folders[-1] / "trained").exists():
        if not folders or (folders[-1] / "trained").exists():
            folders.append(tmp_path / f"run{len(folders)}")
            folders[-1].mkdir()
        ready = forks.Event()
        process = forks.Process(target=child, args=(folders[-1], kind, ready))
        process.start()
        assert ready.wait(120)
        began = time.monotonic()
        resumed += any((folders[-1] / "checkpoints").glob("step-*"))
        if kills < KILLS // len(RUNS):
            process.join(draw.uniform(0, seconds))
            process.kill()
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            seconds = min(seconds, time.monotonic() - began)
        else:
            kills += 1
    assert resumed >= KILLS // len(RUNS) // 3, "most kills came after something was saved"
    for folder in folders:
        assert trained(folder) == trained(whole)
        assert journal(folder) == journal(whole)


def test_stopped_and_resumed_until_the_end(undisturbed, tmp_path):
    kind, whole = undisturbed
    assert any("the same command goes on from there" in line for line in run(tmp_path, kind, stop_after=7))
    said = run(tmp_path, kind, stop_after=13)
    assert f"going on from step 7 of {STEPS}" in said
    assert f"going on from step 13 of {STEPS}" in run(tmp_path, kind)
    assert trained(tmp_path) == trained(whole)
    assert journal(tmp_path) == journal(whole)
    assert [step for step, _ in journal(tmp_path)] == list(range(1, STEPS + 1))


def test_a_truncated_checkpoint_is_passed_over_and_said(undisturbed, tmp_path):
    kind, whole = undisturbed
    run(tmp_path, kind, stop_after=11)
    before, newest = sorted((tmp_path / "checkpoints").glob("step-*"))
    assert (before.name, newest.name) == ("step-00000010", "step-00000011")
    content = (newest / TENSORS).read_bytes()
    (newest / TENSORS).write_bytes(content[: len(content) // 2])
    said = run(tmp_path, kind)
    assert any(newest.name in line and "bytes instead of" in line for line in said)
    assert f"going on from step 10 of {STEPS}" in said
    assert trained(tmp_path) == trained(whole)
    assert journal(tmp_path) == journal(whole)


def test_another_number_of_threads_is_said(undisturbed, tmp_path):
    kind, _ = undisturbed
    run(tmp_path, kind, stop_after=4)
    torch.set_num_threads(2)
    said = run(tmp_path, kind, stop_after=5)
    assert [line for line in said if "threads: 1, here threads: 2" in line and "not equal to the bit" in line]
    torch.set_num_threads(1)
    assert not [line for line in run(tmp_path, kind, stop_after=6) if "torch:" in line]
