"""Looking changes nothing and needs no weights: dry runs, rows as they will be learnt, recipes for data, the library."""

import csv
import json
import sys
from types import SimpleNamespace

import pytest
from small_project import answers, labelled, recipe, stage

import etude
from etude.errors import EtudeError, LineageError


@pytest.fixture
def hollow(base, tmp_path):
    """The base with a file of weights that cannot be read."""
    folder = tmp_path / "hollow"
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes() if path.suffix != ".safetensors" else b"none")
    return folder


def test_a_dry_run_of_two_stages(project, hollow, base):
    stages = {"dpo": stage(project / "pairs.jsonl", parent="sft", objective="dpo"), "sft": stage(project / "answers.jsonl")}
    file = recipe(project / "two.yaml", hollow, stages)
    first, second = etude.forecast(etude.read_recipe(str(file)), project=project)
    assert (first.stage, first.artefact, first.parent, first.finished) == ("sft", "two-sft", str(hollow), None)
    assert (first.steps, first.examples, first.training_rows, first.held_out_rows, first.judged_rows) == (4, 16, 32, 8, 6)
    assert (second.stage, second.parent, second.parent_made, second.objective) == ("dpo", "two-sft", False, "dpo")
    assert etude.list(project=project) == [] and not list((project / ".etude" / "runs").iterdir())
    whole = etude.read_recipe(str(file), [f"base={base}"])
    etude.run(whole, project=project)
    assert [f.finished for f in etude.forecast(whole, project=project)] == ["two-sft@1", "two-dpo@1"]
    other = etude.read_recipe(str(file), [f"base={base}", "stages.sft.train.steps=5"])
    assert [f.finished for f in etude.forecast(other, project=project)] == [None, None], "on another parent it is another stage"


def test_on_a_parent_to_be_made_nothing_is_finished(project, base):
    """The same data and settings from the root are another stage."""
    once = stage(project / "answers.jsonl")
    etude.run(str(recipe(project / "once.yaml", base, {"s": once})), project=project)
    first = stage(project / "answers.jsonl", learning_rate=5e-3)
    twice = recipe(project / "twice.yaml", base, {"first": first, "then": once | {"parent": "first"}})
    forecasts = etude.forecast(etude.read_recipe(str(twice)), project=project)
    assert [(f.artefact, f.finished, f.parent_made) for f in forecasts] == [("twice-first", None, True), ("twice-then", None, False)]


def test_rows_are_shown_without_weights(project, hollow):
    for path in hollow.glob("*.safetensors"):
        path.unlink()
    shown = etude.data_show(str(project / "answers.jsonl"), base=str(hollow), rows=2, project=project).to_dict()
    assert len(shown["rows"]) == 2 and shown["counts"][0]["read"] == 40
    learnt = [span["text"] for span in shown["rows"][0]["samples"][0]["spans"] if span["learnt"]]
    assert "".join(learnt) in {f"{colour}<|im_end|>" for colour in ("red", "green", "blue", "black", "white")}
    pair = etude.data_show(str(project / "pairs.jsonl"), base=str(hollow), project=project).to_dict()["rows"][0]
    assert [sample["role"] for sample in pair["samples"]] == ["chosen", "rejected"]
    stages = {"a": stage(project / "answers.jsonl"), "b": stage(project / "pairs.jsonl", objective="dpo")}
    file = str(recipe(project / "r.yaml", hollow, stages))
    assert etude.data_show(file, project=project).prepared.counts.total("held_out") == 8
    assert len(etude.data_show(file, stage="b", project=project).prepared.held_out[0].samples) == 2
    with pytest.raises(EtudeError, match=r"no stage 'c'.*\n.*a, b"):
        etude.data_show(file, stage="c", project=project)


def test_rows_of_a_recipe_are_shown_as_its_parent_reads_them(project, base):
    """An artefact as base, by its name."""
    etude.run(str(recipe(project / "once.yaml", base, {"s": stage(project / "answers.jsonl")})), project=project)
    shown = etude.data_show(str(project / "answers.jsonl"), base="once", project=project)
    assert (
        shown.prepared.fingerprint == etude.data_show(str(project / "answers.jsonl"), base=str(base), project=project).prepared.fingerprint
    )


def _jsonl(folder):
    return answers(folder / "chat.jsonl"), "answer"


def _csv(folder):
    return labelled(folder / "notes.csv"), "classify"


