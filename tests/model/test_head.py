"""The head in chunks against full logits and torch's own log_softmax: values, and gradients of states, weight and bias."""

from dataclasses import astuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig

from etude.model.head import CHUNK, Shape, all_readings, log_probabilities

HIDDEN, VOCABULARY = 24, 61
SHAPES = {
    "plain": Shape(),
    "scaled": Shape(scale=0.3),
    "capped": Shape(softcap=2.0),
    "scaled and capped": Shape(scale=0.7, softcap=1.5),
}
COUNTS = [1, CHUNK, 2 * CHUNK + 44]


class Wrapped(nn.Linear):
    """A head that is not a plain linear layer, as an adapter or a quantised one would be."""


def made(kind: str, bias: bool, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(1)
    head = (Wrapped if kind == "by module" else nn.Linear)(HIDDEN, VOCABULARY, bias=bias, dtype=dtype)
    nn.init.normal_(head.weight, std=0.5)
    return head.requires_grad_(kind != "frozen")


def inputs(count: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(2)
    return torch.randn(count, HIDDEN, dtype=dtype), torch.randint(0, VOCABULARY, (count,)), torch.randn(count)


def truth(hidden: Tensor, head: nn.Linear, target: Tensor, shape: Shape, coefficients: Tensor) -> list[Tensor]:
    """Full logits in float64: log-probabilities and the gradients of Σ coefficient · log p."""
    h, w = hidden.detach().double().requires_grad_(), head.weight.detach().double().requires_grad_()
    b = None if head.bias is None else head.bias.detach().double().requires_grad_()
    logits = F.linear(h, w, b) * shape.scale
    if shape.softcap is not None:
        logits = shape.softcap * torch.tanh(logits / shape.softcap)
    scores = torch.log_softmax(logits, -1).gather(-1, target[:, None])[:, 0]
    wanted = [x for x in (h, w, b) if x is not None]
    return [scores.detach(), *torch.autograd.grad((coefficients.double() * scores).sum(), wanted)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", ["frozen", "known", "again", "by module"])
def test_float32(kind, shape, bias, count):
    head = made(kind, bias)
    hidden, target, coefficients = inputs(count)
    states = hidden.requires_grad_()
    scores = log_probabilities(states, head, target, shape, coefficients if kind == "known" else None)
    assert scores.dtype == torch.float32
    (3 * coefficients * scores).sum().backward()  # the common factor is not part of the coefficients
    found = [scores.detach(), states.grad / 3, *([] if kind == "frozen" else [p.grad / 3 for p in head.parameters()])]
    expected = truth(hidden, head, target, shape, coefficients)
    for mine, wanted in zip(found, expected, strict=False):
        assert (mine.double() - wanted).abs().max() < 2e-6 * max(1.0, float(wanted.abs().max()))
    if kind == "frozen":
        assert all(p.grad is None for p in head.parameters())


@pytest.mark.parametrize("kind", ["frozen", "known", "again"])
def test_bfloat16_states_with_a_float32_master(kind):
    """Matrices are multiplied in bfloat16, log-softmax and the sum of the head's gradients are in float32."""
    head = made(kind, bias=True)
    hidden, target, coefficients = inputs(2 * CHUNK + 44, torch.bfloat16)
    states = hidden.requires_grad_()
    scores = log_probabilities(states, head, target, Shape(), coefficients if kind == "known" else None)
    (coefficients * scores).sum().backward()
    expected = truth(hidden, head, target, Shape(), coefficients)
    assert scores.dtype == torch.float32 and states.grad.dtype == torch.bfloat16
    assert (scores - expected[0]).abs().max() < 0.1
    found = [states.grad, *([] if kind == "frozen" else [head.weight.grad, head.bias.grad])]
    for mine, wanted in zip(found, expected[1:], strict=False):
        assert float((mine.double() - wanted).norm() / wanted.norm()) < 1e-2
    if kind != "frozen":
        assert head.weight.grad.dtype == torch.float32
        assert not torch.equal(head.weight.grad, head.weight.grad.bfloat16().float()), "chunks are summed in float32"


@pytest.mark.parametrize("kind", ["frozen", "known", "again", "by module"])
def test_without_gradient(kind):
    head = made(kind, bias=True)
    hidden, target, coefficients = inputs(CHUNK + 3)
    with torch.no_grad():
        scores = log_probabilities(hidden, head, target, Shape(0.5), coefficients)
    assert not scores.requires_grad
    assert torch.allclose(scores.double(), truth(hidden, head, target, Shape(0.5), coefficients)[0], atol=2e-6)


def test_a_loss_other_than_promised_is_refused():
    head = made("known", bias=False)
    hidden, target, coefficients = inputs(20)
    scores = log_probabilities(hidden.requires_grad_(), head, target, Shape(), coefficients.abs())
    with pytest.raises(RuntimeError):
        (coefficients.abs() * scores.exp()).sum().backward()


def test_no_predictions_are_no_gradient():
    for kind in ("frozen", "known", "again", "by module"):
        head = made(kind, bias=True)
        hidden, target, coefficients = inputs(0)
        states = hidden.requires_grad_()
        log_probabilities(states, head, target, Shape(), coefficients if kind == "known" else None).sum().backward()
        assert states.grad.shape == (0, HIDDEN)
        assert all(p.grad is None or not p.grad.any() for p in head.parameters())


@pytest.mark.parametrize("kind", ["frozen", "known", "again"])
def test_logits_of_no_more_than_a_chunk_exist_at_once(kind, monkeypatch):
    seen = []
    plain = F.linear
    monkeypatch.setattr(F, "linear", lambda h, w, b: (seen.append(len(h)), plain(h, w, b))[1])
    head = made(kind, bias=False)
    hidden, target, coefficients = inputs(5 * CHUNK)
    log_probabilities(hidden.requires_grad_(), head, target, Shape(), coefficients if kind == "known" else None)
    assert seen == [CHUNK] * 5


def test_what_models_do_to_their_logits_is_read_off_their_configuration():
    assert astuple(Shape.of(LlamaConfig())) == (1.0, None)
    assert astuple(Shape.of(CohereConfig(logit_scale=0.25))) == (0.25, None)
    assert astuple(Shape.of(GraniteConfig(logits_scaling=8.0))) == (0.125, None)
    assert astuple(Shape.of(Gemma2Config(final_logit_softcapping=30.0))) == (1.0, 30.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", ["frozen", "trained", "by module"])
def test_all_readings(kind, shape, bias, count, dtype):
    """Log-probability, log-sum-exp and mean of the logits, each with a gradient of its own, against full logits in float64."""
    head = made(kind, bias, dtype)
    hidden, target, one = inputs(count, dtype)
    two, three = (torch.randn(count, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4))
    states = hidden.requires_grad_()
    found = all_readings(states, head, target, shape)
    assert all(x.dtype == torch.float32 and x.shape == (count,) for x in found)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(found, all_readings(states, head, target, shape), strict=True))
    h, w = hidden.detach().double().requires_grad_(), head.weight.detach().double().requires_grad_()
    b = None if head.bias is None else head.bias.detach().double().requires_grad_()
    logits = F.linear(h, w, b) * shape.scale
    logits = logits if shape.softcap is None else shape.softcap * torch.tanh(logits / shape.softcap)
    expected = [torch.log_softmax(logits, -1).gather(-1, target[:, None])[:, 0], logits.logsumexp(-1), logits.mean(-1)]
    close = 1e-5 if dtype == torch.float32 else 3e-2
    for mine, wanted in zip(found, expected, strict=True):
        assert (mine.double() - wanted).norm() <= close * wanted.norm()
    learns = [states, *(p for p in (head.weight, head.bias) if p is not None and p.requires_grad)]
    gradients = torch.autograd.grad((one * found[0] + two * found[1] + three * found[2]).sum(), learns)
    total = (one.double() * expected[0] + two.double() * expected[1] + three.double() * expected[2]).sum()
    for mine, wanted in zip(gradients, torch.autograd.grad(total, [h, w, b][: len(learns)]), strict=True):
        assert (mine.double() - wanted).norm() <= close * wanted.norm()
