"""Stopped by Ctrl-C in a real process: said, saved, and gone on with to the same bits."""

import json
import signal
import subprocess
import sys
import time
from datetime import datetime

from small_project import recipe, stage

import etude

STEPS = 150


def test_interrupted_and_gone_on_with(project, base, voice, tmp_path_factory):
    file = recipe(
        project / "colours.yaml", base, {"sft": stage(project / "answers.jsonl", steps=STEPS, checkpoint_every=1000)}, evaluate=None
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "etude", "run", str(file)], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not any(
        len(path.read_text().splitlines()) > 5 for path in project.glob(".etude/runs/*/metrics.jsonl")
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "not finished; the same command goes on from the newest checkpoint" in out
    assert "SIGINT: finishing this step and saving" in err and "Traceback" not in err
    assert etude.list(project=project) == []
    (begun,) = [json.loads(path.read_text())["started"] for path in project.glob(".etude/runs/*/run.json")]
    done = etude.run(str(file), voice=voice, project=project).stages["sft"]
    (resumed,) = [line for line in voice.lines if line.startswith("going on from step")]
    assert 5 <= int(resumed.split()[4]) < STEPS
    whole = etude.run(str(file), project=tmp_path_factory.mktemp("undisturbed")).stages["sft"]
    assert (done.folder / "adapter_model.safetensors").read_bytes() == (whole.folder / "adapter_model.safetensors").read_bytes()
    assert done.record.metrics == whole.record.metrics and done.record.fingerprint == whole.record.fingerprint
    assert done.record.started == datetime.fromisoformat(begun), "when it began first"
