"""What could not be trained, found or judged is said before anything is computed."""

import json

import pytest
from small_project import answers, recipe, stage

import etude
from etude.errors import DataError, EtudeError, LineageError, ModelError, RecipeError


@pytest.fixture
def colours(project, base):
    return recipe(project / "colours.yaml", base, {"sft": stage(project / "answers.jsonl")})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.sft.data.held_out=0"], "0 rows are held out.*\n.*evaluate: null"),
        (["stages.sft.data.held_out=1"], "1 row is held out"),
        (["evaluate.rows=1"], "1 row is held out.*\n.*evaluate.rows"),
        (["evaluate.keep.tokens=10"], "10 tokens of general text are one passage.*\n.*keep: null"),
        (["evaluate.metrics=[{kind: accuracy, field: colour}]"], r"answers.jsonl:\d+: metric accuracy cannot read the expected answer"),
        (["stages.sft.objective=dpo"], "needs examples with chosen and rejected"),
    ],
)
def test_what_cannot_be_judged_is_not_trained(project, colours, voice, overrides, message):
    for go in (lambda: etude.run(str(colours), overrides, voice=voice, project=project), lambda: _forecast(colours, overrides, project)):
        with pytest.raises(DataError, match=message):
            go()
    assert not voice.bars and not list((project / ".etude" / "runs").iterdir())


def _forecast(file, overrides, project):
    return etude.forecast(etude.read_recipe(str(file), overrides), project=project)


def test_one_row_with_an_answer_among_texts(project, base, voice):
    """A likelihood can be compared on two rows, answers on one cannot."""
    rows = [{"text": f"Text number {i} is here."} for i in range(20)]
    (project / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers(project / "one.jsonl", 1)
    held_out = {"path": str(project / "held.jsonl")}
    texts = stage(project / "texts.jsonl", held_out=held_out)
    (project / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
    done = etude.run(str(recipe(project / "texts.yaml", base, {"s": texts})), project=project).stages["s"]
    assert [axis.name for axis in done.judgement.axes] == ["loss on held-out text", "loss on general text"], (
        "nothing to answer in raw text"
    )
    texts["data"] |= {"sources": str(project / "answers.jsonl"), "held_out": {"path": str(project / "one.jsonl")}}
    with pytest.raises(DataError, match="1 row is held out"):
        etude.run(str(recipe(project / "one.yaml", base, {"s": texts})), voice=voice, project=project)


def test_the_context_is_checked_before_the_data(project, base, voice):
    file = recipe(project / "long.yaml", base, {"sft": stage(project / "nowhere.jsonl")})
    with pytest.raises(ModelError, match=r"data.context is 257, but .* knows 256 positions\n.*at most 256"):
        etude.run(str(file), ["stages.sft.data.context=257"], project=project)
    config = json.loads((base / "config.json").read_text())
    scaled = project / "scaled"
    scaled.mkdir()
    for path in base.iterdir():
        (scaled / path.name).write_bytes(path.read_bytes())
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0, "original_max_position_embeddings": 64}
    (scaled / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    with pytest.raises(ModelError, match="beyond 64 tokens a path's rotation"):
        _forecast(file, [f"base={scaled}"], project)


def test_names_that_are_nothing(project, colours, base, monkeypatch):
    monkeypatch.chdir(project)
    with pytest.raises(ModelError, match=r"no model 'colour': no artefact .*, no folder or file, and not a hub id.*\n.*nothing was made"):
        etude.load("colour")
    etude.run(str(colours))
    with pytest.raises(ModelError, match=r"no model 'colour'.*\n.*did you mean colours\?"):
        etude.load("colour")
    (project / "smol-base").mkdir()
    with pytest.raises(ModelError, match=r"did you mean smol-base\?"):
        etude.run(str(colours), ["base=smolbase"])
    with pytest.raises(LineageError, match=r"no artefact 'colours@7'.*\n.*colours@1"):
        etude.load("colours@7")
    with pytest.raises(ModelError, match="no such folder or file"):
        etude.load("./colour")


def test_a_parent_that_is_nothing(project, colours, base, voice):
    etude.run(str(colours), project=project)
    stages = {"sft": stage(project / "answers.jsonl"), "dpo": stage(project / "pairs.jsonl", parent="stf", objective="dpo")}
    file = recipe(project / "two.yaml", base, stages)
    expected = r"two.yaml:25:14: stages.dpo.parent: 'stf' is neither .* did you mean `sft`\? \(stages: base, sft; artefacts: colours\)"
    with pytest.raises(RecipeError, match=r"override: stages\.dpo\.parent: 'stg' is neither"):
        etude.run(str(file), ["stages.dpo.parent=stg"], voice=voice, project=project)
    for go in (lambda: etude.run(str(file), voice=voice, project=project), lambda: _forecast(file, [], project)):
        with pytest.raises(RecipeError, match=expected):
            go()
    assert not voice.trained, "the first stage was not begun either"
    done = etude.run(str(file), ["stages.dpo.parent=colours@1"], project=project).stages["dpo"]
    assert done.record.parent.reference == "colours@1"


def test_compare_needs_an_artefact(project, base):
    with pytest.raises(LineageError, match=r"neither .* is an artefact"):
        etude.compare(str(base), str(base), project=project)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["stages.dpo.data.sources={gone}"], "no such file"),
        (["stages.dpo.objective=next-token"], "single answers"),
        (["stages.dpo.data.context=257"], "knows 256 positions"),
        (["stages.dpo.data.held_out=1"], "1 row is held out"),
        (
            [
                "stages.dpo.objective={{kind: ppo, beta: 0.1, rewards: [{{kind: metric, metric: valid-json}}]}}",
                "stages.dpo.adapt=full",
                "stages.dpo.data.sources={answers}",
            ],
            "full changes",
        ),
        (["stages.dpo.objective=grpo", "stages.dpo.data.sources={answers}"], "names no rewards"),
    ],
)
def test_a_later_stage_is_refused_before_the_first_is_trained(project, base, voice, changes, message):
    stages = {"sft": stage(project / "answers.jsonl"), "dpo": stage(project / "pairs.jsonl", parent="sft", objective="dpo")}
    file = recipe(project / "two.yaml", base, stages)
    overrides = [change.format(gone=project / "gone.jsonl", answers=project / "answers.jsonl") for change in changes]
    with pytest.raises(EtudeError, match=message):
        etude.run(str(file), overrides, voice=voice, project=project)
    assert not voice.bars and etude.list(project=project) == []