def _odd_csv(folder):
    with (folder / "odd names.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["the note", "in"], *([f"{{{{ note }}}} {i}", f"reply: '{i}'"] for i in range(20))])
    return folder / "odd names.csv", "answer"


def _text(folder):
    (folder / "book.txt").write_text("\n\n".join(f"Paragraph {i} is about colours and things." for i in range(40)))
    return folder / "book.txt", "continue"


def _pairs(folder):
    return folder / "pairs.jsonl", "prefer"


@pytest.mark.parametrize("make", [_jsonl, _csv, _odd_csv, _text, _pairs])
def test_the_recipe_that_init_writes_runs(project, base, monkeypatch, make):
    """From another folder than the one it was written from: its paths begin at its own."""
    monkeypatch.chdir(project)
    path, name = make(project)
    (project / "recipes").mkdir()
    file = project / "recipes" / "mine.yaml"
    text = etude.init(str(path.relative_to(project)), base=str(base), to=file)
    assert file.read_text() == text and text.startswith("# ")
    with pytest.raises(EtudeError, match="exists already"):
        etude.init(str(path), to=file)
    overrides = [f"stages.{name}.data.context=128", f"stages.{name}.train.steps=2"]
    if name != "continue":  # a single text cannot be divided, and so not judged
        overrides += ["evaluate.keep.tokens=200", "evaluate.max_new_tokens=4"]
    monkeypatch.chdir(project / "recipes")
    done = etude.run("mine.yaml", overrides, project=project).stages[name]
    assert done.record.metrics["steps"] == 2
    assert (done.judgement is None) == (name == "continue")


def test_a_data_set_of_the_hub_is_looked_at_as_it_is_read(project, base, monkeypatch):
    rows = [json.loads(line) for line in (project / "answers.jsonl").read_text().splitlines()]
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda name, config, split: rows))
    shown = etude.data_show("hub:owner/colours", base=base, project=project)
    assert shown.prepared.counts.total("read") == 40 and shown.prepared.counts.sources[0].path == "hub:owner/colours"
    file = project / "new" / "folder" / "mine.yaml"
    text = etude.init("hub:owner/colours", base=base, to=str(file))
    assert file.read_text() == text and "hub:owner/colours" in text and "name: colours" in text
    (forecast,) = etude.forecast(file, ["stages.answer.data.context=128"], project=project)
    assert forecast.training_rows == 32


def test_a_recipe_is_a_path_a_name_or_one_that_was_read(project, base):
    file = recipe(project / "colours.yaml", base, {"s": stage(project / "answers.jsonl")}, evaluate=None)
    loaded = etude.read_recipe(file, ["stages.s.train.steps=1"])
    assert etude.forecast(file, ["stages.s.train.steps=1"], project=project) == etude.forecast(loaded, project=project)
    assert etude.run(file, ["stages.s.train.steps=1"], project=project).stages["s"].record.reference == "colours@1"
    assert etude.run(loaded, project=project).stages["s"].reused
    for go in (etude.run, etude.forecast):
        with pytest.raises(EtudeError, match=r"is read already, so stages.s.train.steps=2 would be ignored"):
            go(loaded, ["stages.s.train.steps=2"], project=project)


def test_init_of_an_empty_file(project):
    (project / "empty.jsonl").write_text("")
    with pytest.raises(EtudeError, match=r"empty\.jsonl"):
        etude.init(str(project / "empty.jsonl"))


def test_the_library(project, base, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert etude.list(project=elsewhere) == [] and etude.clean(project=elsewhere).items == []
    with pytest.raises(LineageError, match="there is no project"):
        etude.show("colours", project=elsewhere)
    assert not list(elsewhere.iterdir()), "asking leaves nothing behind"
    file = str(recipe(project / "colours.yaml", base, {"s": stage(project / "answers.jsonl")}, evaluate=None))
    for steps in (1, 2, 3):
        etude.run(file, [f"stages.s.train.steps={steps}"], project=project)
    child = recipe(project / "child.yaml", "colours@2", {"s": stage(project / "answers.jsonl")}, evaluate=None)
    etude.run(str(child), project=project)
    assert [entry.record.reference for entry in etude.list(project=project)] == ["child@1", "colours@3", "colours@2", "colours@1"]
    shown = etude.show("colours@2", project=project)
    assert [branch.record.reference for branch in shown.descendants] == ["child@1"]
    assert [item.reference for item in etude.clean(project=project).items] == ["colours@1"], "on the second stands a child"
    assert len(etude.list(project=project)) == 4
    assert etude.clean(yes=True, project=project).freed > 0
    assert [entry.record.reference for entry in etude.list(project=project)] == ["child@1", "colours@3", "colours@2"]


def test_every_verb_is_a_documented_function():
    from typing import get_type_hints

    from typer.main import get_command

    from etude.cli.main import app

    verbs = [f"{name}_{below}" if hasattr(command, "commands") else name
             for name, command in get_command(app).commands.items() for below in getattr(command, "commands", [""])]  # fmt: skip
    others = {"data_check", "data_show", "frontier", "corpus_prepare", "corpus_schema", "corpus_show"}
    others |= {"tokenizer_extend", "tokenizer_show", "tokenizer_train"}
    assert {*("run", "init", "schema", "list", "show", "name", "chat", "compare", "clean", "doctor"), *others} == set(verbs)
    for verb in verbs:
        function = getattr(etude, verb)
        assert verb in etude.__all__ and len(function.__doc__) > 40
        assert "return" in get_type_hints(function), verb
    for name in etude.__all__:
        assert getattr(etude, name) is not None
    assert json.dumps(etude.schema())
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        etude.nothing  # noqa: B018


def test_chat(project, base):
    etude.run(str(recipe(project / "colours.yaml", base, {"s": stage(project / "answers.jsonl")}, evaluate=None)), project=project)
    model = etude.load("colours", project=project)
    question = "What colour has thing 3?"
    assert etude.chat("colours", question, max_new_tokens=6, project=project) == model.generate(question, max_new_tokens=6)
    before = etude.load(str(base), project=project).generate(question, max_new_tokens=6)
    assert etude.chat("colours", question, max_new_tokens=6, parent=True, project=project) == before
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    briefly = etude.chat("colours", question, system="Be brief.", max_new_tokens=6, project=project)
    assert briefly == model.generate(messages, max_new_tokens=6) == "".join(model.stream(messages, max_new_tokens=6))
