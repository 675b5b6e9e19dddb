import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from etude.engine.checkpoint import STATE, TENSORS, Checkpoints
from etude.errors import TrainingError

ROOT = Path(__file__).parents[2]


def _content(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        "weight": torch.randn(64, 33, generator=generator),
        "half": torch.randn(7, generator=generator).bfloat16(),
        "step": torch.tensor(step, dtype=torch.int64),
        "generator": generator.get_state(),
        "empty": torch.zeros(0, 3),
    }


def _equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(one[n].dtype == two[n].dtype and torch.equal(one[n], two[n]) for n in one)


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    assert checkpoints.newest() is None
    state = {"samples": 12345678901234567890, "rate": 0.1 + 0.2, "phases": [0.1, {"é": None}], "done": False}
    path = checkpoints.save(3, _content(3), state)
    loaded = Checkpoints(tmp_path / "c", keep=2).newest()
    assert (loaded.step, loaded.path, loaded.state, loaded.notes) == (3, path, state, [])
    assert _equal(loaded.tensors, _content(3))
    assert sorted(p.suffix for p in path.iterdir()) == [".json", ".json", ".safetensors"]
    assert all(t.data_ptr() % 64 == 0 for t in loaded.tensors.values() if t.numel()), "aligned as in a live run"


def test_tied_tensors_are_stored_once_and_come_back_tied(tmp_path):
    embedding = torch.randn(100, 10)
    whole = torch.arange(12.0)
    tensors = {"embed": embedding, "head": embedding, "turned": embedding.T, "front": whole[:6], "back": whole[6:], "overlap": whole[3:9]}
    path = Checkpoints(tmp_path, keep=1).save(1, tensors, {})
    assert (path / TENSORS).stat().st_size < 2 * embedding.nbytes + 1000
    loaded = Checkpoints(tmp_path, keep=1).newest().tensors
    assert loaded["head"] is loaded["embed"]
    assert _equal(loaded, tensors)
    loaded["front"].zero_()
    assert torch.equal(loaded["overlap"], whole[3:9])


