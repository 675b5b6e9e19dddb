"""AdamW over float32 masters, in groups, with a state that can be written as plain named tensors."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType

import torch
from torch import Tensor, nn

from etude.errors import TrainingError
from etude.recipe.schema import Train


def make_optimizer(
    trainable: Mapping[str, nn.Parameter], train: Train, learning_rate: float, rates: Mapping[str, float] = MappingProxyType({})
) -> torch.optim.AdamW:
    """Matrices decay, biases and norms never do. https://arxiv.org/abs/1711.05101

    Args:
        rates: by what the adaptation multiplies the learning rate of a parameter; the recipe's `rates` come on top.

    Raises:
        TrainingError: a pattern of the recipe's `rates` fits no parameter.
    """
    factors = _factors(trainable, train, rates)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in trainable.items():
        groups.setdefault((factors[name], parameter.dim() >= 2), []).append(parameter)
    options = [
        {"params": chosen, "weight_decay": train.weight_decay if decays else 0.0, "factor": factor}
        for (factor, decays), chosen in sorted(groups.items(), key=lambda group: group[0], reverse=True)
    ]
    optimizer = torch.optim.AdamW(options, betas=(train.beta1, train.beta2), eps=train.epsilon, fused=True)
    set_rate(optimizer, learning_rate)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let every group learn at `rate`, or its own multiple of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def _factors(trainable: Mapping[str, nn.Parameter], train: Train, rates: Mapping[str, float]) -> dict[str, float]:
    factors = {name: rates.get(name, 1.0) for name in trainable}
    for pattern, factor in train.rates.items():
        chosen = [name for name in trainable if fnmatchcase(name, pattern)]
        if not chosen:
            some = ", ".join(list(trainable)[:3])
            raise TrainingError(f"train.rates: {pattern!r} fits no parameter that is trained", f"their names look like {some}, …")
        for name in chosen:
            factors[name] *= factor
    return factors


def optimizer_tensors(optimizer: torch.optim.Optimizer, trainable: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The optimizer's state as `parameter name/state name` → tensor; empty before the first step."""
    return {f"{name}/{key}": torch.as_tensor(value) for name, p in trainable.items() for key, value in optimizer.state.get(p, {}).items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, trainable: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`; each tensor goes where its parameter lies, `step` stays where the optimizer keeps it."""
    for path, tensor in tensors.items():
        name, key = path.rsplit("/", 1)
        p = trainable[name]
        optimizer.state[p][key] = tensor.clone().to(p.device)
