"""Files that start from other files."""

from conftest import MINIMAL
from recipe_leaves import TABLES

from etude.recipe.load import load, shipped


def test_mappings_merge_and_the_rest_is_replaced(write, loaded) -> None:
    write(
        MINIMAL + "    train: {epochs: 2, clip: 0.5, trackers: [{kind: board, project: a}]}\n    adapt: {rank: 4, alpha: 8}\n", "under.yaml"
    )
    recipe = loaded(
        "extends: under.yaml\nstages: {first: {train: {clip: null, trackers: []}, adapt: {rank: 2}, data: {sources: [a, b]}}}"
    ).recipe
    first = recipe.stages["first"]
    assert (first.train.epochs, first.train.clip, first.train.trackers) == (2.0, None, [])
    assert (first.adapt.rank, first.adapt.alpha) == (2, 8.0)
    assert len(first.data.sources) == 2


def test_options_belong_to_their_kind(write, loaded) -> None:
    write(MINIMAL + "    adapt: {kind: lora, rank: 4}\n    train: {schedule: cosine}\n", "under.yaml")
    assert loaded("extends: under.yaml\nstages: {first: {adapt: full}}").recipe.stages["first"].adapt.kind == "full"
    same = loaded("extends: under.yaml\nstages: {first: {adapt: {kind: lora, alpha: 3}, train: {schedule: {floor: 0.1}}}}").recipe.stages[
        "first"
    ]
    assert (same.adapt.rank, same.adapt.alpha, same.train.schedule.kind, same.train.schedule.floor) == (4, 3.0, "cosine", 0.1)


def test_several_parents_in_order_and_a_chain(write, loaded) -> None:
    write(MINIMAL + "name: a\n", "a.yaml")
    write("name: b\nevaluate: {rows: 7}\n", "b.yaml")
    write("extends: [../a.yaml, ../b.yaml]\n", "deep/c.yaml")
    recipe = loaded("extends: deep/c.yaml\n").recipe
    assert (recipe.name, recipe.evaluate.rows) == ("b", 7)


def test_mistakes_name_the_file_they_are_in(write, mistakes) -> None:
    write("evaluate:\n  rows: many\nstages: {first: {train: {epoch: 1}}}\n", "sub/under.yaml")
    assert mistakes("extends: sub/under.yaml\n" + MINIMAL + "    train: {lr: 1}\n") == [
        "r.yaml:7:13: stages.first.train.lr: unknown key; did you mean `learning_rate`?",
        "sub/under.yaml:2:9: evaluate.rows: expected a whole number, got the text 'many'",
        "sub/under.yaml:3:26: stages.first.train.epoch: unknown key; did you mean `epochs`?",
    ]


def test_circles_and_absent_files(write, mistakes) -> None:
    write("extends: c.yaml\n", "b.yaml")
    write("extends: r.yaml\n", "c.yaml")
    [circle] = mistakes("extends: b.yaml\n" + MINIMAL)
    assert circle == "c.yaml:1:10: extends: goes in a circle: r.yaml → b.yaml → c.yaml → r.yaml"
    # Nothing is called missing that might stand in the file that could not be read.
    assert mistakes("extends: [gone.yaml, 3]\n") == [
        "gone.yaml:1:1: cannot be read: No such file or directory",
        "r.yaml:1:22: extends: expected a file name or a list of them, got the number 3",
    ]


def test_a_broken_parent_does_not_hide_other_mistakes(write, mistakes) -> None:
    write("a: [\n", "broken.yaml")
    lines = mistakes("extends: broken.yaml\nstages: {first: {train: {epochs: x}}}\n")
    assert [line.split(": ")[0] for line in lines] == ["broken.yaml:2:1", "r.yaml:2:34"]


def test_a_bare_name_is_a_shipped_recipe(write, monkeypatch, tmp_path) -> None:
    write("name: here\n" + MINIMAL, "quickstart")
    monkeypatch.setattr("etude.recipe.load.files", lambda package: tmp_path / package)
    write("name: there\n" + MINIMAL, "etude/recipes/quickstart.yaml")
    assert list(shipped()) == ["quickstart"]
    assert load("quickstart", tables=TABLES).recipe.name == "there"
    assert load("./quickstart", tables=TABLES).recipe.name == "here"
    assert load(write("extends: quickstart\n"), tables=TABLES).recipe.name == "there"


def test_an_unknown_name_says_what_there_is(mistakes, monkeypatch, tmp_path, write) -> None:
    monkeypatch.setattr("etude.recipe.load.files", lambda package: tmp_path / package)
    write(MINIMAL, "etude/recipes/quickstart.yaml")
    [line] = mistakes("extends: quikstart\n")
    assert line.startswith("r.yaml:1:10: no recipe called 'quikstart' comes with etude; did you mean `quickstart`?")
    assert line.endswith("; for a file write its suffix, or `./quikstart`")
