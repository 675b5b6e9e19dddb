"""From a recipe to an answer, for what is special about loading or data: trained, judged, published, loaded by name, compared."""

import json

import pytest
from small_project import COLOURS, make_base, recipe, stage

import etude
from etude.compose.beside import Beside
from etude.errors import ModelError

KINDS = ["last_layers", "dora", "pissa", "qlora", "prefix", "prompt", "p-tuning", "bottleneck", "bitfit", "embeddings", "ia3", "vera"]


@pytest.mark.parametrize("kind", KINDS)
def test_adaptations(base, project, voice, kind):
    file = recipe(project / "colours.yaml", base, {"sft": stage(project / "answers.jsonl", adapt={"kind": kind}, learning_rate=3e-2)})
    done = etude.run(str(file), voice=voice, project=project).stages["sft"]
    assert done.judgement is not None and done.record.kind == ("model" if kind == "last_layers" else "adapter")
    model = etude.load("colours", dtype="float32", project=project)
    assert model.generate("What colour has thing 3?", max_new_tokens=4) is not None
    if model.has_parent:
        asked = dict(max_new_tokens=6, temperature=0.0)
        assert model.generate("What colour?", parent=True, **asked) == etude.load(str(base), project=project).generate(
            "What colour?", **asked
        )
    compared = etude.compare(str(base), "colours", project=project).judgement
    ours, theirs = (j.axes[0].tuned.value for j in (done.judgement, compared))
    assert ours == pytest.approx(theirs, abs=1e-4), "what is loaded is what was judged"


def rated(path):
    rows = ({"prompt": f"Name colour {i}", "completion": f"It is {COLOURS[i % 5]}", "label": i % 2 == 0} for i in range(40))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["orpo", "simpo", "cpo"])
def test_preferences(base, project, voice, kind):
    file = recipe(project / "prefer.yaml", base, {"p": stage(project / "pairs.jsonl", objective=kind)})
    judgement = etude.run(str(file), voice=voice, project=project).stages["p"].judgement
    assert judgement.axes[0].name == "chosen answer likelier"


@pytest.mark.parametrize("adapt", ["lora", "full"])
def test_rated_answers_are_judged_by_those_that_were_liked(base, project, voice, adapt):
    file = recipe(project / "rated.yaml", base, {"k": stage(rated(project / "rated.jsonl"), objective="kto", adapt=adapt)})
    done = etude.run(str(file), voice=voice, project=project).stages["k"]
    assert all(example.expected.startswith("It is") for example in done.judgement.examples)
    assert done.judgement.axes[0].n < 8, "eight are held out, and not all of them were liked"


def test_rewards(base, project, voice):
    """A reward of the user's own, in a file beside the recipe: changed, it makes another stage."""
    (project / "reward.py").write_text("def reward(prompt, expected, answer):\n    return float('a' in answer)\n")
    aim = {"kind": "grpo", "group": 3, "max_new_tokens": 4, "rewards": [{"kind": "python", "file": "reward.py"}]}
    file = recipe(project / "rewarded.yaml", base, {"r": stage(project / "answers.jsonl", objective=aim)})
    first = etude.run(str(file), voice=voice, project=project).stages["r"].record
    assert etude.run(str(file), voice=voice, project=project).stages["r"].reused
    (project / "reward.py").write_text("def reward(prompt, expected, answer):\n    return float('b' in answer)\n")
    assert etude.run(str(file), voice=voice, project=project).stages["r"].record.version == first.version + 1


def test_a_divergence_under_full_tuning_declares_its_second_model(project, base, voice):
    (project / "reward.py").write_text("def reward(prompt, expected, answer):\n    return float('a' in answer)\n")
    aim = {"kind": "grpo", "group": 3, "max_new_tokens": 4, "beta": 0.1, "rewards": [{"kind": "python", "file": "reward.py"}]}
    file = recipe(project / "rewarded.yaml", base, {"r": stage(project / "answers.jsonl", objective=aim, adapt="full")})
    done = etude.run(str(file), voice=voice, project=project).stages["r"]
    (said,) = [line for line in voice.lines if line.startswith("a second model is held in memory")]
    assert "a frozen copy of the parent, " in said and said.endswith("(grpo scores new answers by it, and full changes it)")
    assert done.judgement.about.environment["second model in memory"].startswith("a frozen copy of the parent, ")


