"""A linear head beside the vocabulary's: what a reward, a class or a value is read with. It hangs on the model, in float32."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from etude.core.scores import Outputs
from etude.errors import ModelError

NAME = "score"
"""What transformers' own sequence classifiers call it."""
DESCRIPTION, APART = "head.json", "head.safetensors"


def put_outputs(model: PreTrainedModel, count: int) -> nn.Parameter:
    """Hang a newborn head on a model. It begins at zero: no answer is worth more than another, and every class is as likely.

    Returns:
        its weight, [count, hidden size] in float32, which asks for gradients.
    """
    size = model.config.get_text_config().hidden_size
    head = nn.Linear(size, count, bias=False, device=model.device, dtype=torch.float32)
    nn.init.zeros_(head.weight)
    setattr(model, NAME, head)
    assert isinstance(head.weight, nn.Parameter), "a linear layer holds its weight"
    return head.weight


def outputs_weight(model: PreTrainedModel) -> Tensor | None:
    """[outputs, hidden size] of the head that hangs on a model."""
    head = getattr(model, NAME, None)
    return head.weight if isinstance(head, nn.Linear) else None


def read_outputs(model: PreTrainedModel, states: Tensor) -> Tensor:
    """[n, hidden size] final states → [n, outputs], float32 whatever the states' type."""
    weight = outputs_weight(model)
    assert weight is not None, "a head is put on before it is read"
    return F.linear(states.float(), weight)


@contextmanager
def without_outputs(model: PreTrainedModel) -> Iterator[None]:
    """Within this nothing hangs on the model: for writing its own weights."""
    head = getattr(model, NAME)
    delattr(model, NAME)
    try:
        yield
    finally:
        setattr(model, NAME, head)


def describe_outputs(folder: Path, kind: str, outputs: Outputs) -> None:
    """Write beside the weights what the head says."""
    (folder / DESCRIPTION).write_text(json.dumps({"kind": kind, "labels": outputs.labels, "at": outputs.at}, indent=1) + "\n")


def described_outputs(folder: Path) -> tuple[str, Outputs] | None:
    """The objective that trained a folder's head, and what it says; None where there is none.

    Raises:
        ModelError: its description cannot be read.
    """
    if not (folder / DESCRIPTION).is_file():
        return None
    try:
        found = json.loads((folder / DESCRIPTION).read_text())
        return found["kind"], Outputs(tuple(found["labels"]), found["at"])
    except (ValueError, KeyError, TypeError) as problem:
        raise ModelError(f"{folder / DESCRIPTION} cannot be read: {problem}", "make the artefact again") from problem


def only_scores(folder: Path) -> bool:
    """Whether a folder's head has taken the place of the vocabulary's, so that nothing can be written with it."""
    found = described_outputs(folder)
    return found is not None and found[1].at == "leaf"


def reload_outputs(model: PreTrainedModel, folder: Path, outputs: Outputs) -> None:
    """Hang the head saved in `folder` on its model, at rest.

    Raises:
        ModelError: it is not there, or of another size.
    """
    weight = put_outputs(model, len(outputs.labels)).requires_grad_(False)
    for file in (folder / APART, *sorted(folder.glob("*.safetensors"))):
        if not file.is_file():
            continue
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 (no iterator)
                if f".{key}".endswith(f".{NAME}.weight") and tuple(tensors.get_slice(key).get_shape()) == tuple(weight.shape):
                    weight.data.copy_(tensors.get_tensor(key))
                    return
    raise ModelError(f"{folder}: there is no head of {len(outputs.labels)} outputs for this model", "make the artefact again")
