"""Every mistake at once, in plain words, with its place and what was probably meant."""

import pytest
from conftest import MINIMAL
from recipe_leaves import TABLES

from etude.recipe.foreign import FOREIGN, VALUES
from etude.recipe.schema import Recipe
from etude.recipe.shape import Shape, keys_everywhere


def test_everything_at_once_in_the_order_of_the_file(mistakes) -> None:
    text = """\
name: My Run
base: some/model
learning_rate: 1e-4
stages:
  first:
    data:
      source: rows.jsonl
      cutoff_len: 512
      too_long: truncat
    adapt: {r: 16, targets: 3}
    objective: {kind: sft}
    train:
      epochs: "3"
      compile: yes
      bf16: true
      packing: true
      beta1: 1.5
      steps: 1e3
evaluate:
  metrics: [f1]
  generate: 1
"""
    assert mistakes(text) == [
        "r.yaml:1:7: name: should be lower-case letters, digits, `-` and `_`, got the text 'My Run'; did you mean `my-run`?",
        "r.yaml:3:1: learning_rate: unknown key; did you mean `stages.first.train.learning_rate`?",
        "r.yaml:7:7: stages.first.data.source: unknown key; did you mean `sources` or `stages.first.data.replay.source`?",
        "r.yaml:8:7: stages.first.data.cutoff_len: unknown key; did you mean `context`?",
        "r.yaml:9:17: stages.first.data.too_long: expected one of `drop`, `truncate`, `error`, got the text 'truncat'; "
        "did you mean `truncate`?",
        "r.yaml:10:13: stages.first.adapt.r: unknown key; did you mean `rank`?",
        "r.yaml:10:29: stages.first.adapt.targets: expected a list or `all-linear`, got the number 3",
        "r.yaml:11:23: stages.first.objective.kind: unknown kind 'sft'; one of: next-token, dpo, kto; did you mean `next-token`?",
        "r.yaml:13:15: stages.first.train.epochs: expected a number, got the text '3'; did you mean 3, without quotes or separators?",
        "r.yaml:14:16: stages.first.train.compile: expected true or false, got the text 'yes'; did you mean `true`?",
        "r.yaml:15:7: stages.first.train.bf16: unknown key; did you mean `dtype`? "
        "(`bfloat16`, `float32` or `auto`; what is trained keeps float32 masters either way)",
        "r.yaml:16:7: stages.first.train.packing: unknown key; leave it out: rows are always packed, exactly as each sample alone",
        "r.yaml:17:14: stages.first.train.beta1: should be less than 1, got the number 1.5",
        "r.yaml:18:14: stages.first.train.steps: expected a whole number, got the number 1000.0; did you mean 1000?",
        "r.yaml:20:13: evaluate.metrics.0.kind: unknown kind 'f1'; one of: accuracy, macro-f1; did you mean `macro-f1`?",
        "r.yaml:21:13: evaluate.generate: expected true or false, got the number 1; did you mean `true`?",
    ]


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        (
            "    train: {epochs: null}",
            "r.yaml:6:21: stages.first.train.epochs: expected a number, got nothing (null); leave the key out for its default",
        ),
        ("    train:", "r.yaml:6:11: stages.first.train: expected a mapping, got nothing (null); leave the key out for its default"),
        ("    train: [1]", "r.yaml:6:12: stages.first.train: expected a mapping, got a list"),
        (
            "    train: {learning_rate: .inf}",
            "r.yaml:6:28: stages.first.train.learning_rate: should be a finite number, got the number inf",
        ),
        ("    train: {seed: true}", "r.yaml:6:19: stages.first.train.seed: expected a whole number, got true"),
        ("    train: {trackers: [board]}", "r.yaml:6:24: stages.first.train.trackers.0.project: is missing: Where to."),
        ("    train: {trackers: [{project: a}]}", "r.yaml:6:24: stages.first.train.trackers.0: `kind` is missing; one of: board, absent"),
        (
            "    train: {trackers: [absent]}",
            "r.yaml:6:24: stages.first.train.trackers.0: absent cannot be used here: No module named 'no_such_module_here'",
        ),
        (
            '    adapt: {rank: "8"}',
            "r.yaml:6:19: stages.first.adapt.rank: expected a whole number, got the text '8'; "
            "did you mean 8, without quotes or separators?",
        ),
        ("    adapt: 5", "r.yaml:6:12: stages.first.adapt: expected a name, or a mapping with `kind`, got the number 5"),
        ("    train: {compute: auto}", "r.yaml:6:13: stages.first.train.compute: unknown key; did you mean `compile`?"),
        ("    rank: 4", "r.yaml:6:5: stages.first.rank: unknown key; did you mean `stages.first.adapt.rank`?"),
        ("    Train: {}", "r.yaml:6:5: stages.first.Train: unknown key; did you mean `train`?"),
        (
            "    xyzzy: 1",
            "r.yaml:6:5: stages.first.xyzzy: unknown key; known here: parent, data, adapt, objective, train",
        ),
        (
            "      held_out: true",
            "r.yaml:6:17: stages.first.data.held_out: should be a share below 1, a whole number of rows, or a source of its own, got true",
        ),
        ("      held_out: 1.5", "r.yaml:6:17: stages.first.data.held_out: should be less than 1, got the number 1.5"),
        ("      held_out: {pth: x}", "r.yaml:6:18: stages.first.data.held_out.pth: unknown key; did you mean `path`?"),
        (
            "  base: {data: {sources: x}}",
            "r.yaml:6:3: stages.base: no stage can be called `base`: that is what `parent: base` means",
        ),
        ("    parent: first", "r.yaml:6:13: stages.first.parent: stages go in a circle: first → first"),
        (
            "      render: {prompt: x}",
            "r.yaml:6:7: stages.first.data.render: unknown key; did you mean `stages.first.data.sources.0.render` "
            "or `stages.first.data.held_out.render` or `stages.first.data.replay.source.render`?",
        ),
    ],
)
def test_one_mistake(mistakes, stage: str, line: str) -> None:
    assert mistakes(MINIMAL + stage + "\n") == [line]


