"""The engine against the file that newcomers read first: the same model, samples and options, the same ten losses."""

import ast
from pathlib import Path

import one_file
import pytest
import tiny
import torch

from etude.adaptation.full import Full
from etude.data.rows import Cut
from etude.engine.loop import fit
from etude.objective.next_token import NextToken

STEPS = 10
CUTS = {"one row": Cut(4096, 4), "small rows": Cut(60, 4), "nothing shared": Cut(100, 1000), "padded": Cut(200, 16, "padded")}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_the_engine_gives_its_losses_and_its_weights(tmp_path, cut):
    model = tiny.llama(vocab_size=64)
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    examples = tiny.some_examples(NextToken(), 48, vocabulary=64)
    how = one_file.Teaching()
    made = tiny.course(
        tmp_path,
        Full(),
        NextToken(),
        model=model,
        examples=examples,
        cut=cut,
        steps=STEPS,
        learning_rate=how.rate,
        schedule={"kind": "cosine", "warmup": how.warmup},
        weight_decay=how.decay,
        clip=how.clip,
    )
    order = made.course.order
    drawn, _ = order.draw(order.start(), STEPS * 8)
    samples = [examples[index].samples[0] for _, index in drawn]
    paths = [(torch.from_numpy(one.tokens).long(), torch.from_numpy(one.weight)) for one in samples]
    expected = list(one_file.teach(weights, one_file.Shape(), [paths[i : i + 8] for i in range(0, len(paths), 8)], how))
    fit(made.course)
    assert made.losses == pytest.approx(expected, abs=1e-5)
    assert expected[-1] < 0.8 * expected[0], "something was learnt"
    for name, p in made.attached.trainable.items():
        # Adam divides by what may be all but zero, so single weights may part by a little more than rounding.
        assert (p - weights[name]).norm() < 1e-3 * (p - tiny.llama(vocab_size=64).get_parameter(name)).norm(), name


def test_it_stands_alone_and_can_be_read_at_one_sitting():
    text = Path(one_file.__file__).read_text()
    assert len(text.splitlines()) <= 150
    nodes = list(ast.walk(ast.parse(text)))
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in imported} == {"math", "collections", "dataclasses", "torch"}
