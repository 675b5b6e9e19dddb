"""The forest kernels against one dense masked softmax, in float64, over random forests: values and every gradient."""

from itertools import pairwise

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import varlen

from etude.core.forest import Forest
from etude.data.trees import forest_of
from etude.model.attention import ForestAttention, attention
from etude.model.by_node import by_node
from etude.model.flex import block_mask, flex
from etude.model.lines import along_lines, serves
from etude.model.merge import LONG, calls_of, merge

HEADS, KEY_HEADS = 4, 2


def visible(forest: Forest, window: int | None = None) -> Tensor:
    """[T, T] by the one formula: q sees k exactly where k ≤ q < end[k], and with a window fewer than that many positions back."""
    at = torch.arange(len(forest.tokens))
    seen = (at[None] <= at[:, None]) & (at[:, None] < forest.end[None])
    return seen if window is None else seen & (forest.position[:, None] - forest.position[None] < window)


def dense(query, key, value, seen, scale, softcap=None, sinks=None) -> Tensor:
    """Softmax attention with everything written out: [1, H, T, D] → [1, T, H, E]."""
    key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], 1) for x in (key, value))
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~seen, float("-inf")).exp()
    rest = 0 if sinks is None else sinks.exp()[None, :, None]
    return torch.einsum("bhqk,bhke->bqhe", weights / (weights.sum(-1) + rest)[..., None], value)


def tensors(length: int, size: int, value_size: int, dtype: torch.dtype, heads: int = HEADS, key_heads: int = KEY_HEADS) -> list[Tensor]:
    torch.manual_seed(length)
    shapes = ((heads, size), (key_heads, size), (key_heads, value_size))
    return [torch.randn(1, h, length, d, dtype=dtype, requires_grad=True) for h, d in shapes]


def with_gradients(out: Tensor, *inputs: Tensor) -> list[Tensor]:
    """The output and the gradients of a loss that weighs each of its entries differently."""
    towards = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out).cos()
    return [out.detach(), *torch.autograd.grad((out * towards).sum(), inputs)]


def agree(found: list[Tensor], expected: list[Tensor], within: float) -> None:
    for mine, truth in zip(found, expected, strict=True):
        assert mine.shape == truth.shape
        assert (mine.double() - truth).abs().max() <= within * max(1.0, float(truth.abs().max()))


forests = st.builds(
    lambda paths, minimum: forest_of([tiny.sample(path) for path in paths], range(len(paths)), minimum_shared=minimum),
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=14), min_size=1, max_size=9),
    st.integers(1, 4),
)
windows = st.one_of(st.none(), st.integers(1, 12))


@settings(max_examples=100)
@given(forests, st.sampled_from([(4, 4), (4, 2), (4, 1), (3, 3)]))
def test_the_merge_is_the_dense_softmax(forest, heads):
    q, k, v = tensors(len(forest.tokens), 8, 8, torch.float32, *heads)
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected = with_gradients(dense(*wide, visible(forest), 0.3), *wide)
    agree(with_gradients(merge(q, k, v, calls_of(forest.nodes), 0.3), q, k, v), expected, 2e-6)


@settings(max_examples=100)
@given(forests, windows, st.sampled_from([None, 1.5]), st.booleans(), st.sampled_from([8, 5]))
def test_node_by_node_is_the_dense_softmax(forest, window, softcap, has_sinks, value_size):
    q, k, v = tensors(len(forest.tokens), 8, value_size, torch.float64)
    sinks = torch.linspace(-1, 1, HEADS, dtype=torch.float64, requires_grad=True) if has_sinks else None
    inputs = (q, k, v) if sinks is None else (q, k, v, sinks)
    found = by_node(q, k, v, forest.nodes, 0.3, window=window, softcap=softcap, sinks=sinks)
    expected = dense(q, k, v, visible(forest, window), 0.3, softcap, sinks)
    # Written for float32 at most in its softmax, so that is how exact it is.
    agree(with_gradients(found, *inputs), with_gradients(expected, *inputs), 1e-6 if softcap or has_sinks else 1e-12)


