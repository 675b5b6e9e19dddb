"""Where peft has no format, ours: `adaptation.json` with the kind and its options, `adaptation.safetensors` with what was learnt.

Tensors have the names of the model's parameters while the adaptation is on it.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from etude import catalog
from etude.adaptation.contract import Adaptation, Attached
from etude.errors import ModelError

OPTIONS, TENSORS = "adaptation.json", "adaptation.safetensors"


def is_ours(folder: Path) -> bool:
    """Whether `folder` holds an adapter in this format."""
    return (folder / OPTIONS).is_file()


def save(folder: Path, adaptation: Adaptation, attached: Attached) -> None:
    """Write options and tensors; the folder exists."""
    (folder / OPTIONS).write_text(json.dumps(adaptation.model_dump(), indent=1) + "\n")
    save_file({name: p.detach().contiguous() for name, p in attached.trainable.items()}, folder / TENSORS)


def reattach(model: PreTrainedModel, folder: Path) -> Attached:
    """Put a newborn adaptation of the same options on the model and give it what was learnt.

    Raises:
        ModelError: the tensors are not those that this model would have.
    """
    options = json.loads((folder / OPTIONS).read_text())
    adaptation = catalog.find("adaptation", options.pop("kind")).model_validate(options)
    attached = adaptation.attach(model, seed=0)
    tensors = load_file(folder / TENSORS)
    shapes = {name: p.shape for name, p in attached.trainable.items()}
    if odd := sorted(shapes.items() ^ {name: tensor.shape for name, tensor in tensors.items()}.items()):
        raise ModelError(
            f"{folder}: the adapter does not fit this model ({odd[0][0]} among others)", "load it on the base it was trained on"
        )
    with torch.no_grad():
        for name, parameter in attached.trainable.items():
            parameter.copy_(tensors[name])
    return attached
