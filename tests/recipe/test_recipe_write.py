"""The recipe that is written for somebody's data loads, and says what was found."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import Environment, StrictUndefined
from recipe_leaves import TABLES

from etude.recipe.load import load
from etude.recipe.write import recipe_for

ALL = {**TABLES, "metric": {**TABLES["metric"], "valid-json": "etude.evaluation.metrics.valid_json:ValidJSON"}}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


def rendered(source, row: dict) -> dict[str, str]:
    """A row as the templates see it: columns renamed, then every template applied."""
    row = {source.columns.get(name, name): value for name, value in row.items()}
    environment = Environment(undefined=StrictUndefined)
    return {field: environment.from_string(text).render(row) for field, text in source.render.model_dump(exclude_none=True).items()}


@pytest.mark.parametrize("format", ["messages", "sharegpt", "preference", "kto", "alpaca", "prompt-completion", "text"])
def test_known_formats(write, format: str) -> None:
    text = recipe_for("data/My Rows.v2.jsonl.gz", base="owner/model", rows=12_345, columns=["a", "b"], format=format)
    recipe = load(write(text), tables=ALL).recipe
    [stage] = recipe.stages.values()
    assert (recipe.name, stage.data.sources[0].format) == ("my-rows", format)
    assert stage.objective.kind == {"preference": "dpo", "kto": "kto"}.get(format, "next-token")
    assert recipe.evaluate.generate == (format != "text")
    assert "12,345 rows" in text


@pytest.mark.parametrize(("rows", "held_out"), [(1, 0), (3, 0), (4, 2), (9, 2), (10, 0.2), (500, 0.1), (2000, 0.05)])
def test_two_rows_at_least_are_held_out_or_nothing_is_judged(write, rows: int, held_out: float) -> None:
    recipe = load(write(recipe_for("r.txt", base="m", rows=rows, columns=["text"], format="text")), tables=ALL).recipe
    assert recipe.stages["continue"].data.held_out == held_out
    assert (recipe.evaluate is None) == (rows < 4)
    assert held_out >= 1 or held_out * rows >= 2 or recipe.evaluate is None


def test_a_table_with_a_label(write) -> None:
    text = recipe_for("r.csv", base="./m", rows=900, columns=["title", "not", "star rating"], label="star rating", labels=["good", "bad"])
    recipe = load(write(text), tables=ALL).recipe
    source = recipe.stages["classify"].data.sources[0]
    assert rendered(source, {"title": "T", "not": "N", "star rating": 'so "good"'}) == {
        "system": 'Answer with JSON alone: {"star rating": …}. One of: good, bad.',
        "prompt": "title: T\nnot: N",
        "completion": '{"star rating": "so \\"good\\""}',
    }
    assert [metric.kind for metric in recipe.evaluate.metrics] == ["accuracy", "macro-f1", "valid-json"]
    assert recipe.evaluate.metrics[0].field == "star rating"


def test_an_unknown_table_asks_whether_the_guess_is_right(write) -> None:
    text = recipe_for("r.csv", base="m", rows=3, columns=["q", "a"])
    source = load(write(text), tables=ALL).recipe.stages["answer"].data.sources[0]
    assert rendered(source, {"q": "1", "a": "2"}) == {"prompt": "1", "completion": "2"}
    assert "“a” was taken for the answer to the other columns. Is that so?" in text


def test_what_looks_like_a_reference_is_a_name(write, tmp_path) -> None:
    text = recipe_for("${HOME}/$${x}/${{ y }} 1.jsonl", base="m", rows=3, columns=["text"], format="text")
    source = load(write(text), tables=ALL).recipe.stages["continue"].data.sources[0]
    assert source.path == f"{tmp_path}/${{HOME}}/$${{x}}/${{{{ y }}}} 1.jsonl"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=TEXT, base=TEXT, columns=st.lists(TEXT, max_size=4, unique=True), labelled=st.booleans(), labels=st.lists(TEXT, max_size=3))
def test_whatever_files_and_columns_are_called(write, path, base, columns, labelled, labels) -> None:
    label = columns[0] if labelled and columns else None
    # A file of its own folder, so that no name reads as a URL or a home directory.
    text = recipe_for(f"d/{path}", base=f"d/{base}", rows=5, columns=columns, label=label, labels=labels)
    source = next(iter(load(write(text), tables=ALL).recipe.stages.values())).data.sources[0]
    filled = rendered(source, dict.fromkeys(columns or ["text"], "VALUE"))
    assert "VALUE" in filled.get("completion", filled.get("text", ""))
