"""Two models that answered the same 60 rows; small enough to read, with everything a report must survive in it."""

import pytest
from judged_rows import HOSTILE, ROWS, sentiment

from etude.evaluation.judgement import About, Cost, Count, Curve, Point
from etude.evaluation.measured import Answers


@pytest.fixture
def answers() -> Answers:
    """The parent is right in 18 rows of 60 and unreadable in 12; the tuned model is right in 54, and loses 2 that its parent had."""
    labels = ["positive", "negative"] * (ROWS // 2)
    other = {"positive": "negative", "negative": "positive"}
    parent = ["It is positive, I" if i < 12 else sentiment(label if i >= 42 else other[label]) for i, label in enumerate(labels)]
    tuned = [sentiment(other[label] if i < 4 or i >= 58 else label) for i, label in enumerate(labels)]
    return Answers(
        places=[f"rows.jsonl:{i + 1}" for i in range(ROWS)],
        prompts=[f"Name the sentiment of this sentence as strict JSON.\n\n{HOSTILE} {i}" for i in range(ROWS)],
        expected=[sentiment(label) for label in labels],
        parent=parent,
        tuned=tuned,
        parent_stopped=[i >= 12 for i in range(ROWS)],
        tuned_stopped=[True] * ROWS,
    )


@pytest.fixture
def about() -> About:
    return About(
        parent="base <b>",
        tuned="tuned@1",
        made="2026-11-21T14:03:11",
        cost=Cost(seconds=120.0, logical_tokens=6000, computed_tokens=2000, trainable_parameters=5000, parameters=100_000),
        data=(Count(name="rows read", value=100), Count(name="dropped", value=3, why="longer than the context & <i>counted</i>")),
        curve=Curve(
            train=[Point(step=step, loss=2 / (1 + step)) for step in range(20)],
            held_out=[Point(step=0, loss=2.1), Point(step=20, loss=0.2)],
        ),
        recipe="name: run\nbase: </pre><script>alert('recipe')</script>\n",
        environment={"torch": "2.11 <x>"},
        chat="etude chat tuned",
        warnings=("2 rows were cut",),
    )
