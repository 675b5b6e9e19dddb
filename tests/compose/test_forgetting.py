"""What a recipe does against forgetting, from its key to the report: decay to the parent, replay, stopping early."""

import json

import pytest
import torch
from small_project import recipe, stage
from transformers import AutoModelForCausalLM

import etude
from etude.compose.artefacts import open_model
from etude.compose.begun import Setting, begin, length
from etude.compose.replay import answered
from etude.compose.voice import Voice
from etude.data.order import Order
from etude.errors import DataError, RecipeError, TrainingError
from etude.evaluation.general_text import general_text
from etude.lineage.store import open_store


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
    assert metrics["loss"] == {line["step"]: line.get("loss") for line in _journal(done)}[metrics["best_step"]], "that of what is kept"
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


def replaying(project, replay, **more):
    one = stage(project / "answers.jsonl", **more)
    one["data"]["replay"] = replay
    return one


def test_replay_is_drawn_at_its_share_and_never_what_is_judged(project, base, voice):
    file = recipe(project / "again.yaml", base, {"s": replaying(project, 0.25, steps=5)}, {"rows": 6, "generate": False})
    begun = _begun(file, project)
    judged, (source, again) = begun.trial.general, begun.prepared.train[-1]
    texts = {tuple(run) for one in judged for run in _windows(one.samples[0].tokens)}
    assert len(judged) > 5 and len(again) > 100
    assert not any(tuple(run) in texts for one in again for run in _windows(one.samples[0].tokens))
    every = general_text().passages
    scored = {every[one.row - 1] for one in judged}
    assert not scored & {every[one.row - 1] for one in again}, "whole passages, too"
    sizes = tuple(len(examples) for _, examples in begun.prepared.train)
    weights = (float(sizes[0]), source.weight)
    places, _ = Order(sizes, weights, 0).draw((0, 0), 200)
    assert sum(which for which, _ in places) == 50
    done = etude.run(str(file), voice=voice, project=project).stages["s"]
    (said,) = done.judgement.about.against_forgetting
    assert said.startswith("Replay: 5 of the 20 rows drawn (25.0%) were of general text installed with Python, ")
    learnt = sum(line.get("supervised_tokens", 0) for line in _journal(done))
    assert f" of {learnt:,.0f} supervised tokens" in said, "as the engine counted them"
    assert any(line.startswith("replay: 25.0% of all rows drawn are of general text") for line in voice.lines)
    assert etude.run(str(file), voice=voice, project=project).stages["s"].reused
    share = etude.forecast(etude.read_recipe(str(file), ["stages.s.data.replay=0.2"]), project=project)[0]
    assert share.finished is None


def test_rows_of_ones_own_are_replayed_but_not_those_held_out(project, base):
    rows = [json.loads(line) for line in (project / "answers.jsonl").read_text().splitlines()]
    more = [{"prompt": f"How many are {i}?", "completion": str(i)} for i in range(12)]
    (project / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + more))
    settings = {"share": 0.2, "source": {"path": "own.jsonl"}}
    begun = _begun(recipe(project / "own.yaml", base, {"s": replaying(project, settings, steps=None, epochs=1)}), project)
    replayed = begun.prepared.replayed
    assert (replayed.rows, replayed.left_out) == (52 - 8, 8), "the eight that are held out"
    assert length(begun_stage(project), begun.prepared)[0] == 40, "32 rows of the task once, and a fifth beside them"
    assert len(begun.prepared.trained_on) == 44, "rows of the task are in that file, too"
    etude.run(str(project / "own.yaml"), project=project)
    assert not etude.compare(str(base), "own", project=project).notes, "what is held out was not trained on"


@pytest.mark.parametrize("replay", [None, {"share": 0.25}], ids=["sources", "replay"])
def test_steps_of_so_many_tokens_count_rows_as_they_are_drawn(project, base, voice, replay):
    """Long rows beside short ones, at a share that is not their number's: one epoch draws about as many rows of the task as there are."""
    one = stage(project / "answers.jsonl", steps=None, epochs=1, examples_per_step=16, tokens_per_step=300)
    if replay is None:
        long = [{"text": f"{i} " + "and so on, and so forth, one after the other, " * 5} for i in range(200)]
        (project / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in long))
        one["data"]["sources"] = [{"path": "answers.jsonl", "weight": 3.0}, {"path": "long.jsonl", "weight": 1.0}]
    else:
        one["data"]["replay"] = replay
    file = recipe(project / "tokens.yaml", base, {"s": one})
    prepared = _begun(file, project).prepared
    sources = [examples for _, examples in prepared.train]
    settings = etude.read_recipe(str(file)).recipe.stages["s"]
    examples, steps = length(settings, prepared)
    order = Order(tuple(map(len, sources)), tuple(source.weight or len(rows) for source, rows in prepared.train), 0)
    state = order.start()
    for _ in range(steps):
        _, state = order.draw_tokens(state, 300, lambda source, index: sum(map(len, sources[source][index].samples)))
    wanted = len(sources[0]) / 0.75 if replay is not None else sum(map(len, sources))
    assert sum(state) == pytest.approx(wanted, rel=0.2) and examples == pytest.approx(sum(state), rel=0.2)
    if replay is None:
        return
    assert etude.forecast(etude.read_recipe(str(file)), project=project)[0].steps == steps
    done = etude.run(str(file), voice=voice, project=project).stages["s"]
    (said,) = done.judgement.about.against_forgetting
    assert f"{state[1]:,} of the {sum(state):,} rows drawn" in said
    learnt = sum(line.get("supervised_tokens", 0) for line in _journal(done))
    assert f" of {learnt:,.0f} supervised tokens" in said, "as the engine counted them"


