"""What a recipe does against forgetting, from its key to the report: decay to the parent, replay, stopping early."""

import json

import pytest
from small_project import recipe, stage

import etude
from etude.errors import DataError, RecipeError, TrainingError


def test_decay_to_the_parent_is_told_with_its_distance(project, base, voice):
    pulled = stage(project / "answers.jsonl", adapt="full", weight_decay=0.1, decay_to="parent")
    done = etude.run(str(recipe(project / "pulled.yaml", base, {"s": pulled})), voice=voice, project=project).stages["s"]
    (said,) = done.judgement.about.against_forgetting
    assert said.startswith("Weight decay of 0.1 towards the parent: what was trained ended ") and "% of its parent's size" in said
    assert said.replace("'", "&#39;") in done.report.read_text()
    del pulled["train"]["weight_decay"]
    with pytest.raises(RecipeError, match="pulls by `weight_decay`, which is 0"):
        etude.run(str(recipe(project / "pulled.yaml", base, {"s": pulled})), project=project)


def stopping(project, **more):
    early = {"evaluate_every": 2, "early_stopping": {"patience": 2}, "steps": 60, "learning_rate": 5e-2, "seed": 1}
    return stage(project / "answers.jsonl", held_out=12, **early | more)


def test_stopping_early_is_told_counted_and_judged_on_other_rows(project, base, voice):
    file = recipe(project / "early.yaml", base, {"s": stopping(project)})
    done = etude.run(str(file), voice=voice, project=project).stages["s"]
    metrics = done.record.metrics
    assert metrics["steps"] + metrics["steps_not_taken"] == 60 and metrics["steps_not_taken"] > 0
    assert metrics["steps"] == metrics["best_step"] + 4
    (said,) = done.judgement.about.against_forgetting
    assert said.startswith(f"Early stopping: the weights of step {metrics['best_step']} are kept (loss on rows held out for this: ")
    assert said.endswith(f"{metrics['steps_not_taken']} steps were not taken).")
    assert "6 held-out examples say when to stop, and are not judged" in voice.lines
    assert done.judgement.axes[0].n == 6 and done.judgement.answers == 6
    looked = {line["held_out_loss"] for line in _journal(done) if "held_out_loss" in line}
    assert metrics["best held_out_loss"] == min(looked)
    compared = etude.compare(str(base), "early", project=project).judgement
    assert compared.answers == 6, "later comparisons leave those rows out too"
    assert compared.axes[0].tuned.value == pytest.approx(done.judgement.axes[0].tuned.value, abs=1e-4), "what is saved is the best"
    assert etude.run(str(file), voice=voice, project=project).stages["s"].reused
    every = lambda n: etude.forecast(etude.read_recipe(str(file), [f"stages.s.train.evaluate_every={n}"]), project=project)[0].finished
    assert every(2) == "early@1" and every(3) is None, "looks decide, so how often there are any is another stage"


def _journal(done):
    return [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]


def test_stopping_early_by_pairs(project, base, voice):
    pairs = stopping(project) | {"objective": "dpo"}
    pairs["data"]["sources"] = str(project / "pairs.jsonl")
    done = etude.run(str(recipe(project / "pairs.yaml", base, {"s": pairs})), voice=voice, project=project).stages["s"]
    looked = [line["held_out_preferred"] for line in _journal(done) if "held_out_preferred" in line]
    assert done.record.metrics["best held_out_preferred"] == max(looked) and len(looked) > 2
    assert "preferred on rows held out for this" in done.judgement.about.against_forgetting[0]


def test_what_cannot_be_stopped_early(project, base, voice):
    run = lambda one: etude.run(str(recipe(project / "early.yaml", base, {"s": one})), voice=voice, project=project)
    with pytest.raises(DataError, match="0 rows are held out, and one to look at and one to judge"):
        run(stopping(project) | {"data": {"sources": str(project / "answers.jsonl"), "held_out": 0, "context": 128}})
    aim = {"kind": "grpo", "rewards": [{"kind": "metric", "metric": "valid-json"}]}
    with pytest.raises(TrainingError, match="what grpo learns from is yet to be written"):
        run(stopping(project) | {"objective": aim})
    assert not voice.bars
