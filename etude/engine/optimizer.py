"""AdamW over float32 masters, in groups, with a state that can be written as plain named tensors."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from etude.adaptation.contract import Attached
from etude.engine.decay import Anchors
from etude.errors import TrainingError
from etude.recipe.schema import Train


def make_optimizer(attached: Attached, train: Train, learning_rate: float, anchors: Anchors | None = None) -> torch.optim.AdamW:
    """Only what may go to zero decays; each group learns at its own multiple of the rate. https://arxiv.org/abs/1711.05101

    Args:
        anchors: what is pulled to its parent instead.

    Raises:
        TrainingError: a pattern of the recipe's `rates` fits no parameter.
    """
    factors = _factors(attached, train)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in attached.trainable.items():
        to_zero = attached.decays(name) and (anchors is None or name not in anchors.origins)
        groups.setdefault((factors[name], to_zero), []).append(parameter)
    options = [
        {"params": chosen, "weight_decay": train.weight_decay if decays else 0.0, "factor": factor}
        for (factor, decays), chosen in sorted(groups.items(), key=lambda group: group[0], reverse=True)
    ]
    optimizer = torch.optim.AdamW(options, betas=(train.beta1, train.beta2), eps=train.epsilon, fused=True)
    set_rate(optimizer, learning_rate)
    if anchors is not None:
        anchors.pull(optimizer)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let every group learn at `rate`, or its own multiple of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def _factors(attached: Attached, train: Train) -> dict[str, float]:
    """By what the adaptation multiplies the rate of each parameter, and the recipe's `rates` on top."""
    factors = {name: attached.rates.get(name, 1.0) for name in attached.trainable}
    for pattern, factor in train.rates.items():
        chosen = [name for name in factors if fnmatchcase(name, pattern)]
        if not chosen:
            some = ", ".join(list(factors)[:3])
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