def test_only_the_newest_stay_and_only_once_the_new_one_is_whole(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 20, 30, 40):
        checkpoints.save(step, _content(step), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000030", "step-00000040"]
    with pytest.raises(ValueError, match="at least one"):
        Checkpoints(tmp_path, keep=0)


def _truncate(path: Path) -> None:
    os.truncate(path / TENSORS, (path / TENSORS).stat().st_size - 1)


def _flip(path: Path) -> None:
    content = bytearray((path / TENSORS).read_bytes())
    content[-5] ^= 1
    (path / TENSORS).write_bytes(content)


def _change_state(path: Path) -> None:
    (path / STATE).write_text((path / STATE).read_text().replace("20", "21"))


DAMAGES = {
    "truncated": (_truncate, "bytes instead of"),
    "one bit": (_flip, "another content"),
    "state": (_change_state, "another content"),
    "no tensors": (lambda path: (path / TENSORS).unlink(), TENSORS),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "manifest"),
    "cut manifest": (lambda path: os.truncate(path / "manifest.json", 20), "passed over"),
    "empty": (lambda path: [p.unlink() for p in path.iterdir()], "manifest"),
    "renamed": (lambda path: path.rename(path.with_name("step-00000025")), "manifest is of step 20"),
    "newer format": (lambda path: (path / "manifest.json").write_text('{"format": 2}'), "format 2"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path, damage):
    spoil, said = DAMAGES[damage]
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(10, _content(10), {"step": 10})
    spoil(checkpoints.save(20, _content(20), {"step": 20}))
    again = Checkpoints(tmp_path, keep=2)
    loaded = again.newest()
    assert loaded.step == loaded.state["step"] == 10 and _equal(loaded.tensors, _content(10))
    assert len(loaded.notes) == 1 and said in loaded.notes[0]
    # The course goes on from 10: saves again, the damaged one goes, and no whole one had to go for it.
    again.save(15, _content(15), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]
    again.save(20, _content(20), {"again": True})
    final = Checkpoints(tmp_path, keep=2).newest()
    assert final.state == {"again": True} and final.notes == []
    assert len(list(tmp_path.iterdir())) == 2


def test_no_whole_one_at_all_is_loud(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    _truncate(checkpoints.save(1, _content(1), {}))
    with pytest.raises(TrainingError, match=r"no checkpoint is whole\n.*bytes instead of"):
        checkpoints.newest()


def test_the_same_step_saved_again_counts(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(5, _content(1), {})
    checkpoints.save(5, _content(2), {})
    assert _equal(Checkpoints(tmp_path, keep=2).newest().tensors, _content(2))


def test_an_earlier_step_than_what_lies_there_is_refused(tmp_path):
    Checkpoints(tmp_path, keep=2).save(5, _content(5), {})
    with pytest.raises(TrainingError, match="step-00000005 is of a later step"):
        Checkpoints(tmp_path, keep=2).save(4, _content(4), {})


@pytest.mark.parametrize("state", [{"a": (1, 2)}, {"a": {1: 2}}, {"a": float("nan")}, {"a": torch.ones(1)}, {"a": b"x"}, {"a": {3}}])
def test_a_state_that_json_would_alter_is_refused(tmp_path, state):
    with pytest.raises(TrainingError, match="cannot be saved as JSON"):
        Checkpoints(tmp_path, keep=2).save(1, {}, state)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_seen_before_writing(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, _content(1), {})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=70 * 2**20))
    figures = r"needs 8\.0 MiB and a margin of 64\.0 MiB, .* has 70\.0 MiB free; step-00000001 is untouched"
    with pytest.raises(TrainingError, match=figures) as error:
        checkpoints.save(2, {"big": torch.zeros(2**21)}, {})
    assert "`etude clean` spares unfinished runs" in error.value.remedy
    checkpoints.save(3, {"small": torch.zeros(2**20)}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000003"]


FULL = """
import resource, sys, torch
from pathlib import Path
from etude.engine.checkpoint import Checkpoints
from etude.errors import TrainingError
checkpoints = Checkpoints(Path(sys.argv[1]), keep=1)
checkpoints.save(1, {"w": torch.zeros(10)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoints.save(2, {"w": torch.zeros(1_000_000)}, {})
except TrainingError as error:
    print(error)
"""


def test_a_disk_that_refuses_while_writing_leaves_the_one_before(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "could not be written" in done.stdout and "step-00000001 is untouched" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


# Imports once, then forks a process for each kill: it loads, saves without end, and is killed in the middle.
LOOP = """
import os, signal, sys, time, torch
from pathlib import Path
from etude.engine.checkpoint import Checkpoints
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        checkpoints = Checkpoints(Path(sys.argv[1]), keep=2)
        loaded = checkpoints.newest()
        step = loaded.step if loaded else 0
        while True:
            step += 1
            checkpoints.save(step, {"weight": torch.full((300, 1000), float(step))}, {"step": step})
    time.sleep(float(line))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("killed", flush=True)
"""


def test_killed_at_twenty_random_moments_there_is_always_a_whole_one(tmp_path):
    moments, before, half_written = random.Random(0), 0, 0
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT
    )
    for _ in range(20):
        process.stdin.write(f"{moments.uniform(0.02, 0.2)}\n")
        assert process.stdout.readline() == "killed\n"
        half_written += bool(list(tmp_path.glob(".aside-*")))
        loaded = Checkpoints(tmp_path, keep=2).newest()
        if loaded is None:
            assert before == 0
            continue
        assert loaded.step == loaded.state["step"] >= before
        assert bool((loaded.tensors["weight"] == loaded.step).all())
        assert not [n for n in loaded.notes if "being written" not in n], loaded.notes
        before = loaded.step
    process.stdin.close()
    assert process.wait(10) == 0
    assert before > 20 and half_written > 0, "the moments did hit saves"


TWO = """
import os, sys, torch
from pathlib import Path
from etude.engine.checkpoint import Checkpoints
from etude.errors import TrainingError

folder = Path(sys.argv[1])
rank = 0 if os.fork() else 1
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
checkpoints = Checkpoints(folder / "c", keep=1)
assert checkpoints.newest() is None
path = checkpoints.save(1, {"w": torch.full((4,), float(rank))}, {"rank": rank})
assert path.name == "step-00000001"
loaded = checkpoints.newest()
assert loaded.state == {"rank": 0} and loaded.tensors["w"].sum() == 0
try:  # what the first process cannot write, no other believes to be written
    checkpoints.save(2, {}, {"bad": (1,)})
except TrainingError as error:
    assert ("JSON" if rank == 0 else "the first process") in str(error)
else:
    raise AssertionError("saved")
try:
    Checkpoints(folder / ("c" if rank == 0 else "elsewhere"), keep=1).newest()
except TrainingError as error:
    assert "see different checkpoints" in str(error)
else:
    raise AssertionError("believed")
(folder / f"passed{rank}").touch()
torch.distributed.destroy_process_group()
"""


def test_the_first_process_writes_and_the_others_agree(tmp_path):
    subprocess.run([sys.executable, "-c", TWO, str(tmp_path)], cwd=ROOT, check=True, timeout=100)
    assert (tmp_path / "passed0").exists() and (tmp_path / "passed1").exists()
    manifest = json.loads((tmp_path / "c/step-00000001/manifest.json").read_text())
    assert manifest["files"][STATE]["bytes"] == 11
