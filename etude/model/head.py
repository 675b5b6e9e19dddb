"""Hidden states → log-probabilities of the targets, in chunks: no [T, vocabulary] tensor ever exists.

Four ways, all exact, chosen by what is trained and what is read:
- frozen head: d log p / d h is computed together with log p, so the backward pass needs no logits at all;
- trained head under an objective whose coefficients are known: both gradients are computed in the forward pass;
- trained head otherwise: the logits are computed again;
- more than log-probabilities is read: the same, for all readings together.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK = 256
"""Predictions whose logits exist at once, in the compute type."""
_SLICE = 8
"""Of these, predictions whose logits exist in float32 on a processor: few enough to stay in its cache from the softmax to the gradient."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What a model does to its logits after the head: `cap(scale * (h Wᵀ + bias))`."""

    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, config: object) -> "Shape":
        """Read off a transformers config, by the names its models use."""
        scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
        return cls(scale, getattr(config, "final_logit_softcapping", None))

    def apply(self, logits: Tensor) -> Tensor:
        """What the model does to the head's output: [n, vocabulary] to the same."""
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def chain_(self, gradient: Tensor, logits: Tensor | None) -> Tensor:
        """d loss / d (h Wᵀ + bias) from d loss / d logits, in place; `logits` are needed only under a soft-cap."""
        if self.softcap is not None:
            assert logits is not None
            gradient.mul_(1 - (logits / self.softcap).square_())
        return gradient.mul_(self.scale) if self.scale != 1.0 else gradient


def log_probabilities(hidden: Tensor, head: nn.Module, target: Tensor, shape: Shape, coefficients: Tensor | None = None) -> Tensor:
    """[N] log-probability of each target, float32, differentiable in `hidden` and in the head where it is trained.

    Args:
        hidden: [N, hidden size], the states that predict.
        target: [N] token ids.
        coefficients: [N] d loss / d log-probability up to one common factor, where the objective knows it beforehand.
    """
    if type(head) is not nn.Linear:  # an adapted or quantised head: through its own forward
        return _by_module(hidden, head, target, shape)
    weight, bias = head.weight, head.bias
    if not torch.is_grad_enabled():
        weight, bias = _like(hidden, weight, bias)
        return torch.cat([_read(h, weight, bias, t, shape) for h, t in _chunks(hidden, target)])
    if not head.weight.requires_grad and (bias is None or not bias.requires_grad):
        return _Frozen.apply(hidden, weight, bias, target, shape)  # type: ignore[return-value]
    if coefficients is not None:
        return _Known.apply(hidden, weight, bias, target, coefficients, shape)  # type: ignore[return-value]
    return _Again.apply(hidden, weight, bias, target, shape)  # type: ignore[return-value]


