"""Models that a stage learns beside: made by the same recipe first, refused where they cannot be, able to read what they are shown."""

import json
import shutil

import pytest
from small_project import make_base, recipe, stage

import etude
from etude.errors import ModelError, RecipeError

REWARDED = {"kind": "grpo", "group": 2, "max_new_tokens": 4}


def rewarded_by(name, **more):
    return REWARDED | {"rewards": [{"kind": "artefact", "artefact": name}]} | more


def taught_by(name, **more):
    return {"kind": "distil", "teacher": name} | more


def test_a_reward_model_of_the_same_recipe(base, project, voice):
    """Made first though it is written last; found with it afterwards; and when it is another, so is what it rewarded."""
    stages = {
        "led": stage(project / "answers.jsonl", objective=rewarded_by("two-worth"), steps=2),
        "worth": stage(project / "pairs.jsonl", objective="reward"),
    }
    file = recipe(project / "two.yaml", base, stages, evaluate=None)
    told = etude.forecast(etude.read_recipe(str(file)), project=project)
    assert [(one.stage, one.finished, one.parent_made) for one in told] == [("worth", None, True), ("led", None, True)]
    done = etude.run(str(file), voice=voice, project=project).stages
    assert list(done) == ["worth", "led"]
    assert any(line.startswith("two-worth@1 rewards answers") for line in voice.lines)
    again = etude.run(str(file), project=project).stages
    assert again["worth"].reused and again["led"].reused and again["led"].record == done["led"].record
    told = etude.forecast(etude.read_recipe(str(file)), project=project)
    assert [one.finished for one in told] == ["two-worth@1", "two-led@1"]
    other = ["stages.worth.train.steps=6"]
    assert [one.finished for one in etude.forecast(etude.read_recipe(str(file), other), project=project)] == [None, None]
    changed = etude.run(str(file), other, voice=voice, project=project).stages
    assert changed["led"].record.version == 2 and any(line.startswith("two-worth@2 rewards answers") for line in voice.lines)
    first = etude.run(str(file), voice=voice, project=project).stages
    assert first["led"].reused and first["led"].record == done["led"].record, "its own reward model, not the newest of that name"


@pytest.mark.parametrize("adapt", ["lora", "full", {"kind": "prompt"}], ids=str)
@pytest.mark.parametrize("top_k", [None, 8])
def test_a_teacher_of_the_same_recipe(base, project, voice, adapt, top_k):
    """An artefact teaches as it is loaded: also one that nothing can stand on, and one that is a whole model."""
    stages = {
        "pupil": stage(project / "answers.jsonl", objective=taught_by("two-big", top_k=top_k, share=1.0), steps=2),
        "big": stage(project / "answers.jsonl", adapt=adapt, steps=6, learning_rate=5e-2),
    }
    file = recipe(project / "two.yaml", base, stages, evaluate=None)
    done = etude.run(str(file), voice=voice, project=project).stages
    assert list(done) == ["big", "pupil"]
    first = next(line for line in map(json.loads, (done["pupil"].folder / "metrics.jsonl").open()) if "divergence" in line)
    assert first["divergence"] > 1e-3, "it has learnt something that its base does not know"
    assert etude.run(str(file), project=project).stages["pupil"].reused
    named = ["stages.pupil.objective.teacher=two-big@1"]
    assert etude.run(str(file), named, project=project).stages["pupil"].reused, "what it is counts, not what it is called"


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"a": ("answers", taught_by("two-a"))}, r"stages\.a\.objective\.teacher: two-a is what this very stage makes"),
        (
            {"a": ("answers", taught_by("two-b")), "b": ("answers", "next-token", "a")},
            r"stages\.a\.objective\.teacher: two-b is made by b, which itself waits for a",
        ),
        (
            {"a": ("answers", rewarded_by("two-b")), "b": ("answers", "next-token")},
            r"stages\.a\.objective\.rewards\.0\.artefact: two-b is made by b, which learns by next-token and is no reward model",
        ),
        (
            {"a": ("answers", taught_by("two-b")), "b": ("pairs", "reward")},
            r"stages\.a\.objective\.teacher: two-b is made by b, which learns to score and writes nothing",
        ),
    ],
    ids=["itself", "circle", "no reward model", "writes nothing"],
)
def test_models_of_the_same_recipe_that_cannot_be(base, project, voice, stages, message):
    made = {name: stage(project / f"{one[0]}.jsonl", objective=one[1], parent=(*one, "base")[2]) for name, one in stages.items()}
    file = recipe(project / "two.yaml", base, {"other": stage(project / "answers.jsonl")} | made)
    with pytest.raises(RecipeError, match=message):
        etude.run(str(file), voice=voice, project=project)
    assert not voice.trained


