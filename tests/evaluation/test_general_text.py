"""General text: prose without markup, spread over topics, and nothing of the user's own left out."""

import sys

import pytest

from etude.errors import DataError
from etude.evaluation.general_text import general_text


def test_the_default_is_prose_enough_for_any_budget():
    text = general_text()
    assert "language reference" in text.sentence and f"{len(text.passages):,} passages" in text.sentence
    assert len(text.passages) > 150 and sum(map(len, text.passages)) > 80_000
    assert all("::=" not in passage and "***" not in passage and ">>>" not in passage for passage in text.passages)
    assert len(set(text.passages)) == len(text.passages) and text == general_text()
    assert max(map(len, text.passages)) < 2_500


def test_without_the_language_reference_docstrings_are_read_and_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    text = general_text()
    assert "docstrings" in text.sentence and "not installed" in text.sentence
    assert sum(map(len, text.passages)) > 20_000


def test_nothing_of_the_users_text_is_left_out():
    texts = ["One short review.", "Another one.\n\nWith two paragraphs.", "Long. " * 500 + "\n\nA short end."]
    text = general_text(texts, "reviews.txt")
    words = sorted(word for passage in text.passages for word in passage.split())
    assert words == sorted(word for each in texts for word in each.split())
    assert text.sentence.startswith("reviews.txt: ")


def test_too_little_text_is_an_error():
    with pytest.raises(DataError, match=r"mine\.txt holds 1 passages"):
        general_text(["a line"], "mine.txt")
