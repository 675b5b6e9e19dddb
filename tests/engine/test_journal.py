import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from etude.engine.journal import Journal, read
from etude.errors import TrainingError


def _write(path: Path, steps: range) -> None:
    with Journal(path) as journal:
        for step in steps:
            journal.log(step, {"loss": 1 / (step + 1)})


def test_lines_are_strict_json_and_there_at_once(tmp_path):
    path = tmp_path / "run/metrics.jsonl"
    journal = Journal(path)
    values = {"loss": torch.tensor(0.5), "rate": np.float32(0.25), "rows": 7, "note": "é\n", "ok": True}
    journal.log(1, {**values, "nan": float("nan"), "up": float("inf")})
    line = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert abs(line.pop("time") - time.time()) < 10
    assert line == {
        "step": 1, "loss": 0.5, "rate": 0.25, "rows": 7, "note": "é\n", "ok": True,
        "nan": None, "up": None, "not_finite": {"nan": "nan", "up": "inf"},
    }  # fmt: skip
    with pytest.raises(ValueError, match="may not be called time"):
        journal.log(2, {"time": 1.0})
    journal.close()
    assert len(read(path)) == 1


def test_a_resume_cuts_what_is_done_again_and_says_how_much(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _write(path, range(1, 11))
    with Journal(path, resume=6) as journal:
        assert journal.notes == [f"{path}: 4 line(s) of steps after 6 cut off; these steps are done again"]
        journal.log(7, {"loss": 7.0})
    lines = read(path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 6, 7]
    assert lines[6]["event"] == "resumed" and lines[6]["cut_lines"] == 4 and lines[6]["torn_bytes"] == 0
    with Journal(path, resume=7) as journal:
        assert journal.notes == []
    assert [line.get("cut_lines") for line in read(path)].count(0) == 1


def test_a_start_before_the_first_checkpoint_counts_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _write(path, range(3))  # step 0 is the look before training, which a new start does again
    _write(path, range(2))
    assert [(line["step"], line.get("event")) for line in read(path)] == [(0, "resumed"), (0, None), (1, None)]


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', '{"step": 3, "time": 1.0, "loss": 2.0}', "\0\0\0", '{"step": 3\n'])
def test_a_torn_last_line_is_cut_off_and_said(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    _write(path, range(1, 3))
    with path.open("a") as file:
        file.write(torn)
    assert len(read(path)) == 2
    with Journal(path, resume=2) as journal:
        assert journal.notes == [f"{path}: the last line was torn ({len(torn)} bytes); cut off"]
        journal.log(3, {"loss": 1.0})
    assert [line["step"] for line in read(path)] == [1, 2, 2, 3] and read(path)[2]["torn_bytes"] == len(torn)


@pytest.mark.parametrize("bad", ["nonsense", "[1]", '{"loss": 1}', '{"step": "x"}', ""])
def test_another_bad_line_is_named(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{bad}\n{{"step": 2}}\n')
    for use in (read, Journal):
        with pytest.raises(TrainingError, match=rf"{path}:2: not a line"):
            use(path)


KILLED = """
import sys
from pathlib import Path
from etude.engine.journal import Journal
journal = Journal(Path(sys.argv[1]))
for step in range(1, 10**9):
    journal.log(step, {"loss": 0.5, "note": "x" * 50_000})
    if step == 5: print("ready", flush=True)
"""


def test_killed_while_writing_it_goes_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [line["step"] for line in read(path)][:5] == [1, 2, 3, 4, 5], "what was logged is there without a flush"
    os.truncate(path, path.stat().st_size - 100)
    with Journal(path, resume=4) as journal:
        journal.log(5, {})
    assert [line["step"] for line in read(path)] == [1, 2, 3, 4, 4, 5]