@settings(max_examples=60)
@given(forests, windows, st.sampled_from([None, 1.5]), st.booleans(), st.sampled_from([(8, 8), (8, 5), (5, 8)]))
def test_what_transformers_calls_is_the_dense_softmax_and_names_what_was_slower(forest, window, softcap, has_sinks, sizes):
    q, k, v = tensors(len(forest.tokens), *sizes, torch.float32)
    sinks = torch.linspace(-1, 1, HEADS, requires_grad=True) if has_sinks else None
    along = ForestAttention.of(forest)
    found, _ = attention(torch.nn.Module(), q, k, v, None, forest=along, sliding_window=window, softcap=softcap, s_aux=sinks)
    inputs = [x for x in (q, k, v, sinks) if x is not None]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    truth = dense(*wide[:3], visible(forest, window), sizes[0] ** -0.5, softcap, wide[3] if has_sinks else None)
    agree(with_gradients(found, *inputs), with_gradients(truth, *wide), 5e-6)
    bites = window is not None and window < forest.longest_path
    wanted = {name for name, holds in (("sliding window", bites), ("soft-cap", softcap), ("sinks", has_sinks)) if holds}
    assert along.slower == wanted


def test_bfloat16_is_computed_in_float32_and_comes_back_as_it_was():
    forest = forest_of([tiny.sample([1, 2, 3, 4]), tiny.sample([1, 2, 5])], [0, 1])
    q, k, v = (x.detach().bfloat16() for x in tensors(len(forest.tokens), 8, 8, torch.float32))
    found, _ = attention(torch.nn.Module(), q, k, v, None, forest=ForestAttention.of(forest))
    expected = dense(q.double(), k.double(), v.double(), visible(forest), 8**-0.5)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16()) or (found.double() - expected).abs().max() <= expected.abs().max() * 2**-8


