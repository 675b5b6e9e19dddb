"""The recipes that come with etude: each is read with the real catalog, and runs."""

import csv

import pytest
from small_project import make_base

import etude
from etude.recipe.load import shipped


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_is_read(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = etude.read_recipe(name)
    assert loaded.recipe.name == name and loaded.path.name == f"{name}.yaml"
    assert loaded.mapping["stages"] and loaded.recipe.evaluate is not None, "and is judged"


@pytest.fixture
def small(tmp_path) -> list[str]:
    """Overrides that leave a recipe whole but for base, rows and steps: `where`, `limit`, the templates, the metrics it is judged by."""
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        rows = [[f"film {i} is {('dull', 'fine')[i % 2]}", i % 2, ("rotten_tomatoes", "imdb")[i % 3 == 0]] for i in range(90)]
        csv.writer(file).writerows([["text", "label", "source"], *rows])
    return [
        f"base={make_base(tmp_path / 'base')}",
        f"stages.sentiment.data.sources.0.path={tmp_path / 'reviews.csv'}",
        "stages.sentiment.data.sources.0.limit=50",
        "stages.sentiment.data.held_out=10",
        "stages.sentiment.train.steps=2",
        "evaluate.keep.tokens=1000",
    ]


@pytest.fixture
def few(tmp_path) -> list[str]:
    """The same for a recipe whose model is born: smaller, of other text."""
    folder = tmp_path / "library"
    folder.mkdir()
    for i in range(30):
        (folder / f"module_{i}.py").write_text(f"def area_{i}(width, height):\n    return width * height + {i}\n" * 8)
    changed = ["base.size=60k", "base.tokenizer.size=300", f"stages.python.data.sources.0.path={folder}/*.py"]
    return [*changed, "stages.python.train.tokens=1024", "stages.python.train.tokens_per_step=512"]


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_runs(name, small, few, tmp_path):
    (tmp_path / ".etude").mkdir()
    (done,) = etude.run(name, few if name == "pretrain-tiny" else small, project=tmp_path).stages.values()
    assert done.record.metrics["steps"] == 2 and done.judgement.axes and done.report.exists()


@pytest.mark.slow
def test_a_model_from_nothing_as_it_is(tmp_path):
    """Below 2 bits for each byte of modules that it never saw; untrained it needs more than 3."""
    (tmp_path / ".etude").mkdir()
    judgement = etude.run("pretrain-tiny", project=tmp_path).stages["python"].judgement
    bits = next(one for one in judgement.axes[0].restated if one.unit == "bits/byte")
    assert bits.parent > 3 and bits.tuned < 2


def test_the_quickstart_on_a_tiny_base(small, tmp_path):
    (forecast,) = etude.forecast("quickstart", small, project=tmp_path)
    assert (forecast.steps, forecast.training_rows, forecast.held_out_rows, forecast.judged_rows) == (2, 40, 10, 10)
    done = etude.run("quickstart", small, project=tmp_path).stages["sentiment"]
    assert done.record.metrics["steps"] == 2 and done.record.counts["read"] == 90
    names = [axis.name for axis in done.judgement.axes]
    assert names[0] == "accuracy of “sentiment”" and "valid JSON" in names and "loss on general text" in names
    assert '{"sentiment": "' in done.judgement.examples[0].expected and done.judgement.answers == 10


@pytest.mark.slow
def test_the_quickstart_as_it_is(tmp_path):
    """What the README promises: a few minutes on two cores, and a gain that nobody has to look for."""
    judgement = etude.run("quickstart", project=tmp_path).stages["sentiment"].judgement
    accuracy, json = (next(axis for axis in judgement.axes if axis.name == name) for name in ("accuracy of “sentiment”", "valid JSON"))
    assert accuracy.verdict == "better" and accuracy.difference.value >= 0.40
    assert json.tuned.value >= 0.99 and accuracy.n == json.n == 200
