"""`${path.to.key}`."""

import pytest
from conftest import MINIMAL

TWO = """\
name: lora
base: some/model
stages:
  first:
    data: {sources: rows.jsonl}
    train: {epochs: 3, compile: true, steps: '${evaluate.rows}', learning_rate: 2e-5}
  second:
    data: {sources: [{path: '${name}/${evaluate.rows}.jsonl', where: 'a ${stages.first.train.compile}'}]}
    train: ${stages.first.train}
    adapt: ${stages.third.adapt}
  third:
    data: ${stages.first.data}
    adapt: {kind: '${name}', rank: '${stages.first.train.steps}'}
evaluate: {rows: 7}
"""


def test_typed_where_alone_and_written_in_elsewhere(loaded) -> None:
    stages = loaded(TWO).recipe.stages
    assert stages["first"].train.steps == 7
    assert stages["second"].train == stages["first"].train
    assert stages["second"].data.sources[0].path.endswith("/lora/7.jsonl")
    assert stages["second"].data.sources[0].where == "a true"
    assert stages["second"].adapt == stages["third"].adapt and stages["third"].adapt.rank == 7
    assert stages["third"].data == stages["first"].data


def test_literals_and_jinja_stay(loaded) -> None:
    render = "{prompt: 'costs ${{ price }} or $${x} or $$${y} or $5', completion: a}"
    source = loaded(f"base: b\nstages: {{s: {{data: {{sources: {{path: p, render: {render}}}}}}}}}").recipe.stages["s"].data.sources[0]
    assert source.render.prompt == "costs ${{ price }} or ${x} or $${y} or $5"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("${train.lr}", "`${train.lr}`: the recipe has no `train` written in it (defaults cannot be referred to)"),
        ("${stages.first.train.epochz}", "did you mean `stages.first.train.epochs`?"),
        ("${stages.first.data.sources.4.path}", "`stages.first.data.sources` has no `4`"),
        ("${stages.first.train.steps}", "refers to itself: stages.first.train.steps → stages.first.train.steps"),
        ("${stages.first}", "refers to itself: stages.first → stages.first.train → stages.first.train.steps → stages.first"),
        ("${env:HOME}", "the environment is not read, so that a recipe says the same on every machine"),
        ("${oc.env:HOME,x}", "the environment is not read"),
        ("${HOME}", "the environment is not read"),
        ("${}", "a reference needs a name"),
        ("${open", "`${` without its `}`"),
        ("a ${stages.first.data}", "is a whole mapping or list and cannot stand inside a text"),
    ],
)
def test_what_cannot_be_resolved(mistakes, value: str, said: str) -> None:
    lines = mistakes(MINIMAL + f"    train: {{epochs: 2, steps: '{value}'}}\n")
    assert len(lines) == 1 and lines[0].startswith("r.yaml:6:31: stages.first.train.steps: ") and said in lines[0], lines


def test_a_longer_circle_names_its_chain_once(mistakes) -> None:
    lines = mistakes(MINIMAL + "    train: {steps: '${evaluate.rows}', seed: 1}\nevaluate: {rows: '${stages.first.train.steps}'}\n")
    assert lines == ["r.yaml:7:18: evaluate.rows: refers to itself: stages.first.train.steps → evaluate.rows → stages.first.train.steps"]


def test_a_wrong_value_is_reported_where_the_reference_stands(mistakes) -> None:
    assert mistakes("name: x\n" + MINIMAL + "    train: {steps: '${name}'}\n") == [
        "r.yaml:7:20: stages.first.train.steps: expected a whole number, got the text 'x'"
    ]


def test_references_cannot_blow_up(mistakes) -> None:
    doubling = "".join(
        f", c{i + 1}: '${{stages.first.data.sources.0.columns.c{i}}}${{stages.first.data.sources.0.columns.c{i}}}'" for i in range(40)
    )
    text = f"base: b\nstages: {{first: {{data: {{sources: [{{path: p, columns: {{c0: aaaaaaaaaa{doubling}}}}}]}}}}}}"
    assert any("longer than 100,000 characters" in line for line in mistakes(text))
