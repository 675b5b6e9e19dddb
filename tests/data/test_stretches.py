"""A text that stands alone is divided, so that some of it can be held out; steps are counted in tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.order import Order
from etude.data.prepare import prepare, training_texts
from etude.data.stretches import SHORTEST, stretched
from etude.model.vocabulary.bpe import BytePairs
from etude.recipe.data import Data


@given(st.lists(st.text("ab \n", min_size=0, max_size=3000), max_size=20), st.booleans())
def test_stretches_are_the_text_without_gaps_in_its_order(pieces, with_lines):
    text = ("\n" if with_lines else " ").join(pieces)
    at = 0
    for stretch in stretched(text):
        assert stretch
        at = text.index(stretch, at) + len(stretch)
    assert len("".join(stretched(text))) >= 0.5 * len(text)
    if len(text) <= SHORTEST:
        assert stretched(text) == ([text] if text else [])


@pytest.fixture
def novel(tmp_path):
    path = tmp_path / "novel.txt"
    path.write_text("".join(f"Line {i} of a long story about {'cats' if i % 3 else 'dogs'}.\n" for i in range(2000)))
    return path


def test_a_lone_text_is_held_out_in_stretches(novel):
    data = Data.model_validate({"sources": [str(novel)], "context": 64, "held_out": 0.2})
    texts = training_texts(data, 0)
    tokenizer = BytePairs(size=300).learn(iter(texts))
    found = prepare(data, tokenizer, roles=(), stop_ids=frozenset({tokenizer.eos_token_id}), seed=0)
    counts = found.counts.sources[0]
    assert counts.stretches == counts.read == counts.training + counts.held_out and counts.held_out == round(0.2 * counts.read)
    assert any("divided into" in note and "left out" in note for note in counts.notes)
    # The tokenizer saw what is trained on, and nothing of what is held out.
    whole = lambda examples: {(one.row, tokenizer.decode(one.samples[0].tokens, skip_special_tokens=True)) for one in examples}
    learnt = "".join(text for _, text in sorted(whole(found.train[0][1])))
    assert len(texts) == counts.training and not {one.row for one in found.held_out} & {one.row for one in found.train[0][1]}
    assert all(text[:40] in learnt for text in texts)
    assert not any(tokenizer.decode(one.samples[0].tokens[:30]) in text for one in found.held_out[:20] for text in texts)


def test_nothing_is_divided_where_nothing_is_held_out(novel):
    data = Data.model_validate({"sources": [str(novel)], "context": 64, "held_out": 0})
    assert training_texts(data, 0) == [novel.read_text()]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 200), st.integers(0, 5))
def test_a_step_is_as_near_to_its_tokens_as_whole_examples_come(lengths, tokens, seed):
    order = Order((len(lengths),), (1.0,), seed)
    drawn, seen = order.start(), []
    for _ in range(5):
        places, drawn = order.draw_tokens(drawn, tokens, lambda _source, index: lengths[index])
        sizes = [lengths[index] for _, index in places]
        assert len(sizes) == 1 or sum(sizes) - tokens <= sizes[-1] / 2
        seen += places
    assert seen == order.draw(order.start(), len(seen))[0], "the same order, cut by another measure"


@pytest.mark.parametrize("mark", [" ", "-"])
def test_a_long_line_has_its_gap_too(mark):
    """Between words, and wherever there are none; what stands on its own line before it is no stretch."""
    line = mark.join(f"word{i}" for i in range(600))
    text = "\n".join(["Title", line, line, line]) + "\n"
    found = stretched(text)
    assert len(found) == 3 and len(text) - sum(map(len, found)) >= 2 * 200
    for stretch in found[:-1]:
        rest = text[text.index(stretch) + len(stretch) :]
        assert len(stretch) > 3000 and rest.index("\n") >= 199
        assert mark == "-" or stretch.endswith(" ")