def test_a_source_that_is_only_half_said(mistakes) -> None:
    [line] = mistakes("base: b\nstages: {s: {data: {sources: [{path: x, render: {prompt: y}}]}}}\n")
    assert line.startswith("r.yaml:2:49: stages.s.data.sources.0.render: needs `text`, or `prompt` with `completion`")


def test_files_that_are_no_recipe(mistakes, write, tmp_path) -> None:
    assert mistakes("- a\n") == ["r.yaml:1:1: a recipe is a mapping with `base` and `stages`; this is a list"]
    assert mistakes("name: x\n") == [
        "r.yaml:1:1: base: is missing: A hub id, a folder, a `.gguf` file, `package:module/file.gguf`, an artefact of this project, "
        "or a model to be born.",
        "r.yaml:1:1: stages: is missing: By name, in any order; parents come first.",
    ]
    assert "more than 1,000,000 characters" in mistakes("# " + "x" * 1_000_001)[0]


def test_bytes_that_are_no_text(write, tmp_path, mistakes) -> None:
    write("", "latin.yaml").write_bytes("base: b\nname: caf\xe9\n".encode("latin-1"))
    [line] = mistakes("extends: latin.yaml\n")
    assert line == "latin.yaml:2:10: the byte 0xe9 is not UTF-8 text; save the file as UTF-8"


def test_foreign_words_lead_to_keys_that_exist() -> None:
    from etude.catalog import TABLES as real

    known = {path for path, _ in keys_everywhere(Shape(model=Recipe), real)}
    top = {path[0] for path in known if len(path) == 1}
    assert len(FOREIGN) >= 60
    for word, foreign in FOREIGN.items():
        path = tuple(foreign.ours.split("."))
        assert foreign.ours or foreign.note, word
        assert not foreign.ours or (path if path[0] in top else ("stages", "*", *path)) in known, (word, foreign.ours)
        assert (*("stages", "*"), *path) not in known or path[-1] != word, f"{word} is our own key"
    names = {name for table in real.values() for name in table}
    assert not set(VALUES) & names


@pytest.mark.parametrize("word", sorted(FOREIGN))
def test_every_foreign_key_is_answered(mistakes, word: str) -> None:
    [line] = [line for line in mistakes(MINIMAL + f"{word}: 1\n") if f" {word}: " in line]
    foreign = FOREIGN[word]
    assert ("did you mean `" in line) == bool(foreign.ours) and foreign.note in line
    assert foreign.ours.rpartition(".")[2].replace("*", "0") in line


def test_the_small_catalog_is_enough_for_foreign_words() -> None:
    assert {"adaptation", "objective", "schedule", "optimizer", "metric", "tracker"} == set(TABLES)
