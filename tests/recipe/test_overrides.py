"""`path.to.key=value` behind the file's name."""

import pytest
from conftest import MINIMAL


def test_values_are_yaml_and_types_hold(loaded) -> None:
    recipe = loaded(
        MINIMAL,
        "stages.first.train.learning_rate=1e-4",
        "stages.first.train.clip=",
        "stages.first.data.sources.0.path=x.jsonl",
        "stages.first.data.sources.0.columns={a: b}",
        "stages.first.data.sources.1=y.jsonl",
        "stages.first.adapt=full",
        "evaluate.metrics=[accuracy]",
        "name=on",
        "stages.second={parent: first, data: {sources: z}}",
        "stages.second.data.held_out=0.5",
        "stages.second.data.held_out=5",
    ).recipe
    first = recipe.stages["first"]
    assert (first.train.learning_rate, first.train.clip, first.adapt.kind, recipe.name) == (1e-4, None, "full", "on")
    assert [source.path.rpartition("/")[2] for source in first.data.sources] == ["x.jsonl", "y.jsonl"]
    assert first.data.sources[0].columns == {"a": "b"}
    assert recipe.evaluate.metrics[0].kind == "accuracy"
    assert recipe.stages["second"].data.held_out == 5


def test_options_belong_to_their_kind(loaded) -> None:
    text = MINIMAL + "    adapt: {kind: lora, rank: 4}\n    objective: dpo\n"
    assert loaded(text, "stages.first.adapt.kind=full").recipe.stages["first"].adapt.kind == "full"
    kept = loaded(text, "stages.first.adapt.kind=lora", "stages.first.adapt.alpha=2", "stages.first.objective.beta=0.3").recipe.stages[
        "first"
    ]
    assert (kept.adapt.rank, kept.adapt.alpha, kept.objective.beta) == (4, 2.0, 0.3)
    assert loaded(MINIMAL, "stages.first.adapt.rank=3").recipe.stages["first"].adapt.rank == 3


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("stages.first.train.learnin_rate=1", "override: stages.first.train.learnin_rate: unknown key; did you mean `learning_rate`?"),
        ("learning_rate=1", "override: learning_rate: unknown key; did you mean `stages.first.train.learning_rate`?"),
        ("stages.frist.train.steps=1", "override: stages.frist.train.steps: there is no `frist` here; did you mean `first`?"),
        ("stages.first.train.steps=many", "override: stages.first.train.steps: expected a whole number, got the text 'many'"),
        (
            "stages.first.data.sources.7.path=x",
            "override: stages.first.data.sources.7.path: a list of 1 has no place '7': 0 is the first, 1 appends",
        ),
        ("base.x=1", "override: base.x: `base` is a single value and has no keys to set; set it as a whole"),
        ("stages", "override: 'stages' should be `path.to.key=value`, such as `evaluate.rows=100`"),
        ("a..b=1", "override: 'a..b=1' should be `path.to.key=value`, such as `evaluate.rows=100`"),
        ("extends=x.yaml", "override: extends: is read from files alone; name the other file in the recipe"),
        ("name={{", "override: name: not valid YAML: expected the node content, but found '<stream end>', while parsing a flow node"),
        ("name=!!int 5", "override: name: tags such as !!int are not read; write the value plainly"),
    ],
)
def test_mistakes_in_overrides(mistakes, override: str, line: str) -> None:
    assert line in mistakes(MINIMAL, override)


def test_an_override_can_mend_and_references_follow_it(loaded) -> None:
    text = MINIMAL + "    train: {steps: x, seed: '${evaluate.rows}'}\nevaluate: {rows: 3}\n"
    train = loaded(text, "stages.first.train.steps=2", "evaluate.rows=9").recipe.stages["first"].train
    assert (train.steps, train.seed) == (2, 9)