def all_readings(hidden: Tensor, head: nn.Module, target: Tensor, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """[N] each: log-probabilities of the targets, log-sum-exp and mean of the logits; float32, differentiable as `log_probabilities`."""
    if type(head) is nn.Linear:
        return _All.apply(hidden, head.weight, head.bias, target, shape)  # type: ignore[return-value]

    def some(h: Tensor, t: Tensor) -> Tensor:
        logits = shape.apply(head(h).float())
        total = logits.logsumexp(-1)
        return torch.stack((logits.gather(-1, t[:, None])[:, 0] - total, total, logits.mean(-1)))

    again = torch.is_grad_enabled()
    found = [checkpoint(some, h, t, use_reentrant=False) if again else some(h, t) for h, t in _chunks(hidden, target)]
    log_probability, log_sum_exp, mean = torch.cat(found, 1)
    return log_probability, log_sum_exp, mean


def _like(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The head in the type that computes; float32 masters stay outside, so that their gradients are not rounded on the way."""
    return weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)


def _chunks(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*(x.split(CHUNK) for x in tensors), strict=True))


def _slices(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Parts of a chunk; a GPU takes it whole."""
    size = _SLICE if tensors[0].device.type == "cpu" else CHUNK
    return list(zip(*(x.split(size) for x in tensors), strict=True))


def _read(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, shape: Shape) -> Tensor:
    """[n] log-probabilities."""
    product = F.linear(hidden, weight, bias)  # [n, vocabulary]
    scores = [torch.log_softmax(shape.apply(p.float()), -1).gather(-1, t[:, None])[:, 0] for p, t in _slices(product, target)]
    return torch.cat(scores)


def _read_with_gradient(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, shape: Shape, coefficients: Tensor
) -> tuple[Tensor, Tensor]:
    """[n] log-probabilities; [n, vocabulary] d Σ coefficient · log p / d (h Wᵀ + bias), in the compute type."""
    product = F.linear(hidden, weight, bias)
    scores = []
    for p, t, c in _slices(product, target[:, None], coefficients[:, None]):
        logits = shape.apply(p.float())
        found = torch.log_softmax(logits, -1)
        scores.append(found.gather(-1, t)[:, 0])
        gradient = found.exp_().mul_(-c).scatter_add_(1, t, c)  # c (one-hot − softmax)
        p.copy_(shape.chain_(gradient, logits))
    return torch.cat(scores), product


def _by_module(hidden: Tensor, head: nn.Module, target: Tensor, shape: Shape) -> Tensor:
    def one(h: Tensor, t: Tensor) -> Tensor:
        logits = shape.apply(head(h).float())
        return torch.log_softmax(logits, -1).gather(-1, t[:, None])[:, 0]

    if not torch.is_grad_enabled():
        return torch.cat([one(h, t) for h, t in _chunks(hidden, target)])
    return torch.cat([checkpoint(one, h, t, use_reentrant=False) for h, t in _chunks(hidden, target)])


class _Frozen(torch.autograd.Function):
    """The unit gradient d log p / d h = W[target] - softmax · W comes with the forward pass."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, shape: Shape) -> Tensor:
        weight, bias = _like(hidden, weight, bias)
        unit, one = torch.empty_like(hidden), torch.ones(len(target), device=hidden.device)
        scores = []
        for (h, t, c), out in zip(_chunks(hidden, target, one), unit.split(CHUNK), strict=True):
            score, gradient = _read_with_gradient(h, weight, bias, t, shape, c)
            torch.mm(gradient, weight, out=out)
            scores.append(score)
        ctx.save_for_backward(unit)
        return torch.cat(scores)

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[override]
        (unit,) = ctx.saved_tensors
        return unit * gradient[:, None].to(unit.dtype), None, None, None, None


def _zeros(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Room for the gradients of states and head; the head's are summed in float32."""
    d_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
    return torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32), d_bias


def _accumulate(gradient: Tensor, hidden: Tensor, d_weight: Tensor, d_bias: Tensor | None) -> None:
    """Add a chunk's share to the head's gradients, which are kept in float32."""
    d_weight += (gradient.T @ hidden).float() if d_weight.dtype != hidden.dtype else gradient.T @ hidden
    if d_bias is not None:
        d_bias += gradient.sum(0).float()


class _Known(torch.autograd.Function):
    """Coefficients known: gradients of Σ coefficient · log p with respect to states and head come with the forward pass."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, coefficients: Tensor, shape: Shape) -> Tensor:
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        d_hidden, d_weight, d_bias = _zeros(hidden, weight, bias)
        weight, bias = _like(hidden, weight, bias)
        scores = []
        for (h, t, c), out in zip(_chunks(hidden, target, coefficients), d_hidden.split(CHUNK), strict=True):
            score, gradient = _read_with_gradient(h, weight, bias, t, shape, c)
            torch.mm(gradient, weight, out=out)
            _accumulate(gradient, h, d_weight, d_bias)
            scores.append(score)
        ctx.save_for_backward(d_hidden, d_weight, coefficients, *([] if d_bias is None else [d_bias]))
        return torch.cat(scores)

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[override]
        d_hidden, d_weight, coefficients, *d_bias = ctx.saved_tensors
        # The loss was promised to be `factor * Σ coefficient · log p`; a loss that is anything else stops here.
        factor = (gradient * coefficients).sum() / coefficients.square().sum().clamp_min(torch.finfo(torch.float32).tiny)
        largest = F.pad(gradient.abs(), (0, 1)).max()  # of a row without predictions: 0
        torch._assert_async(((gradient - factor * coefficients).abs() <= 1e-4 * largest).all())
        scaled = [(factor * x).to(dtype) for x, dtype in zip((d_hidden, d_weight, *d_bias), ctx.dtypes, strict=False)]
        return scaled[0], scaled[1], scaled[2] if d_bias else None, None, None, None


class _Again(torch.autograd.Function):
    """Coefficients unknown: the logits are computed again from the states, once these are known."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, shape: Shape) -> Tensor:
        compute = _like(hidden, weight, bias)
        ctx.save_for_backward(hidden, weight, target, *([] if bias is None else [bias]))
        ctx.shape = shape
        return torch.cat([_read(h, *compute, t, shape) for h, t in _chunks(hidden, target)])

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[override]
        hidden, weight, target, *rest = ctx.saved_tensors
        bias = rest[0] if rest else None
        d_hidden, d_weight, d_bias = _zeros(hidden, weight, bias)
        w, b = _like(hidden, weight, bias)
        for (h, t, g), out in zip(_chunks(hidden, target, gradient), d_hidden.split(CHUNK), strict=True):
            _, chunk = _read_with_gradient(h, w, b, t, ctx.shape, g)
            torch.mm(chunk, w, out=out)
            _accumulate(chunk, h, d_weight, d_bias)
        return d_hidden, d_weight.to(weight.dtype), None if bias is None or d_bias is None else d_bias.to(bias.dtype), None, None


class _All(torch.autograd.Function):
    """Log-probability, log-sum-exp and mean logit; the logits are computed again once all three gradients are known."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(hidden, weight, target, *([] if bias is None else [bias]))
        ctx.shape = shape
        w, b = _like(hidden, weight, bias)
        chosen, total, mean = [], [], []
        for h, t in _chunks(hidden, target):
            for part, place in _slices(F.linear(h, w, b), t):
                logits = shape.apply(part.float())
                total.append(logits.logsumexp(-1))
                chosen.append(logits.gather(-1, place[:, None])[:, 0] - total[-1])
                mean.append(logits.mean(-1))
        return torch.cat(chosen), torch.cat(total), torch.cat(mean)

    @staticmethod
    def backward(ctx, of_chosen: Tensor, of_total: Tensor, of_mean: Tensor):  # type: ignore[override]
        hidden, weight, target, *rest = ctx.saved_tensors
        bias, shape = rest[0] if rest else None, ctx.shape
        learns = ctx.needs_input_grad[1]
        d_hidden, d_weight, d_bias = _zeros(hidden, weight, bias) if learns else (torch.empty_like(hidden), None, None)
        w, b = _like(hidden, weight, bias)
        chunks = _chunks(hidden, target, of_chosen, of_total, of_mean)
        for (h, *others), out in zip(chunks, d_hidden.split(CHUNK), strict=True):
            product = F.linear(h, w, b)
            for part, t, chosen, total, mean in _slices(product, *(x[:, None] for x in others)):
                logits = shape.apply(part.float())
                gradient = logits.softmax(-1).mul_(total - chosen).add_(mean / logits.shape[-1]).scatter_add_(1, t, chosen)
                part.copy_(shape.chain_(gradient, logits))
            torch.mm(product, w, out=out)
            if d_weight is not None:
                _accumulate(product, h, d_weight, d_bias)
        if d_weight is None:
            return d_hidden, None, None, None, None
        return d_hidden, d_weight.to(weight.dtype), None if bias is None or d_bias is None else d_bias.to(bias.dtype), None, None
