"""A trained artefact back on its base, by the same arithmetic that trained it. Each adaptation knows its own files."""

import json
from pathlib import Path

from transformers import PreTrainedModel

from etude import catalog
from etude.adaptation.contract import Adaptation, Attached
from etude.errors import ModelError

_OF_PEFT, _OURS = "adapter_config.json", "adaptation.json"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter rather than a whole model."""
    return (folder / _OF_PEFT).is_file() or (folder / _OURS).is_file()


def virtual_tokens(folder: Path) -> int:
    """Places of the context that the adapter saved in a folder takes before every text."""
    file = folder / _OF_PEFT
    return (json.loads(file.read_text(encoding="utf-8")).get("num_virtual_tokens") or 0) if file.is_file() else 0


def reattach(model: PreTrainedModel, folder: Path) -> Attached:
    """Put the adapter saved in `folder` on its base model.

    Raises:
        ModelError: another kind of adapter, or one for another model.
    """
    kind = json.loads((folder / _OF_PEFT).read_text()).get("peft_type") if (folder / _OF_PEFT).is_file() else None
    known: list[type[Adaptation]] = [catalog.find("adaptation", name) for name in catalog.ADAPTATIONS]
    for adaptation in known:
        if adaptation.reads(folder, kind):
            return adaptation.reload(model, folder)
    types = sorted({str(found) for adaptation in known if (found := getattr(adaptation, "peft_type", None))})
    raise ModelError(f"{folder}: adapters of type {kind} cannot be loaded", f"of peft's types these can: {', '.join(types)}")
