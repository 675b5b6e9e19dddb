"""The forest against each sample alone, by definition: paths, visibility, predictions, weights."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.core.sample import Example, Sample
from etude.data.order import Order, shuffled
from etude.data.rows import Cut, rows_of
from etude.data.trees import forest_of


def sample(tokens, weight=None, role=""):
    weight = np.ones(len(tokens)) if weight is None else np.asarray(weight)
    weight = weight.astype(np.float32)
    weight[0] = 0
    return Sample(np.asarray(tokens, dtype=np.int32), weight, role)


# Few distinct tokens, so that beginnings are often shared and samples often begin, equal or continue each other.
paths = st.lists(st.integers(0, 2), min_size=1, max_size=14)
weights = st.sampled_from([0.0, 0.5, 1.0, 2.0])
weighted = paths.flatmap(lambda path: st.tuples(st.just(path), st.lists(weights, min_size=len(path), max_size=len(path))))
samples = st.lists(weighted, min_size=1, max_size=9)
sources = st.lists(st.tuples(st.integers(1, 30), st.floats(0.0005, 10)), min_size=1, max_size=4)


def visible(forest):
    """[T, T] by the one formula of the design."""
    t = torch.arange(len(forest.tokens))
    return (t[None] <= t[:, None]) & (t[:, None] < forest.end[None])


def check(forest, wanted):
    see = visible(forest)
    for i, one in enumerate(wanted):
        path = see[forest.leaf[i]].nonzero()[:, 0]
        assert forest.tokens[path].tolist() == one.tokens.tolist()
        assert forest.position[path].tolist() == list(range(len(one)))
        # Every prediction of the sample, with its weight, from the token before it on its own path.
        mine = forest.member_sample == i
        held = zip(forest.member_prediction[mine], forest.member_weight[mine], strict=True)
        at = {int(forest.position[forest.source[p]]) + 1: (int(p), float(w)) for p, w in held}
        assert sorted(at) == np.flatnonzero(one.weight).tolist()
        for place, (p, weight) in at.items():
            assert weight == one.weight[place]
            assert int(forest.target[p]) == one.tokens[place]
            assert int(forest.source[p]) == int(path[place - 1])
    assert forest.logical_tokens == sum(map(len, wanted))
    for node in forest.nodes:
        assert node.start < node.stop <= node.end
        assert forest.end[node.start : node.stop].unique().tolist() == [node.end]


@settings(max_examples=300, deadline=None)
@given(samples, st.integers(1, 6), st.booleans())
def test_every_path_of_the_forest_is_its_sample(raw, minimum, share):
    wanted = [sample(tokens, weight) for tokens, weight in raw]
    forest = forest_of(wanted, range(len(wanted)), minimum_shared=minimum, share=share)
    check(forest, wanted)
    assert share or forest.single_paths
    distinct = {tuple(s.tokens[:k].tolist()) for s in wanted for k in range(1, len(s) + 1)}
    if share and minimum == 1:
        assert forest.computed_tokens == len(distinct), "with no minimum, each distinct beginning is computed exactly once"


@settings(max_examples=200, deadline=None)
@given(st.lists(samples, min_size=1, max_size=6), st.integers(8, 40), st.integers(1, 5), st.sampled_from(["forest", "padded"]))
def test_rows_hold_every_sample_once_and_keep_examples_whole(raw, capacity, minimum, layout):
    examples = [Example(tuple(sample(t, w, role=f"r{j}") for j, (t, w) in enumerate(one)), "s", i + 1) for i, one in enumerate(raw)]
    rows = rows_of(examples, Cut(capacity, minimum, layout))
    seen = [number for row in rows for number in dict.fromkeys(row.example)]
    assert sorted(seen) == list(range(len(examples))), "each example lies in exactly one row"
    for row in rows:
        chosen = [s for i in sorted(set(row.example)) for s in examples[i].samples]
        check(row, chosen)
        size = row.computed_tokens if layout == "forest" else row.samples * row.longest_path
        assert size <= capacity or len(set(row.example)) == 1


def test_a_tree_larger_than_a_row_is_cut_and_its_root_repeated():
    root = list(range(100, 150))
    examples = [Example((sample([*root, i, i, i, i, i]),), "s", i) for i in range(40)]
    rows = rows_of(examples, Cut(100, 16))
    assert [row.computed_tokens for row in rows] == [100] * 4
    assert all(row.tokens[:50].tolist() == root for row in rows)


def test_a_prediction_shared_by_two_samples_is_computed_once_and_belongs_to_both():
    forest = forest_of([sample([1, 2, 3, 4], role="chosen"), sample([1, 2, 3, 5], [0, 1, 2, 1], role="rejected")], [0, 0])
    assert forest.computed_tokens == 5 and len(forest.target) == 4 and len(forest.member_sample) == 6
    values = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    assert sorted(forest.per_sample(values).tolist()) == [111.0, 1021.0]
    assert forest.per_sample(values)[0] == 111.0
    assert forest.samples_with("rejected").tolist() == [1]


def test_order_is_a_bijection_each_lap_and_differs_between_laps():
    for size in (1, 2, 3, 7, 100, 1000):
        laps = [[shuffled(i, size, (3, 0, lap)) for i in range(size)] for lap in range(2)]
        assert all(sorted(lap) == list(range(size)) for lap in laps)
    assert laps[0] != laps[1]
    moved = np.corrcoef(np.arange(1000), laps[0])[0, 1]
    assert abs(moved) < 0.1


@given(sources, st.integers(0, 99), st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_order_does_not_depend_on_how_it_is_read_and_keeps_its_shares(sources, seed, cuts):
    order = Order(tuple(n for n, _ in sources), tuple(w for _, w in sources), seed)
    whole, end = order.draw(order.start(), sum(cuts))
    state, parts = order.start(), []
    for count in cuts:
        part, state = order.draw(state, count)
        parts += part
    assert parts == whole and state == end
    shares = np.array(order.weights) / sum(order.weights)
    assert np.all(np.array(end) - shares * sum(cuts) < 1 + 1e-9), "never a whole example ahead of its share"
    for j, (size, _) in enumerate(sources):
        laps = [i for s, i in whole if s == j]
        assert all(sorted(laps[k : k + size]) == list(range(size)) for k in range(0, len(laps) - size + 1, size))