@pytest.mark.parametrize("length", [LONG // 4, LONG + 100], ids=["short", "long"])
def test_bfloat16_gradients_round_once_and_in_long_calls_as_the_kernel_does(length):
    beginning = torch.arange(length).tolist()
    forest = forest_of([tiny.sample([*beginning, last, *beginning]) for last in (5, 6)], [0, 1])
    short = [x.detach().bfloat16().requires_grad_() for x in tensors(len(forest.tokens), 16, 16, torch.float32)]
    wide = [x.detach().double().requires_grad_() for x in short]
    expected = with_gradients(dense(*wide, visible(forest), 0.25), *wide)
    found = with_gradients(merge(*short, calls_of(forest.nodes), 0.25), *short)
    assert all(x.dtype == torch.bfloat16 for x in found)
    errors = [float((x.double() - truth).norm() / truth.norm()) for x, truth in zip(found, expected, strict=True)]
    assert max(errors) < (4e-3 if length < LONG else 1.2e-2)  # the towards-weights are rounded too


def test_dropout_in_attention_is_refused_on_a_forest():
    forest = forest_of([tiny.sample([1, 2])], [0])
    with pytest.raises(NotImplementedError, match="dropout"):
        attention(torch.nn.Module(), *tensors(2, 8, 8, torch.float32), None, dropout=0.1, forest=ForestAttention.of(forest))


def long_forest(seed: int) -> Forest:
    """Several blocks of 128: trees and lone paths of 3 to 260 tokens."""
    draw = torch.Generator().manual_seed(seed)

    def words(low: int, high: int) -> list[int]:
        return torch.randint(3, 99, (int(torch.randint(low, high, (), generator=draw)),), generator=draw).tolist()

    samples = []
    for _ in range(3):
        beginning, middle = words(1, 200), words(1, 60)
        samples += [tiny.sample([*beginning, *words(1, 60)]) for _ in range(3)]
        samples += [tiny.sample([*beginning, *middle, *words(1, 60)]) for _ in range(2)]
        samples.append(tiny.sample(words(3, 200)))
    return forest_of(samples, range(len(samples)), minimum_shared=1)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("window", [None, 1, 40, 130, 300])
@pytest.mark.parametrize("block", [16, 128])
def test_a_block_mask_shows_just_what_is_visible(seed, window, block):
    forest = long_forest(seed)
    length = len(forest.tokens)
    assert length > 3 * 128
    mask = block_mask(forest.position, forest.end, window, block)
    at = torch.arange(length)
    allowed = mask.mask_mod(torch.tensor(0), torch.tensor(0), at[:, None], at[None])
    seen = torch.zeros(length, length, dtype=torch.bool)
    count = -(-length // block)
    for row in range(count):
        rows = slice(row * block, (row + 1) * block)
        for number, indices, is_full in (
            (mask.kv_num_blocks[0, 0, row], mask.kv_indices[0, 0, row], False),
            (mask.full_kv_num_blocks[0, 0, row], mask.full_kv_indices[0, 0, row], True),
        ):
            for column in indices[:number].tolist():
                columns = slice(column * block, (column + 1) * block)
                assert not seen[rows, columns].any(), "each block is listed once"
                seen[rows, columns] = True if is_full else allowed[rows, columns]
    assert torch.equal(seen, visible(forest, window))
    if window is None and block == 16:
        assert mask.full_kv_num_blocks.sum() > 0 and mask.to_dense().float().mean() < 0.5, "much is skipped, some needs no mask"


@pytest.mark.parametrize(("window", "softcap", "has_sinks"), [(None, None, False), (40, None, False), (None, 1.5, False), (40, 1.5, True)])
def test_flex_is_the_dense_softmax(window, softcap, has_sinks):
    """Forward alone: flex has no backward pass on a CPU."""
    forest = long_forest(0)
    q, k, v = (x.detach() for x in tensors(len(forest.tokens), 16, 16, torch.float32))
    sinks = torch.linspace(-1, 1, HEADS) if has_sinks else None
    found = flex(q, k, v, block_mask(forest.position, forest.end, window), 0.3, softcap=softcap, sinks=sinks)
    expected = dense(q.double(), k.double(), v.double(), visible(forest, window), 0.3, softcap, sinks)
    agree([found], [expected], 2e-6)


def by_line(q, k, v, cu_q, cu_k, longest_q, longest_k, *, scale, window_size, enable_gqa=False):
    """What torch documents of its kernel for a GPU, in plain operations: [T, heads, D] each, lines from edge to edge."""
    assert torch.equal(cu_q, cu_k) and cu_q.dtype == torch.int32 and longest_q == longest_k == int(cu_q.diff().max())
    assert enable_gqa == (k.shape[1] != q.shape[1]), "heads are shared only where that is asked for"
    left, right = window_size
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    found = []
    for a, b in pairwise(cu_q.tolist()):
        back = torch.arange(b - a)[:, None] - torch.arange(b - a)[None]
        seen = (back >= -right) & ((back <= left) | (left < 0))
        weights = (torch.einsum("qhd,khd->hqk", q[a:b], k[a:b]) * scale).masked_fill(~seen, -torch.inf).softmax(-1)
        found.append(torch.einsum("hqk,khd->qhd", weights, v[a:b]))
    return torch.cat(found)


def by_line_of_old(q, k, v, cu_q, cu_k, longest_q, longest_k, *, scale, window_size):
    return by_line(q, k, v, cu_q, cu_k, longest_q, longest_k, scale=scale, window_size=window_size)


@pytest.mark.parametrize("kernel", [by_line, by_line_of_old])
@pytest.mark.parametrize("window", [None, 3])
def test_lines_on_a_gpu_are_handed_over_as_the_kernel_reads_them(monkeypatch, kernel, window):
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    forest = forest_of([tiny.sample([1, 2, 3, 4, 5]), tiny.sample([7, 8]), tiny.sample([9, 8, 7, 6, 5, 4])], range(3), share=False)
    query, key, value = tensors(len(forest.tokens), 16, 16, torch.float64)
    edges = ForestAttention.of(forest).edges()
    out = along_lines(query, key, value, edges, forest.longest_path, 0.3, window)
    expected = dense(query, key, value, visible(forest, window), 0.3)
    agree(with_gradients(out, query, key, value), with_gradients(expected, query, key, value), 1e-12)


def test_the_kernel_for_lines_is_taken_only_where_it_is_right():
    lines = forest_of([tiny.sample([1, 2, 3]), tiny.sample([7, 8])], range(2))
    branches = forest_of([tiny.sample([1, 2, 3, 4]), tiny.sample([1, 2, 3, 5])], range(2))
    half = torch.zeros(1, 2, 5, 64, dtype=torch.bfloat16)
    assert serves(half, half, lines)
    assert not serves(half, half, branches), "branches"
    assert not serves(half.float(), half.float(), lines), "float32"
    assert not serves(half, half[..., :32], lines), "two head sizes"
    assert not serves(half[..., :60], half[..., :60], lines), "a head size that the kernel does not know"