@pytest.mark.parametrize("adapt", ["lora", "full"])
@pytest.mark.parametrize("top_k", [None, 8])
def test_distilling(base, project, voice, tmp_path_factory, adapt, top_k):
    """From another model, and from the parent; asked once or at every step; found again by what the teacher is, not by its name."""
    teacher = make_base(tmp_path_factory.mktemp("teachers") / "other", seed=5)
    aim = {"kind": "distil", "teacher": str(teacher), "top_k": top_k}
    file = recipe(project / "taught.yaml", base, {"d": stage(project / "answers.jsonl", objective=aim, adapt=adapt)})
    done = etude.run(str(file), voice=voice, project=project).stages["d"]
    about = done.judgement.about
    assert about.environment["teacher"].endswith("other")
    declared = [line for line in voice.lines if line.startswith("a second model is held in memory")]
    assert len(declared) == (top_k is None) == ("second model in memory" in about.environment)
    assert any(bar.startswith("what ") and bar.endswith(" teaches") for bar in voice.bars) == (top_k is not None)
    assert all(line["divergence"] > 0 for line in map(json.loads, (done.folder / "metrics.jsonl").open()) if "divergence" in line)
    moved = teacher.rename(teacher.parent / "elsewhere")
    again = etude.read_recipe(str(file), [f"stages.d.objective.teacher={moved}"])
    assert etude.forecast(again, project=project)[0].finished == done.record.reference
    held = etude.run(str(file), ["stages.d.objective.teacher=parent"], voice=voice, project=project).stages["d"]
    assert held.judgement.about.environment["teacher"] == "the parent" and held.record.version == 2
    first = next(line for line in map(json.loads, (held.folder / "metrics.jsonl").open()) if "divergence" in line)
    assert abs(first["divergence"]) < 1e-5, "at birth it is its parent"


def test_a_teacher_of_other_tokens_is_refused(base, project, voice, tmp_path):
    teacher = make_base(tmp_path / "other")
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 64}))
    aim = {"kind": "distil", "teacher": str(teacher)}
    file = recipe(project / "taught.yaml", base, {"d": stage(project / "answers.jsonl", objective=aim)})
    with pytest.raises(ModelError, match=r"do not have the same vocabulary \([0-9,]+ and [0-9,]+ tokens\)"):
        etude.run(str(file), voice=voice, project=project)
    assert not voice.bars


@pytest.mark.parametrize(("kind", "into"), [("lora", "its parent's weights;"), ("qlora", "as their four bits hold them")])
def test_a_melted_parent_is_recorded_with_what_that_changed(base, project, voice, kind, into):
    """A stage on an adapter: what it was melted into, and the largest difference of a log-probability."""
    first = stage(project / "answers.jsonl", adapt={"kind": kind}, learning_rate=3e-2)
    file = recipe(project / "two.yaml", base, {"first": first, "second": stage(project / "answers.jsonl", parent="first")})
    done = etude.run(str(file), voice=voice, project=project).stages["second"]
    assert 0 <= done.record.metrics["melted_parent_difference"] < 1e-4
    (said,) = [line for line in voice.lines if line.startswith("two-first@1: an adapter is melted into")]
    assert into in said and "log-probabilities move by at most" in said
    assert "melted into" in done.judgement.about.environment["parent"]


def test_the_parent_is_asked_once_where_rows_come_again(base, project, voice, monkeypatch):
    """Then its scores are stored; else the adapter is switched off in every step. Both learn the same."""
    short = recipe(project / "short.yaml", base, {"p": stage(project / "pairs.jsonl", objective="dpo", steps=4)})
    etude.run(str(short), voice=voice, project=project)
    assert "scores of the parent" not in voice.bars
    file = recipe(project / "long.yaml", base, {"p": stage(project / "pairs.jsonl", objective="dpo", steps=16)})
    stored = etude.run(str(file), voice=voice, project=project).stages["p"].record.metrics["loss"]
    assert voice.bars.count("scores of the parent") == 1
    monkeypatch.setattr(Beside, "_seen_again", lambda self: False)
    again = recipe(project / "again.yaml", base, {"p": stage(project / "pairs.jsonl", objective="dpo", steps=16, keep_checkpoints=3)})
    switched = etude.run(str(again), voice=voice, project=project).stages["p"].record.metrics["loss"]
    assert stored == pytest.approx(switched, abs=1e-5) and stored < 0.69
