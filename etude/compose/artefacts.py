"""From a name to a model that runs: a base, or an artefact with everything it stands on."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from etude.adaptation.contract import Attached
from etude.adaptation.reload import is_adapter, reattach, virtual_tokens
from etude.compose.newborn import SCHEME, outline_of, use_class_of
from etude.compose.voice import Voice
from etude.core.scores import Outputs
from etude.errors import LineageError, ModelError
from etude.lineage.fingerprint import fingerprint_folder
from etude.lineage.record import Parent, Record
from etude.lineage.store import Store
from etude.model import attention
from etude.model.load import load
from etude.model.outline import Outline, outline
from etude.model.outputs import described_outputs, reload_outputs
from etude.model.shelving import held_types


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A model by its name, before any weights are read: enough to render data for it and to know what a stage on it would be."""

    outline: Outline
    """Of the whole model at the bottom; adapters change neither tokenizer nor configuration."""
    adapters: tuple[Path, ...]
    """Folders of the adapters on it, the lowest first."""
    parent: Parent
    """What a child's record says it came from."""
    base: str
    """Fingerprint of the base at the root."""

    @property
    def folder(self) -> Path:
        """Its own: the uppermost adapter's, or the whole model's."""
        return self.adapters[-1] if self.adapters else self.outline.folder

    @property
    def outputs(self) -> tuple[str, Outputs] | None:
        """The objective that trained its linear head, and what that says; None where it has none."""
        return described_outputs(self.folder)

    @property
    def virtual_tokens(self) -> int:
        """Places of the context that its own adapter takes before every text."""
        return virtual_tokens(self.folder)


@dataclass(frozen=True, slots=True)
class Melted:
    """An adapter that became weights, and what that changed."""

    into: str
    difference: float
    """Largest of a log-probability, in nats, before whatever is melted is converted."""

    @property
    def sentence(self) -> str:
        """For people."""
        return f"melted into {self.into}; log-probabilities move by at most {self.difference:.1e} nats"


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A model with its tokenizer, ready to compute."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stop_ids: frozenset[int]
    parent: Parent
    """What a child's record says it came from."""
    attached: Attached | None
    """The artefact's adapter, where it is one; can be switched off."""
    outputs: tuple[str, Outputs] | None = None
    """The objective that trained its linear head, and what that says; None where it has none."""
    melted: tuple[Melted, ...] = ()
    """Adapters that became weights, the lowest first."""


def asking(name: str, outputs: tuple[str, Outputs] | None) -> str:
    """How a user asks a model: by a command, or from Python where it scores and writes nothing."""
    if outputs is None or outputs[1].at != "leaf":
        return f"etude chat {name}"
    return f'etude.load("{name}").{"score(prompt, answer)" if outputs[0] == "reward" else "classify(prompt)"}'


def look_up(reference: str, store: Store, voice: Voice) -> Known:
    """Find `name`, `name@version` or anything that `model.outline` takes, and all that it stands on.

    Raises:
        LineageError, ModelError: what is missing, and the remedy.
    """
    record = _record(reference, store)
    if record is None:
        base = _base(reference, store, voice)
        fingerprint = fingerprint_folder(base.folder, store.index)
        return Known(base, (), Parent(kind="base", reference=base.reference, fingerprint=fingerprint), fingerprint)
    folder = store.folder(record)
    use_class_of(record, store)
    parent = Parent(kind="artefact", reference=record.reference, fingerprint=record.fingerprint)
    if not is_adapter(folder):
        return Known(outline(str(folder), bases=store.bases, say=voice.say), (), parent, record.fingerprints.base)
    if record.parent is None:
        raise LineageError(f"{record.reference} is an adapter whose record names no parent", "run its stage again")
    voice.say(f"{record.reference} stands on {record.parent.reference}")
    under = look_up(record.parent.reference, store, voice)
    if under.parent.fingerprint != record.parent.fingerprint:
        raise LineageError(
            f"{record.reference} was trained on {record.parent.reference} as it was; its weights have changed since",
            "bring the former base back, or run the stage again",
        )
    return Known(under.outline, (*under.adapters, folder), parent, under.base)


