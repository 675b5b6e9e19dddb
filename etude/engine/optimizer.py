"""AdamW over float32 masters, in groups, with a state that can be written as plain named tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from etude.recipe.schema import Train


def make_optimizer(trainable: Mapping[str, nn.Parameter], train: Train, learning_rate: float) -> torch.optim.AdamW:
    """Matrices decay, biases and norms never do. https://arxiv.org/abs/1711.05101"""
    matrices = [p for p in trainable.values() if p.dim() >= 2]
    vectors = [p for p in trainable.values() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": train.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    betas = (train.beta1, train.beta2)
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=betas, eps=train.epsilon, fused=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer, trainable: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The optimizer's state as `parameter name/state name` → tensor; empty before the first step."""
    return {f"{name}/{key}": torch.as_tensor(value) for name, p in trainable.items() for key, value in optimizer.state.get(p, {}).items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, trainable: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`; each tensor goes where its parameter lies, `step` stays where the optimizer keeps it."""
    for path, tensor in tensors.items():
        name, key = path.rsplit("/", 1)
        p = trainable[name]
        optimizer.state[p][key] = tensor.clone().to(p.device)
