"""The metrics chosen by looking at expected answers, and the reason that is given."""

import json

from etude.evaluation.choose import choose


def kinds(choice):
    return [metric.kind for metric in choice.metrics]


def test_objects_with_a_label():
    choice = choose([json.dumps({"id": f"r{i}", "sentiment": ["positive", "negative"][i % 2]}) for i in range(20)])
    assert kinds(choice) == ["accuracy", "macro-f1", "valid-json"]
    assert choice.metrics[0].field == choice.metrics[1].field == "sentiment"
    assert "'negative' or 'positive'" in choice.reason


def test_a_second_label_is_mentioned():
    choice = choose([json.dumps({"urgent": i % 3 == 0, "team": ["a", "b"][i % 2]}) for i in range(20)])
    assert choice.metrics[0].field == "urgent" and "'team'" in choice.reason


def test_objects_without_a_label():
    assert kinds(choose([json.dumps({"name": f"n{i}", "kind": "same"}) for i in range(20)])) == ["exact-match", "valid-json"]


def test_short_labels():
    choice = choose(["yes", "no", "no ", "yes", "no", "yes"])
    assert kinds(choice) == ["accuracy", "macro-f1"] and choice.metrics[0].field is None and "'no' or 'yes'" in choice.reason


def test_short_texts_of_many_kinds():
    assert kinds(choose([f"{i} apples" for i in range(20)])) == ["exact-match"]
    assert kinds(choose(["yes"] * 20)) == ["exact-match"]  # one label is no choice between labels


def test_free_text_is_left_to_likelihood():
    choice = choose([f"Dear customer {i}, " + "thank you for your patience. " * 8 for i in range(20)])
    assert kinds(choice) == [] and "likelihood" in choice.reason
