"""What is asked of both models: a fair sample of rows, the statistics' units, as much general text as was wanted."""

import json

import numpy as np
import pytest
from chat_tokenizers import chat_tokenizer
from small_project import answers, recipe, stage

import etude
from etude import catalog
from etude.compose.trial import fair_sample, trial_of, units
from etude.core.sample import Example, Sample
from etude.data.prepare import prepare
from etude.evaluation.general_text import GeneralText
from etude.objective.next_token import NextToken
from etude.recipe.data import Data
from etude.recipe.schema import Evaluate


def pieces(row: int, count: int) -> list[Example]:
    path = lambda i: Sample(np.array([row, i, 7], np.int32), np.array([0, 1, 1], np.float32))
    return [Example((path(i),), "texts", row) for i in range(count)]


def test_a_piece_of_each_text_comes_before_a_second_one_of_any():
    examples = [*pieces(1, 50), *pieces(2, 1), *pieces(3, 3)]
    chosen = fair_sample(examples, 5)
    assert [one.row for one in chosen] == [1, 2, 3, 1, 3]
    places = [int(one.samples[0].tokens[1]) for one in fair_sample(pieces(1, 50), 50)]
    assert sorted(places) == list(range(50)) != places, "each once, and not the beginnings first"
    assert units(chosen).tolist() == [0, 1, 2, 0, 2] and units(pieces(1, 4)).tolist() == [0, 1, 2, 3]


def test_a_short_passage_does_not_end_the_general_text(tmp_path):
    settings = Evaluate.model_validate({"keep": {"tokens": 80}}, context={"tables": catalog.TABLES})
    data = Data.model_validate({"sources": str(answers(tmp_path / "a.jsonl")), "held_out": 4})
    tokenizer = chat_tokenizer()
    prepared = prepare(data, tokenizer, roles=(), stop_ids=frozenset({tokenizer.eos_token_id}), seed=0)
    text = GeneralText(("The quick brown fox.", "", "A lazy dog, and another one.", "Never " * 100, "Not reached."), "made")
    trial = trial_of(prepared, text, tokenizer, settings, 128, NextToken())
    assert [passage.row for passage in trial.general] == [1, 3, 4] and len(trial.general_bytes) == 3
    assert sum(len(passage.samples[0]) for passage in trial.general) == 80


@pytest.mark.parametrize("texts", [4, 1])
def test_pieces_of_one_text_are_one_row_of_the_statistics(project, base, texts):
    long = " ".join(f"Thing {i} is brown." for i in range(40))
    held = project / "held.jsonl"
    held.write_text("".join(json.dumps({"text": f"Story {i}. {long}"}) + "\n" for i in range(texts)))
    (project / "texts.jsonl").write_text("".join(json.dumps({"text": f"Text number {i} is here."}) + "\n" for i in range(20)))
    wanted = stage(project / "texts.jsonl", held_out={"path": str(held)}, steps=1)
    wanted["data"]["context"] = 32
    judgement = etude.run(str(recipe(project / "texts.yaml", base, {"s": wanted})), project=project).stages["s"].judgement
    loss = next(judgement.of("task"))
    assert loss.name == "loss on held-out text" and loss.n == (4 if texts == 4 else 6)
    assert any("of one text" in line for line in judgement.warnings) == (texts == 1)
    assert "passages of it were scored" in judgement.about.general_text


def test_small_losses_of_many_stages_are_a_large_one(project, base):
    """Each stage is within its margin of its parent; together they are not within it of the base."""
    once = stage(project / "answers.jsonl", learning_rate=3e-3)
    stages = {"one": once, "two": {**once, "parent": "one"}, "three": {**once, "parent": "two"}}
    file = recipe(project / "long.yaml", base, stages)
    done = etude.run(str(file), ["evaluate.keep.margin=1000"], project=project).stages
    rises = [next(finished.judgement.of("keep")).difference.value for finished in done.values()]
    base_loss = next(done["one"].judgement.of("keep")).parent.value
    assert next(done["three"].judgement.of("keep")).tuned.value - base_loss == pytest.approx(sum(rises), abs=1e-4)
    assert not any("stages together" in line for finished in done.values() for line in finished.judgement.warnings)
    assert min(rises) > 0, "else nothing was forgotten"
    margin = (max(rises) + sum(rises)) / 2
    again = etude.run(str(file), [f"evaluate.keep.margin={margin}"], project=project).stages["three"].judgement
    assert "beyond the stated" in again.warnings[0] and "long-one@1" in again.warnings[0], again.warnings
    fresh = etude.run(str(file), [f"evaluate.keep.margin={margin}", "stages.three.train.steps=3"], project=project).stages["three"]
    assert ("stages together" in "".join(fresh.judgement.warnings)) == (
        sum(rises[:2]) + next(fresh.judgement.of("keep")).difference.value > margin
    )


def test_rated_answers_are_looked_at_by_those_that_were_liked(project, base):
    rows = [{"prompt": f"Name colour {i}", "completion": "red" if i % 2 else str(i), "label": bool(i % 2)} for i in range(30)]
    (project / "rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rated = stage(project / "rated.jsonl", objective="kto", evaluate_every=3)
    done = etude.run(recipe(project / "rated.yaml", base, {"s": rated}), project=project).stages["s"]
    lines = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    looks = {line["step"]: line["held_out_loss_desirable"] for line in lines if "held_out_loss_desirable" in line}
    assert list(looks) == [0, 3, 4]
    loss = next(axis for axis in done.judgement.axes if axis.name == "loss on held-out answers")
    assert (looks[0], looks[4]) == pytest.approx((loss.parent.value, loss.tuned.value), abs=1e-5)
    assert done.judgement.about.curve.unit == "kto, an answer"