def test_the_parents_own_answers_are_replayed(project, base, voice):
    """What plain transformers writes on the same prompts, the likeliest token every time; before anything is trained, full tuning too."""
    one = replaying(project, {"share": 0.5, "answers": True, "max_new_tokens": 6}, adapt="full", steps=4)
    file = recipe(project / "own.yaml", base, {"s": one})
    begun, store = _begun(file, project), open_store(project)
    opened = open_model(begun.known, store, dtype=torch.float32, device=torch.device("cpu"), voice=Voice(), merge=True)
    settings = etude.read_recipe(str(file)).recipe.stages["s"]
    prepared = answered(begun.prepared, settings, opened, 128, project, voice)
    _, rows = prepared.train[-1]
    plain = AutoModelForCausalLM.from_pretrained(base)
    assert len(rows) == 32, "each training row once, no held-out one"
    for row in rows[:8]:
        tokens, learnt = row.samples[0].tokens, row.samples[0].weight > 0
        prompt = torch.tensor(tokens[~learnt])[None]
        written = plain.generate(prompt, max_new_tokens=6, do_sample=False)[0, prompt.shape[1] :]
        assert tokens[learnt].tolist() == written.tolist()
    written = json.loads((project / "replayed.json").read_text())
    for answer in written["answers"]:
        answer["stopped"] = True
    (project / "replayed.json").write_text(json.dumps(written))
    most = max(len(answer["prompt"]) for answer in written["answers"]) + 3
    beyond = sum(len(answer["prompt"]) + len(answer["tokens"]) > most for answer in written["answers"])
    cut = answered(begun.prepared, settings, opened, most, project, voice)
    assert beyond and f"; {beyond} have no end within 6 tokens and the context" in cut.replayed.line, "an end that was cut is none"
    (project / "replayed.json").write_text((project / "replayed.json").read_text().replace('"prompt": [', '"prompt": [7, ', 1))
    with pytest.raises(TrainingError, match="answers to other prompts"):
        answered(begun.prepared, settings, opened, 128, project, voice)
    done = etude.run(str(file), voice=voice, project=project).stages["s"]
    (said,) = done.judgement.about.against_forgetting
    assert said.startswith("Replay: 8 of the 16 rows drawn (50.0%) were of the parent's answers to the training rows, ")
    assert any("32 prompts, to be answered before" in line for line in voice.lines)
    assert any("32 prompts, answered with " in line for line in voice.lines)
    (project / "texts.jsonl").write_text("".join(json.dumps({"text": f"Text number {i} is here."}) + "\n" for i in range(40)))
    one["data"]["sources"] = str(project / "texts.jsonl")
    with pytest.raises(TrainingError, match="nothing can be asked"):
        etude.run(str(recipe(project / "texts.yaml", base, {"s": one})), voice=voice, project=project)


def test_how_many_steps_answers_make_is_known_before_they_are_written(project, base, voice):
    one = replaying(project, {"share": 0.5, "answers": True, "max_new_tokens": 6}, steps=None, examples_per_step=16, tokens_per_step=150)
    file = recipe(project / "own.yaml", base, {"s": one})
    with pytest.raises(TrainingError, match=r"how long the parent's answers are .* is not known before"):
        etude.run(str(file), voice=voice, project=project)
    more = ["stages.s.train.tokens=600"]
    assert etude.forecast(etude.read_recipe(str(file), more), project=project)[0].steps == 4
    assert etude.run(str(file), more, voice=voice, project=project).stages["s"].record.metrics["steps"] == 4


def test_replay_is_for_tokens(project, base, voice):
    one = replaying(project, 0.1) | {"objective": "dpo"}
    with pytest.raises(TrainingError, match="compares or rates whole answers"):
        etude.run(str(recipe(project / "no.yaml", base, {"s": one})), voice=voice, project=project)
    with pytest.raises(RecipeError, match=r"stages\.s\.data\.replay"):
        etude.run(str(recipe(project / "no.yaml", base, {"s": replaying(project, 1.5)})), voice=voice, project=project)


def begun_stage(project):
    return etude.read_recipe(str(project / "own.yaml")).recipe.stages["s"]


def _begun(file, project):
    loaded = etude.read_recipe(str(file))
    setting = Setting(loaded.recipe, loaded.mapping, open_store(project), torch.device("cpu"), Voice())
    return begin(setting, "s", loaded.recipe.base)


def _windows(tokens, size=16):
    return (tokens[i : i + size].tolist() for i in range(len(tokens) - size + 1))