def look_at(reference: str, store: Store, voice: Voice) -> Outline:
    """How a model by its name reads text, without its weights: nothing is downloaded or converted but what describes it.

    Raises:
        LineageError, ModelError: what is missing, and the remedy.
    """
    record = _record(reference, store)
    if record is None:
        return _base(reference, store, voice, weights=False)
    folder = store.folder(record)
    use_class_of(record, store)
    if not is_adapter(folder):
        return outline(str(folder), bases=store.bases, say=voice.say, weights=False)
    if record.parent is None:
        raise LineageError(f"{record.reference} is an adapter whose record names no parent", "run its stage again")
    return look_at(record.parent.reference, store, voice)


def _base(reference: str, store: Store, voice: Voice, *, weights: bool = True) -> Outline:
    if reference.startswith(SCHEME):
        return outline_of(reference, store, voice)
    return outline(reference, bases=store.bases, say=voice.say, weights=weights)


def open_model(known: Known, store: Store, *, dtype: torch.dtype, device: torch.device, voice: Voice, merge: bool = False) -> Opened:
    """Read its weights, and put its adapters on by the layers that trained them.

    Args:
        merge: melt the uppermost adapter into what it stands on too, as the parent of a further stage. Whatever is melted is melted in
            float32 and then converted to `dtype`, so that a stage's parent is the same when its result is loaded.

    Raises:
        ModelError: a file is missing or does not fit.
    """
    melted, on_top = (known.adapters, None) if merge or not known.adapters else (known.adapters[:-1], known.adapters[-1])
    read_in = torch.float32 if melted else dtype
    loaded = load(known.outline, dtype=read_in, device=device, bases=store.bases, attention=attention.NAME, say=voice.say)
    model = loaded.model
    model, told = melt(model, melted)
    if melted:
        _convert(model, dtype)
    attached = reattach(model, on_top) if on_top is not None else None
    outputs = known.outputs if not merge else None
    if outputs is not None:
        reload_outputs(model, known.folder, outputs[1])
    return Opened(model.eval(), loaded.tokenizer, loaded.stop_ids, known.parent, attached, outputs, told)


def melt(model: PreTrainedModel, folders: Sequence[Path]) -> tuple[PreTrainedModel, tuple[Melted, ...]]:
    """Make weights of the adapters in these folders, one upon the other, and measure on a few tokens what that changes."""
    told = []
    for folder in folders:
        attached = reattach(model, folder)
        before = _log_probabilities(attached.model)
        model = attached.merged()
        told.append(Melted(attached.melts_into, float((_log_probabilities(model) - before).abs().max())))
    return model, tuple(told)


def _log_probabilities(model: PreTrainedModel) -> Tensor:
    """[tokens, vocabulary] of a row of random tokens, always the same."""
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.randint(vocabulary, (1, 24), generator=torch.Generator().manual_seed(0)).to(model.device)
    training = model.training
    try:
        with torch.no_grad():
            return model.eval()(input_ids=tokens, use_cache=False).logits[0].float().log_softmax(-1)
    finally:
        model.train(training)


def _convert(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """The weights that transformers would load so, and they alone: `model.to` would round the rotary frequencies too."""
    types = held_types(model, dtype)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(types[id(parameter)])


def _record(reference: str, store: Store) -> Record | None:
    """The artefact of that name; None where it is a hub id, a file or a folder.

    Raises:
        ModelError: a bare name that is nothing here, with the nearest that are.
        LineageError: an artefact's version or alias that is not there.
    """
    if "/" in reference or ":" in reference:
        return None
    names = {record.name for record in store.records()}
    name = reference.partition("@")[0]
    if name in names:
        return store.resolve(reference)
    if Path(reference).exists():
        return None
    here = [entry.name for entry in Path.cwd().iterdir() if entry.is_dir() or entry.suffix == ".gguf"]
    near = get_close_matches(name, sorted({*names, *here}), n=3, cutoff=0.5)
    made = f"artefacts here: {', '.join(sorted(names)[:5])}" if names else "nothing was made here yet"
    raise ModelError(
        f"there is no model {reference!r}: no artefact of this project, no folder or file, and not a hub id (`owner/name`)",
        f"did you mean {' or '.join(near)}?" if near else f"{made}; bases are folders, .gguf files, hub ids, `package:module/file.gguf`",
    )
