"""Teaching a language model, whole, in plain PyTorch: what etude computes, written to be read.

A sample is a path of tokens with a weight on each: how much it counts that the model predicts it. Prompts weigh 0, answers 1; that is
all the difference between pre-training and fine-tuning. Here the model reads one sample at a time. etude reads them all at once,
shares what they have in common and never builds most of the logits; `test_one_file.py` holds it to these losses.

    python tests/reference/one_file.py      # teaches a tiny model to count by fives, in a few seconds
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Sample = tuple[Tensor, Tensor]  # tokens [L], weights [L]; the first weighs nothing, because nothing comes before it

# 1. The model: a Llama. Its weights are a dictionary with the names of Hugging Face's files.


@dataclass(frozen=True)
class Shape:
    vocabulary: int = 64
    hidden: int = 32
    inner: int = 48
    layers: int = 2
    heads: int = 4
    key_heads: int = 2  # several query heads read the same keys
    head_size: int = 8
    theta: float = 10_000.0
    epsilon: float = 1e-6


def logits(weights: dict[str, Tensor], shape: Shape, tokens: Tensor) -> Tensor:
    """[L] → [L, vocabulary]: at each place, how likely each token is to come next. The embedding is also the head."""
    x = weights["model.embed_tokens.weight"][tokens]  # [L, hidden]
    for layer in range(shape.layers):
        w = {name.split(".", 3)[3]: p for name, p in weights.items() if name.startswith(f"model.layers.{layer}.")}
        x = x + attention(normal(x, w["input_layernorm.weight"], shape), w, shape)
        x = x + thought(normal(x, w["post_attention_layernorm.weight"], shape), w)
    return normal(x, weights["model.norm.weight"], shape) @ weights["model.embed_tokens.weight"].T


def normal(x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
    """Every state at the same length."""
    return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + shape.epsilon)


def attention(x: Tensor, w: dict[str, Tensor], shape: Shape) -> Tensor:
    """Each place gathers what it finds in the places before it and in itself."""

    def heads(name: str, count: int) -> Tensor:  # [count, L, head size]
        return (x @ w[f"self_attn.{name}.weight"].T).view(len(x), count, shape.head_size).transpose(0, 1)

    query = rotated(heads("q_proj", shape.heads), shape)
    key, value = rotated(heads("k_proj", shape.key_heads), shape), heads("v_proj", shape.key_heads)
    key, value = (y.repeat_interleave(shape.heads // shape.key_heads, 0) for y in (key, value))
    future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    scores = (query @ key.transpose(1, 2) / math.sqrt(shape.head_size)).masked_fill(future, -math.inf)
    return (scores.softmax(-1) @ value).transpose(0, 1).flatten(1) @ w["self_attn.o_proj.weight"].T


def rotated(x: Tensor, shape: Shape) -> Tensor:
    """Coordinates turned by an angle that grows with the place, so that query · key depends on how far they are apart."""
    speed = shape.theta ** (-torch.arange(0, shape.head_size, 2) / shape.head_size)
    angle = torch.outer(torch.arange(x.shape[1]), speed)  # [L, head size / 2]
    a, b = x.chunk(2, -1)
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)


def thought(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """Each place by itself."""
    gate = torch.nn.functional.silu(x @ w["mlp.gate_proj.weight"].T)
    return (gate * (x @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T


# 2. The loss: a sum over tokens. It is divided once, by the weight of the whole step, so long samples count for more than short ones.


def surprise(weights: dict[str, Tensor], shape: Shape, sample: Sample) -> Tensor:
    """Σ weight · -log p(token | the tokens before it)."""
    tokens, weight = sample
    log_p = logits(weights, shape, tokens[:-1]).log_softmax(-1)  # [L - 1, vocabulary]
    return -(weight[1:] * log_p.gather(1, tokens[1:, None])[:, 0]).sum()


# 3. The step: gradients, clipped to a length, and AdamW (https://arxiv.org/abs/1711.05101) with a rate that rises and falls.


@dataclass(frozen=True)
class Teaching:
    rate: float = 1e-2
    warmup: int = 2
    decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip: float = 1.0


def cosine(step: int, steps: int, warmup: int) -> float:
    """The share of the rate at a step, counted from 0."""
    return (step + 1) / warmup if step < warmup else 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / (steps - warmup))


def teach(weights: dict[str, Tensor], shape: Shape, steps: Sequence[Sequence[Sample]], how: Teaching) -> Iterator[float]:
    """Change the weights in place, one step after another; yields each step's loss, as it was before the step."""
    mean, square = ({name: torch.zeros_like(p) for name, p in weights.items()} for _ in range(2))
    for number, samples in enumerate(steps):
        count = sum(float(weight.sum()) for _, weight in samples)
        loss, gradient = 0.0, {name: torch.zeros_like(p) for name, p in weights.items()}
        for sample in samples:
            part = surprise(weights, shape, sample) / count
            loss += part.item()
            for name, g in zip(weights, torch.autograd.grad(part, list(weights.values()))):
                gradient[name] += g
        length = math.sqrt(sum(float(g.square().sum()) for g in gradient.values()))
        rate = how.rate * cosine(number, len(steps), how.warmup)
        with torch.no_grad():
            for name, p in weights.items():
                g = gradient[name] * min(1.0, how.clip / length)
                mean[name] += (1 - how.beta1) * (g - mean[name])
                square[name] += (1 - how.beta2) * (g.square() - square[name])
                m, s = mean[name] / (1 - how.beta1 ** (number + 1)), square[name] / (1 - how.beta2 ** (number + 1))
                p -= rate * how.decay * p * (p.dim() >= 2)  # matrices decay, norms do not
                p -= rate * m / (s.sqrt() + how.epsilon)
        yield loss


def newborn(shape: Shape) -> dict[str, Tensor]:
    """Random matrices, and norms that change nothing yet."""
    hidden, wide, narrow = shape.hidden, shape.heads * shape.head_size, shape.key_heads * shape.head_size
    sizes = {"self_attn.q_proj": (wide, hidden), "self_attn.k_proj": (narrow, hidden), "self_attn.v_proj": (narrow, hidden)}
    sizes |= {"self_attn.o_proj": (hidden, wide), "mlp.gate_proj": (shape.inner, hidden), "mlp.up_proj": (shape.inner, hidden)}
    sizes |= {"mlp.down_proj": (hidden, shape.inner), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}
    sizes = {f"model.layers.{layer}.{name}": size for layer in range(shape.layers) for name, size in sizes.items()}
    sizes |= {"model.embed_tokens": (shape.vocabulary, hidden), "model.norm": (hidden,)}
    weights = {f"{name}.weight": torch.randn(size) * 0.2 if len(size) == 2 else torch.ones(size) for name, size in sizes.items()}
    return {name: p.requires_grad_() for name, p in weights.items()}


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a model is slower on several
    mine, weight = newborn(Shape()), (torch.arange(12) > 1).float()
    rows = [[((torch.arange(12) * 5 + torch.randint(64, ())) % 64, weight) for _ in range(8)] for _ in range(100)]
    for step, loss in enumerate(teach(mine, Shape(), rows, Teaching()), 1):
        print(f"step {step:3d}   loss {loss:.4f}")
    print("after 3, 8 comes", int(logits(mine, Shape(), torch.tensor([3, 8]))[-1].argmax()))
