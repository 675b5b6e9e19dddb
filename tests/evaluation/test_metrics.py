"""Metrics against scikit-learn, and against answers that models really give."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from etude import catalog
from etude.evaluation import statistics
from etude.evaluation.answer_json import parse_strictly
from etude.evaluation.metrics.accuracy import Accuracy
from etude.evaluation.metrics.exact_match import ExactMatch
from etude.evaluation.metrics.macro_f1 import MacroF1
from etude.evaluation.metrics.valid_json import ValidJSON
from etude.recipe.schema import Evaluate

LABELS = ["negative", "neutral", "positive"]


def figure(metric, expected, answers):
    return metric.figure(metric.features([metric.read(*row) for row in zip(expected, answers, strict=True)]).sum(0))


@pytest.fixture(params=[0, 1, 2])
def labelled(request):
    generator = np.random.default_rng(request.param)
    expected = generator.choice(LABELS, 90, p=[0.6, 0.3, 0.1])
    found = np.where(generator.random(90) < 0.6, expected, generator.choice([*LABELS, "happy"], 90))  # "happy" is never expected
    return expected.tolist(), found.tolist()


def test_accuracy_and_macro_f1_agree_with_scikit_learn(labelled):
    expected, found = labelled
    assert figure(Accuracy(), expected, found) == pytest.approx(accuracy_score(expected, found))
    theirs = f1_score(expected, found, labels=sorted(set(expected)), average="macro", zero_division=0)
    assert figure(MacroF1(), expected, found) == pytest.approx(theirs)


def test_macro_f1_of_resamples_agrees_with_scikit_learn(labelled):
    """The bootstrap's matrix product gives what scoring the drawn rows one by one would; a label no row was drawn of is left out."""
    expected, found = map(np.array, labelled)
    metric = MacroF1()
    features = metric.features([metric.read(*row) for row in zip(expected, found, strict=True)])
    for counts in next(statistics._resampled(len(expected), 8, seed=0)):
        rows = np.repeat(np.arange(len(expected)), counts.astype(int))
        labels = sorted(set(expected[rows]))
        theirs = f1_score(expected[rows], found[rows], labels=labels, average="macro", zero_division=0)
        assert metric.figure(counts @ features) == pytest.approx(theirs)


def test_macro_f1_where_a_resample_misses_a_label():
    metric = MacroF1()
    features = metric.features([metric.read(*row) for row in [("a", "a"), ("a", "b"), ("b", "b")]])
    assert metric.figure(np.array([1.0, 1.0, 0.0]) @ features) == pytest.approx(2 / 3)  # only "a": precision 1, recall 1/2


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "positive",
        '["positive"]',
        '{"label": "positive"}',
        'Sure! {"sentiment": "positive"}',
        '{"sentiment": "positive"',
        '{"sentiment": "positive", "sentiment": "negative"}',
        '{"sentiment": NaN}',
        "[" * 100_000,
        "9" * 5_000,
    ],
)
def test_an_answer_without_a_readable_label_is_wrong_and_known_to_be_unreadable(answer):
    for metric in (Accuracy(field="sentiment"), MacroF1(field="sentiment")):
        reading = metric.read('{"sentiment": "positive"}', answer)
        assert (reading.right, reading.found, reading.expected) == (False, None, "positive")


def test_options_of_accuracy():
    expected, answer = '{"sentiment": "positive"}', 'Sure: {not json} {"sentiment": " Positive "} as asked'
    assert not Accuracy(field="sentiment").read(expected, answer).right
    assert not Accuracy(field="sentiment", anywhere=True).read(expected, answer).right
    assert Accuracy(field="sentiment", anywhere=True, ignore_case=True).read(expected, answer).right
    assert Accuracy(field="stars").read('{"stars": 4}', ' {"stars":4}\n').right
    assert Accuracy().read("very good", "very\n good ").right and Accuracy().read("a", " ").found is None


def test_an_expected_answer_that_cannot_be_read_is_the_data_s_fault():
    with pytest.raises(ValueError, match="no field 'sentiment'"):
        Accuracy(field="sentiment").read('{"mood": "positive"}', '{"sentiment": "positive"}')


def test_options_of_exact_match():
    assert ExactMatch().read("two  words", " two\nwords").right
    assert not ExactMatch(ignore_whitespace=False).read("two  words", "two words").right
    assert not ExactMatch().read("Paris", "paris").right and ExactMatch(ignore_case=True).read("Paris", "PARIS").right


@pytest.mark.parametrize(
    ("options", "expected", "answer", "right"),
    [
        ({}, '{"a": 1}', ' {"a": 2, "b": null}\n', True),
        ({}, '{"a": 1}', '{"b": 1}', False),  # lacks a key of the expected object
        ({}, '{"a": 1}', "[1]", False),
        ({}, "free text", "[1]", True),
        ({}, '{"a": 1}', '```json\n{"a": 1}\n```', False),
        ({}, '{"a": 1}', '{"a": 1} {"a": 1}', False),
        ({}, '{"a": 1}', '{"a": Infinity}', False),
        ({"keys": []}, '{"a": 1}', '{"b": 1}', True),
        ({"keys": ["b"]}, '{"a": 1}', '{"b": 1}', True),
        ({"types": {"a": "number"}}, '{"a": 1}', '{"a": 1}', True),
        ({"types": {"a": "integer"}}, '{"a": 1}', '{"a": 1.5}', False),
        ({"types": {"a": "integer"}}, '{"a": 1}', '{"a": true}', False),
        ({"types": {"a": "string"}}, '{"a": 1}', '{"a": "1"}', True),
        ({"types": {"a": "string"}}, '{"a": 1}', "{}", False),
    ],
)
def test_valid_json(options, expected, answer, right):
    assert ValidJSON(**options).read(expected, answer).right is right


def test_strict_parsing_takes_what_json_is():
    for text in ("null", "-0.5e3", '"\\u00e9"', '{"a": [1, {"b": []}]}'):
        assert parse_strictly(text) == json.loads(text)


def test_every_metric_of_the_catalog_can_be_named_in_a_recipe():
    context = {"tables": catalog.TABLES}
    metrics = Evaluate.model_validate({"metrics": [*catalog.METRICS, {"kind": "accuracy", "field": "sentiment"}]}, context=context).metrics
    assert [metric.kind for metric in metrics[:-1]] == list(catalog.METRICS) and metrics[-1].field == "sentiment"


def test_two_of_one_kind_are_told_apart():
    """Titles name the axis, its drawing and its figures in the index: options that change the meaning are in them."""
    metrics = [
        Accuracy(), Accuracy(ignore_case=True), Accuracy(field="a"), Accuracy(field="a", anywhere=True),
        MacroF1(field="a"), MacroF1(field="a", anywhere=True, ignore_case=True),
        ExactMatch(), ExactMatch(ignore_case=True), ExactMatch(ignore_whitespace=False),
        ValidJSON(), ValidJSON(keys=[]), ValidJSON(keys=["a"]), ValidJSON(keys=["a"], types={"a": "string"}),
        ValidJSON(types={"a": "number"}),
    ]  # fmt: skip
    titles = [metric.title for metric in metrics]
    assert len(set(titles)) == len(titles) and all(title == " ".join(title.split()) for title in titles)
    assert {"accuracy", "exact match", "valid JSON", "accuracy of “a”", "valid JSON with “a” (string)"} < set(titles)
    assert "macro-F1 of “a”, anywhere in the answer, ignoring case" in titles