def test_what_only_scores_teaches_nobody(base, project, voice):
    made = recipe(project / "worth.yaml", base, {"r": stage(project / "pairs.jsonl", objective="reward")}, evaluate=None)
    etude.run(str(made), project=project)
    file = recipe(project / "taught.yaml", base, {"d": stage(project / "answers.jsonl", objective=taught_by("worth"))})
    with pytest.raises(ModelError, match=r"worth@1 scores text \(reward\) and writes none, so there are no words to be learnt from it"):
        etude.run(str(file), voice=voice, project=project)
    assert not voice.bars


def changed(base, folder, **config):
    """The same weights and tokenizer under another configuration."""
    shutil.copytree(base, folder)
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | config))
    return folder


def test_who_teaches_or_rewards_reads_as_far_as_the_policy(base, project, voice):
    short = changed(base, project / "short", max_position_embeddings=96)
    run = lambda one: etude.run(str(recipe(project / "s.yaml", base, {"s": one})), voice=voice, project=project)
    with pytest.raises(ModelError, match=r"data.context is 128, but .*short knows 96 positions\n.*at most 96, or take another `obj"):
        run(stage(project / "answers.jsonl", objective=taught_by(str(short))))
    worth = stage(project / "pairs.jsonl", objective="reward")
    worth["data"]["context"] = 96
    etude.run(str(recipe(project / "worth.yaml", short, {"r": worth}, evaluate=None)), project=project)
    led = stage(project / "answers.jsonl", objective=rewarded_by("worth"), steps=1)
    led["data"]["context"] = 93
    with pytest.raises(ModelError, match=r"is 93 and objective.max_new_tokens 4, but worth@1 knows 96 positions\n.*96 together"):
        run(led)
    assert not voice.bars
    led["data"]["context"] = 92
    assert run(led).finished


def test_what_is_written_stays_where_no_rotation_depends_on_neighbours(base, project, voice):
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0, "original_max_position_embeddings": 64}
    scaled = changed(base, project / "scaled", rope_parameters=rope)
    led = stage(project / "answers.jsonl", objective=REWARDED | {"rewards": [{"kind": "metric", "metric": "valid-json"}]})
    led["data"]["context"] = 61
    file = recipe(project / "s.yaml", scaled, {"s": led})
    with pytest.raises(ModelError, match=r"data.context is 61 and objective.max_new_tokens 4: beyond 64 tokens a path's rotation"):
        etude.forecast(etude.read_recipe(str(file)), project=project)
    assert etude.forecast(etude.read_recipe(str(file), ["stages.s.data.context=60"]), project=project)


def test_a_teacher_of_other_weights_is_another_stage(base, project, tmp_path_factory):
    """A name stands for what it is: the same teacher elsewhere is the same stage, another of its name is not."""
    teacher = make_base(tmp_path_factory.mktemp("teachers") / "other", seed=5)
    file = recipe(project / "s.yaml", base, {"s": stage(project / "answers.jsonl", objective=taught_by(str(teacher)))}, evaluate=None)
    etude.run(str(file), project=project)
    make_base(teacher, seed=6)
    assert etude.forecast(etude.read_recipe(str(file)), project=project)[0].finished is None
