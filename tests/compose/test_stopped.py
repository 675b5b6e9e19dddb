"""Stopped by Ctrl-C in a real process: said, saved, and gone on with to the same bits."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
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


def stopping(voice, step: int):
    """A voice on which Ctrl-C is pressed while that step is told of."""

    class Stopping(type(voice)):
        @contextmanager
        def bar(self, label, total, unit):
            with super().bar(label, total, unit):
                done = 0.0

                def advance(amount, note):
                    nonlocal done
                    done += amount
                    if label.startswith("training") and done == step and amount:
                        signal.raise_signal(signal.SIGINT)

                yield advance

    return Stopping()


def test_stopped_in_the_last_step_nothing_else_begins(project, base, voice):
    stages = {"sft": stage(project / "answers.jsonl"), "dpo": stage(project / "pairs.jsonl", parent="sft", objective="dpo")}
    file = recipe(project / "two.yaml", base, stages)
    last = stopping(voice, 4)
    result = etude.run(str(file), voice=last, project=project)
    assert not result.finished and result.stages == {} and etude.list(project=project) == []
    assert "it is trained to its end, and neither judged nor published yet: the same command does that" in last.lines
    assert last.bars == ["training two-sft"], "not judged, and no second stage"
    whole = etude.run(str(file), voice=voice, project=project)
    assert whole.finished and "going on from step 4 of 4" in voice.lines
    assert all(done.judgement is not None for done in whole.stages.values())


def test_a_stage_that_begins_anew_says_what_it_leaves_behind(project, base, voice):
    file = recipe(project / "colours.yaml", base, {"sft": stage(project / "answers.jsonl")}, evaluate=None)
    etude.run(str(file), voice=stopping(voice, 2), project=project)
    etude.run(str(file), ["stages.sft.train.tokens_per_row=96"], voice=stopping(voice, 3), project=project)
    (run,) = (project / ".etude/runs").glob("colours-*")
    assert (run / "checkpoints/step-00000003").is_dir(), "the remedy against a full device goes on with the run that it stopped"
    etude.run(str(file), ["stages.sft.train.learning_rate=2e-2"], voice=voice, project=project)
    (said,) = [line for line in voice.lines if line.startswith("begins at its first step")]
    assert run.name in said and "saved at step 3" in said and "other settings" in said
    assert [item.path for item in etude.clean(project=project).unfinished] == [run]
    goes_on = type(voice)()
    etude.run(str(file), voice=goes_on, project=project)
    assert "going on from step 3 of 4" in goes_on.lines and not any("begins at its first" in line for line in goes_on.lines)


def test_a_torn_reference_is_computed_again(project, base, voice, tmp_path_factory):
    file = recipe(project / "prefer.yaml", base, {"s": stage(project / "pairs.jsonl", adapt="full", objective="dpo")}, evaluate=None)
    etude.run(str(file), voice=stopping(voice, 2), project=project)
    (reference,) = project.glob(".etude/runs/*/reference.safetensors")
    reference.write_bytes(reference.read_bytes()[:-10])
    done = etude.run(str(file), voice=voice, project=project).stages["s"]
    assert any("the parent is scored again" in line for line in voice.lines)
    whole = etude.run(str(file), project=tmp_path_factory.mktemp("undisturbed")).stages["s"]
    assert done.record.fingerprint == whole.record.fingerprint
