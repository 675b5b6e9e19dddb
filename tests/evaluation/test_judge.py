"""The judgement as a whole: what is said, what is loud, what is never said; and that it survives being stored."""

import json
from dataclasses import replace

import numpy as np
import pytest
from judged_rows import ROWS, likelihoods, sentiment
from pydantic import ValidationError

from etude.errors import DataError, LineageError, TrainingError
from etude.evaluation.judge import check_expected, judge
from etude.evaluation.judgement import Judgement
from etude.evaluation.metrics.accuracy import Accuracy
from etude.evaluation.metrics.macro_f1 import MacroF1
from etude.evaluation.metrics.valid_json import ValidJSON

METRICS = (Accuracy(field="sentiment"), MacroF1(field="sentiment"), ValidJSON())


@pytest.fixture
def judgement(about, answers) -> Judgement:
    return judge(about, likelihoods(-0.5), answers, METRICS, general=likelihoods(0.003))


def test_figures_and_verdicts(judgement, answers):
    accuracy, _, valid, loss, general = judgement.axes
    assert (accuracy.parent.value, accuracy.tuned.value) == (18 / ROWS, 54 / ROWS)
    assert (accuracy.unreadable_parent, accuracy.unreadable_tuned) == (12, 0)
    assert (accuracy.readable.rows, accuracy.readable.parent, accuracy.readable.tuned) == (48, 18 / 48, 46 / 48)
    assert (valid.parent.value, valid.tuned.value, valid.tuned.high) == (48 / ROWS, 1, 1) and valid.tuned.low > 0.9
    texts = likelihoods(-0.5)
    assert loss.difference.value == pytest.approx((texts.tuned.sum() - texts.parent.sum()) / texts.tokens.sum())
    perplexity, bits = general.restated
    assert perplexity.parent == pytest.approx(np.exp(general.parent.value))
    assert bits.parent == pytest.approx(general.parent.value / np.log(2) / 4)  # four bytes a token
    assert [axis.verdict for axis in judgement.axes] == ["better", "better", "better", "better", "unchanged"]
    assert judgement.divergence.nats.low < judgement.divergence.nats.value < judgement.divergence.nats.high
    assert judgement.verdict == "better"
    assert judgement.headline == "Better at the task, general ability unchanged within ±0.05\xa0nats a token."
    assert judgement.explanation[0].startswith(
        "Accuracy of “sentiment” rose from 30.0\xa0% to 90.0\xa0% (+60.0\xa0points; 95\xa0% interval +"
    )


def test_examples_begin_with_what_was_lost(judgement, answers):
    assert judgement.outcomes == {"lost": 2, "gained": 38, "both wrong": 4, "both right": 16}
    assert [example.outcome for example in judgement.examples[:3]] == ["lost", "lost", "gained"]
    assert len(judgement.examples) == judgement.answers == ROWS
    for example in judgement.examples:
        row = int(example.place.split(":")[1]) - 1
        assert (example.prompt, example.parent, example.tuned) == (answers.prompts[row], answers.parent[row], answers.tuned[row])
        assert example.parent_right == (example.parent == example.expected)
    assert (judgement.unfinished_parent, judgement.unfinished_tuned) == (12, 0)


def test_a_gain_in_form_is_named(judgement):
    [warning] = [warning for warning in judgement.warnings if "form" in warning]
    assert "12 of 60" in warning and "On the 48 rows where both could be read: 37.5\xa0% → 95.8\xa0%" in warning
    assert judgement.warnings[-1] == "2 rows were cut"


def test_a_judgement_survives_being_stored(judgement):
    text = judgement.to_json()
    json.loads(text, parse_constant=pytest.fail)
    assert Judgement.from_json(text) == judgement and Judgement.from_json(text).to_json() == text


@pytest.mark.parametrize("damage", ["{}", "", '{"schema_version": 2}', "[1]"])
def test_a_damaged_judgement_is_an_error_with_its_place(damage):
    with pytest.raises(LineageError, match=r"artefacts/x/judgement\.json cannot be read"):
        Judgement.from_json(damage, "artefacts/x/judgement.json")


def test_equal_inputs_give_equal_judgements(about, answers, judgement):
    assert judge(about, likelihoods(-0.5), answers, METRICS, general=likelihoods(0.003)) == judgement


def test_forgetting_is_loud(about, answers):
    judgement = judge(about, likelihoods(-0.5), answers, METRICS, general=likelihoods(0.4))
    assert judgement.verdict == "mixed" and "general ability was lost (+0.4" in judgement.headline
    assert judgement.warnings[0].startswith("General ability was lost") and "beyond the stated ±0.05" in judgement.warnings[0]


def test_a_verdict_and_its_sentence_begin_alike(about, answers):
    """Nobody knows about the task, but what was to be kept is lost: the verdict is that of the loss."""
    for shift, verdict, begins in (
        (0.0, "worse", "General ability was lost (+0.4"),
        (-0.5, "mixed", "Better at the task, but general ability was lost (+0.4"),
        (0.5, "worse", "Worse at the task, and general ability was lost (+0.4"),
    ):
        judgement = judge(about, likelihoods(shift), general=likelihoods(0.4))
        assert (judgement.verdict, judgement.headline.startswith(begins)) == (verdict, True), judgement.headline
    assert judge(about, likelihoods(0.0), general=likelihoods(0.4)).headline.endswith("whether it is better at the task cannot be told.")


