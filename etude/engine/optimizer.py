"""The optimizer over float32 masters, in groups, with a state that can be written as plain named tensors."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from etude.adaptation.contract import Attached
from etude.engine.decay import Anchors
from etude.engine.optimizers.contract import Group
from etude.errors import TrainingError
from etude.model.virtual import VirtualTokens
from etude.recipe.schema import Train


def make_optimizer(attached: Attached, train: Train, learning_rate: float, anchors: Anchors | None = None) -> torch.optim.Optimizer:
    """Only what may go to zero decays, newborn heads among it; each group learns at its own multiple of the rate.

    Args:
        anchors: what is pulled to its parent instead.

    Raises:
        TrainingError: a pattern of the recipe's `rates` fits no parameter.
    """
    factors, outer = _factors(attached, train), _outer(attached)
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in attached.trainable.items():
        born = name in attached.newborn  # at zero, so that decay leads there whatever else it is pulled to
        to_zero = born or (attached.decays(name) and (anchors is None or name not in anchors.origins))
        hidden = parameter.dim() == 2 and id(parameter) not in outer and not born
        groups.setdefault((factors[name], to_zero, hidden), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda group: group[0], reverse=True)
    optimizer = train.optimizer.build([Group(chosen, *key) for key, chosen in ordered], train)
    set_rate(optimizer, learning_rate)
    if anchors is not None:
        anchors.pull(optimizer)
    return optimizer


def _outer(attached: Attached) -> set[int]:
    """Embeddings, of places as of tokens, the head, wherever they are tied, and learnt virtual tokens: rows by themselves, no map."""
    model = attached.model
    rows = [module for module in model.modules() if isinstance(module, (nn.Embedding, VirtualTokens))]
    modules = (model.get_input_embeddings(), model.get_output_embeddings(), *rows)
    return {id(parameter) for module in modules if module is not None for parameter in module.parameters()}


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
    optimizer.state.clear()  # before the first step there is none, also where a run went back to there
    for path, tensor in tensors.items():
        name, key = path.rsplit("/", 1)
        p = trainable[name]
        optimizer.state[p][key] = tensor.clone().to(p.device)
