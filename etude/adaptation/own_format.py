"""Where peft has no format, ours: `adaptation.json` with the kind and its options, `adaptation.safetensors` with what was learnt.

Tensors have the names of the model's parameters while the adaptation is on it.
"""

import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from etude.adaptation.contract import Adaptation, Attached
from etude.adaptation.peft_adapter import misfit
from etude.errors import ModelError

OPTIONS, TENSORS = "adaptation.json", "adaptation.safetensors"


class OwnAdaptation(Adaptation):
    """An adaptation that is saved so."""

    @classmethod
    def reads(cls, folder: Path, peft_type: str | None) -> bool:
        return (folder / OPTIONS).is_file() and json.loads((folder / OPTIONS).read_text()).get("kind") == cls.kind

    @classmethod
    def reload(cls, model: PreTrainedModel, folder: Path) -> Attached:
        options = json.loads((folder / OPTIONS).read_text())
        del options["kind"]
        try:
            attached = cls.model_validate(options).attach(model, seed=0)
            tensors = load_file(folder / TENSORS)
        except (ValidationError, SafetensorError, OSError) as problem:
            raise ModelError(f"{folder}: the adapter cannot be read: {str(problem).splitlines()[0]}", "make it again") from problem
        shapes = {name: p.shape for name, p in attached.trainable.items()}
        if odd := sorted({name for name, _ in shapes.items() ^ {name: tensor.shape for name, tensor in tensors.items()}.items()}):
            raise misfit(folder, odd[0])
        with torch.no_grad():
            for name, parameter in attached.trainable.items():
                parameter.copy_(tensors[name])
        return attached


def save(folder: Path, adaptation: Adaptation, attached: Attached) -> None:
    """Write options and tensors; the folder exists."""
    (folder / OPTIONS).write_text(json.dumps(adaptation.model_dump(), indent=1) + "\n")
    save_file({name: p.detach().contiguous() for name, p in attached.trainable.items()}, folder / TENSORS)
