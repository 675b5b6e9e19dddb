"""Scores of the parent on the disk: whole, or computed again."""

import os
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file

from etude.data.rows import Cut
from etude.engine.reference import StoredReference
from etude.errors import TrainingError
from etude.model.policy import Policy
from etude.objective.dpo import DPO


@pytest.fixture
def scored(llama):
    examples = tiny.some_examples(DPO(), 6)
    return examples, StoredReference.compute(Policy(llama), examples, Cut(4096))


def test_what_is_written_is_whole(scored, tmp_path):
    examples, tensors = scored
    file, said = tmp_path / "reference.safetensors", []
    assert not StoredReference.whole(file, examples, said.append) and not said, "there is none yet"
    StoredReference.write(file, tensors)
    assert StoredReference.whole(file, examples, said.append) and not said
    assert torch.equal(load_file(file)["log_probability"], tensors["log_probability"])
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "other rows"])
def test_a_torn_file_is_said_and_not_believed(scored, tmp_path, damage):
    examples, tensors = scored
    file, said = tmp_path / "reference.safetensors", []
    StoredReference.write(file, tensors)
    if damage == "other rows":
        examples = examples[:-1]
    elif damage == "zeros":  # a name that reached the disk before its content did
        file.write_bytes(bytes(file.stat().st_size))
    else:
        os.truncate(file, file.stat().st_size // 2 if damage == "cut" else 0)
    assert not StoredReference.whole(file, examples, said.append)
    assert len(said) == 1 and said[0].endswith("the parent is scored again")


def test_a_full_disk_is_seen_before_writing(scored, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    with pytest.raises(TrainingError, match=r"no room for the scores of the parent: .* has 1\.0 MiB free"):
        StoredReference.write(tmp_path / "reference.safetensors", scored[1])
    assert not list(tmp_path.iterdir())