def test_a_small_loss_is_said_without_alarm_unless_it_could_be_large(about):
    surely_small = judge(about, likelihoods(-0.5), general=likelihoods(0.02))
    assert surely_small.axes[-1].verdict == "unchanged" and surely_small.axes[-1].p_value < 0.01
    near = judge(about, likelihoods(-0.5), general=likelihoods(0.045))
    assert "fell a little" in near.headline and any("cannot be excluded" in warning for warning in near.warnings)


def test_a_model_against_itself_is_never_better(about, answers):
    same = replace(answers, tuned=answers.parent, tuned_stopped=answers.parent_stopped)
    texts = replace(likelihoods(0), tuned=likelihoods(0).parent)
    judgement = judge(about, texts, same, METRICS, general=texts)
    assert {axis.verdict for axis in judgement.axes} == {"cannot tell", "unchanged"}
    assert {axis.difference.value for axis in judgement.axes} == {0} and {axis.p_value for axis in judgement.axes} == {1}
    assert judgement.verdict == "cannot tell" and judgement.headline.startswith("Cannot tell")
    accuracy = judgement.axes[0].difference
    assert accuracy.low < 0 < accuracy.high  # sixty equal rows do not show that there is no difference at all
    assert judgement.axes[0].smallest_difference >= 6 / ROWS  # McNemar cannot speak with fewer


def test_noise_is_not_sold_as_better(about, answers):
    """Five of sixty rows more: the exact test gives p = 0.06."""
    tuned = [expected if i < 5 else before for i, (expected, before) in enumerate(zip(answers.expected, answers.parent, strict=True))]
    axis = judge(about, likelihoods(0), replace(answers, tuned=tuned), METRICS[:1]).axes[0]
    assert axis.difference.value == pytest.approx(5 / ROWS) and axis.verdict == "cannot tell"
    tuned[5] = answers.expected[5]
    assert judge(about, likelihoods(0), replace(answers, tuned=tuned), METRICS[:1]).axes[0].verdict == "better"


def test_a_planted_regression_is_worse(about, answers):
    swapped = replace(
        answers, parent=answers.tuned, tuned=answers.parent, parent_stopped=answers.tuned_stopped, tuned_stopped=answers.parent_stopped
    )
    judgement = judge(about, likelihoods(0.5), swapped, METRICS, general=likelihoods(0.4))
    assert judgement.verdict == "worse" and {axis.verdict for axis in judgement.axes} == {"worse"}
    assert any("12 of 60 answers of the tuned model ran into the token limit" in warning for warning in judgement.warnings)
    assert "Worse: valid JSON, by −20.0\xa0points." in judgement.warnings


def test_one_answer_for_every_row_is_named(about, answers):
    judgement = judge(about, likelihoods(0), replace(answers, tuned=[sentiment("positive")] * ROWS), METRICS)
    assert any("the same answer" in warning for warning in judgement.warnings)


def test_without_answers_the_loss_decides(about):
    judgement = judge(about, likelihoods(-0.5))
    assert judgement.verdict == "better" and judgement.headline == "Better at the task, general ability not measured."
    assert judgement.examples == () and judgement.divergence is None
    assert any("Only 40 rows" in warning for warning in judgement.warnings)


def test_answers_without_metrics_are_still_shown(about, answers):
    judgement = judge(about, likelihoods(-0.5), answers)
    assert judgement.outcomes == {"changed": 44, "same": 16} and judgement.examples[0].parent_right is None


def test_numbers_that_are_not_finite_stop_with_their_row(about):
    texts = likelihoods(0)
    texts.tuned[6] = np.nan
    with pytest.raises(TrainingError, match="tuned is nan in row 7 of 40"):
        judge(about, texts)


def test_rows_that_do_not_fit_together_stop(about, answers):
    texts = likelihoods(0)
    with pytest.raises(DataError, match="39"):
        judge(about, replace(texts, tuned=texts.tuned[:-1]))
    with pytest.raises(DataError, match="row 1 of 40 has no scored token"):
        judge(about, replace(texts, tokens=np.array([0, *texts.tokens[1:]])))
    with pytest.raises(DataError, match="same rows"):
        judge(about, texts, replace(answers, tuned=answers.tuned[:-1]), METRICS)
    with pytest.raises(DataError, match=r"only 1 rows for the loss on held-out text(.|\n)*data\.held_out"):
        judge(about, likelihoods(0, n=1))
    with pytest.raises(DataError, match=r"only 1 rows for the loss on general text(.|\n)*evaluate\.keep\.tokens"):
        judge(about, texts, general=likelihoods(0, n=1))


def test_an_expected_answer_that_cannot_be_read_names_its_row(about, answers):
    check_expected(METRICS, answers.places, answers.expected)
    expected = [*answers.expected]
    expected[3] = "positive"
    with pytest.raises(DataError, match=r"rows\.jsonl:4: metric accuracy cannot read the expected answer 'positive'"):
        judge(about, likelihoods(0), replace(answers, expected=expected), METRICS)


def test_a_judgement_holds_no_unknown_keys(judgement):
    with pytest.raises(ValidationError):
        Judgement.model_validate(judgement.model_dump() | {"verdikt": "better"})
