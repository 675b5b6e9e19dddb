"""Two processes, as torchrun starts them, train what one would have trained; the first alone speaks and writes."""

import json
import os
import socket
import subprocess
import sys

import pytest
from small_project import make_base, recipe, stage

import etude
from etude.core import ranks


def start_two(file, cwd):
    """Both to their end; [(exit code, stdout, stderr)] by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "etude", "run", str(file)],
            cwd=cwd,
            env=os.environ | meet | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def test_two_train_what_one_trains(project, base, tmp_path_factory):
    """A LoRA, and on it a full tuning whose stored reference and parent's scores the first process makes for both."""
    small = {"tokens_per_row": 64}  # several rows a step, so that both have some
    stages = {
        "sft": stage(project / "answers.jsonl", **small),
        "dpo": stage(project / "pairs.jsonl", parent="sft", adapt="full", objective="dpo", **small),
    }
    file = recipe(project / "two.yaml", base, stages)
    (code, out, err), (other_code, *other_said) = start_two(file, project)
    assert (code, other_code) == (0, 0), err
    assert "2 processes" in err and "etude chat two-dpo" in out
    assert other_said == ["", ""]
    entries = etude.list(project=project)
    assert [entry.record.reference for entry in entries] == ["two-dpo@1", "two-sft@1"]
    assert not any(path.is_dir() for path in (project / ".etude" / "runs").iterdir())
    alone = etude.run(str(file), project=tmp_path_factory.mktemp("alone"))
    for entry, name in zip(entries, ("dpo", "sft"), strict=True):
        assert entry.record.machine.processes == 2
        found, expected = (_losses(folder) for folder in (entry.folder, alone.stages[name].folder))
        assert found == pytest.approx(expected, abs=1e-5) and len(found) == 4
        assert entry.record.identity == alone.stages[name].record.identity or name == "dpo"
        for before, now in zip(alone.stages[name].judgement.axes, _axes(entry.folder), strict=True):
            assert now["tuned"]["value"] == pytest.approx(before.tuned.value, abs=1e-4)


def test_two_learn_from_what_one_teacher_said_once(project, base, tmp_path_factory):
    """Asked by the first process, read by both."""
    teacher = make_base(tmp_path_factory.mktemp("teachers") / "other", seed=5)
    aim = {"kind": "distil", "teacher": str(teacher), "top_k": 8}
    file = recipe(project / "two.yaml", base, {"d": stage(project / "answers.jsonl", objective=aim, tokens_per_row=64)}, evaluate=None)
    (code, _, err), (other_code, *other_said) = start_two(file, project)
    assert (code, other_code, other_said) == (0, 0, ["", ""]), err
    (entry,) = etude.list(project=project)
    alone = etude.run(str(file), project=tmp_path_factory.mktemp("alone")).stages["d"]
    assert entry.record.machine.processes == 2 and entry.record.identity == alone.record.identity
    assert _losses(entry.folder) == pytest.approx(_losses(alone.folder), abs=1e-5)


def _losses(folder) -> list[float]:
    return [line["loss"] for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if "loss" in line]


def _axes(folder) -> list[dict]:
    return json.loads((folder / "judgement.json").read_text())["axes"]


def test_one_process_needs_nobody(monkeypatch):
    from etude.compose.processes import first_alone, leads, together

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with together(), first_alone():
        assert leads() and ranks.world() == 1
