"""From a name to a model that runs: a base, or an artefact with everything it stands on."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from etude.adaptation.contract import Attached
from etude.adaptation.reload import is_adapter, reattach
from etude.compose.voice import Voice
from etude.errors import LineageError
from etude.lineage.fingerprint import fingerprint_folder
from etude.lineage.record import Parent, Record
from etude.lineage.store import Store
from etude.model import attention
from etude.model.load import load


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A model with its tokenizer, ready to compute."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stop_ids: frozenset[int]
    parent: Parent
    """What a child's record says it came from."""
    base: str
    """Fingerprint of the base at the root."""
    attached: Attached | None
    """The artefact's adapter, where it is one; can be switched off."""


def open_model(
    reference: str, store: Store, *, dtype: torch.dtype, device: torch.device, voice: Voice, merge: bool = False
) -> Opened:
    """Load `name`, `name@version` or anything that `model.load` takes, on its base, by the layers that trained it.

    Args:
        merge: melt the artefact's own adapter into its base, as the parent of a further stage. It is merged in float32 and then
            converted to `dtype`.

    Raises:
        LineageError, ModelError: what is missing, and the remedy.
    """
    record = _record(reference, store)
    if record is None:
        return _open_base(reference, store, dtype, device, voice)
    folder = store.folder(record)
    if not is_adapter(folder):
        loaded = load(str(folder), dtype=dtype, device=device, bases=store.bases, attention=attention.NAME, say=voice.say)
        parent = Parent(kind="artefact", reference=record.reference, fingerprint=record.fingerprint)
        return Opened(loaded.model, loaded.tokenizer, loaded.stop_ids, parent, record.fingerprints.base, None)
    if record.parent is None:
        raise LineageError(f"{record.reference} is an adapter whose record names no parent", "run its stage again")
    voice.say(f"{record.reference} stands on {record.parent.reference}")
    under = open_model(record.parent.reference, store, dtype=torch.float32 if merge else dtype, device=device, voice=voice, merge=True)
    if under.parent.fingerprint != record.parent.fingerprint:
        raise LineageError(
            f"{record.reference} was trained on {record.parent.reference} as it was; its weights have changed since",
            "bring the former base back, or run the stage again",
        )
    attached: Attached | None = reattach(under.model, folder)
    model = under.model
    if merge:
        model = attached.merged().to(dtype)  # type: ignore[union-attr]
        attached = None
    parent = Parent(kind="artefact", reference=record.reference, fingerprint=record.fingerprint)
    return Opened(model.eval(), under.tokenizer, under.stop_ids, parent, under.base, attached)


def _record(reference: str, store: Store) -> Record | None:
    """The artefact of that name; None where it is a hub id, a file or a folder."""
    if "/" in reference or ":" in reference or reference.endswith(".gguf") or Path(reference).exists():
        return None
    return store.resolve(reference)


def _open_base(reference: str, store: Store, dtype: torch.dtype, device: torch.device, voice: Voice) -> Opened:
    loaded = load(reference, dtype=dtype, device=device, bases=store.bases, attention=attention.NAME, say=voice.say)
    fingerprint = fingerprint_folder(loaded.folder, store.index)
    parent = Parent(kind="base", reference=reference, fingerprint=fingerprint)
    return Opened(loaded.model, loaded.tokenizer, loaded.stop_ids, parent, fingerprint, None)