@pytest.mark.parametrize(("adapt", "times"), [("lora", 2), ("full", 3)])
def test_data_is_read_again_only_where_the_parent_may_read_otherwise(project, base, monkeypatch, adapt, times):
    """An adapter reads as its base does; a whole model has a tokenizer of its own."""
    from etude.compose import begun

    calls, whole = [], begun.prepare
    monkeypatch.setattr(begun, "prepare", lambda *data, **how: calls.append(1) or whole(*data, **how))
    stages = {"sft": stage(project / "answers.jsonl", adapt=adapt), "dpo": stage(project / "pairs.jsonl", parent="sft", objective="dpo")}
    file = recipe(project / "two.yaml", base, stages, evaluate=None)
    made = etude.run(str(file), project=project).stages["dpo"].record
    assert len(calls) == times and made.parent.reference == "two-sft@1"
    assert etude.run(str(file), project=project).stages["dpo"].record == made, "it is the same stage as read on what was made"


def test_a_parent_on_which_nothing_can_stand_is_refused_before_it_is_trained(base, project, voice):
    stages = {
        "first": stage(project / "answers.jsonl", adapt={"kind": "prompt"}),
        "second": stage(project / "answers.jsonl", parent="first"),
    }
    file = recipe(project / "barren.yaml", base, stages)
    with pytest.raises(RecipeError, match=r"barren\.yaml:\d+:\d+: stages\.second\.parent: first is adapted by prompt, on which nothing"):
        etude.run(str(file), voice=voice, project=project)
    assert not voice.trained
