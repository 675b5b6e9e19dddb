"""A base larger than memory: opened so that its blocks come and go, with what that costs said before it is paid, and counted after."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from etude.adaptation.contract import Attached
from etude.adaptation.reload import reattach
from etude.compose.artefacts import Known, Melted, Opened, look_up, melt, open_model
from etude.compose.begun import Setting
from etude.compose.voice import Voice
from etude.errors import ModelError
from etude.lineage.durable import size
from etude.model import attention
from etude.model.load import load
from etude.model.outputs import reload_outputs
from etude.model.pages import read_from_disk
from etude.model.shards import DiskShelf, HostShelf, Shelf, stored_type
from etude.model.shelving import shelve
from etude.model.streamed import Stream, stream_of
from etude.recipe.schema import Stage, Train


def open_parent(known: Known, stage: Stage, setting: Setting, compute: torch.dtype) -> Opened:
    """What a stage begins with, held as its adaptation wants it, or streamed."""
    if stage.train.placement.stream is not None:
        return open_streamed(known, stage, setting, compute)
    held = torch.float32 if stage.adapt.holds_masters else compute
    return open_model(known, setting.store, dtype=held, device=setting.device, voice=setting.voice, merge=True)


def open_streamed(known: Known, stage: Stage, setting: Setting, dtype: torch.dtype) -> Opened:
    """A stage's parent as `open_model` gives it, to the bit, but for where its blocks lie.

    Raises:
        ModelError: a file is missing or does not fit, it has no blocks that could be streamed, or no room for them.
    """
    where, voice, device = stage.train.placement.stream, setting.voice, setting.device
    if device.type == "cpu" and where == "host":
        voice.say("on a processor the host's memory is where it computes: `stream: host` saves nothing here, `stream: disk` does")
    folder = known.outline.folder
    lie = torch.float32 if known.adapters else stored_type(folder)
    if lie is None:
        voice.say(f"the weights in {folder.name} are of several types: they are read whole, once, before they are streamed")
    if known.adapters:
        voice.say(f"{known.parent.reference} is melted into its base before it is streamed, which takes all of it in memory, once")

    def place(model: PreTrainedModel) -> None:
        stream = shelve(model, lambda what, needed: _shelf(where, what, needed, known, setting), dtype=dtype, device=device)
        voice.say(_first_words(stream, where or ""))

    reading = {"bases": setting.store.bases, "attention": attention.NAME, "say": voice.say}
    loaded = load(known.outline, dtype=lie or dtype, device=torch.device("cpu"), **reading, place=None if known.adapters else place)
    told: tuple[Melted, ...] = ()
    model = loaded.model
    if known.adapters:
        model, told = melt(model, known.adapters)
        place(model.requires_grad_(False))
    return Opened(model.eval(), loaded.tokenizer, loaded.stop_ids, known.parent, None, melted=told)


def open_compared(known: Known, stage: Stage, setting: Setting, dtype: torch.dtype) -> Opened:
    """A side of a comparison as `open_model` gives it; where the stage streams its base, this one's is streamed too."""
    if stage.train.placement.stream is None:
        return open_model(known, setting.store, dtype=dtype, device=setting.device, voice=setting.voice)
    attached, under = None, known
    if known.adapters:
        stands_on = setting.store.resolve(known.parent.reference).parent
        assert stands_on is not None, "an adapter was looked up with all that it stands on"
        under = look_up(stands_on.reference, setting.store, Voice())
    opened = open_streamed(under, stage, setting, dtype)
    if known.adapters:
        attached = reattach(opened.model, known.folder)
        check_streamed(opened.model, attached)
    if known.outputs is not None:
        reload_outputs(opened.model, known.folder, known.outputs[1])
    return replace(opened, parent=known.parent, attached=attached, outputs=known.outputs)


def check_streamed(model: PreTrainedModel, attached: Attached) -> None:
    """Refuse an adaptation that trains what comes and goes, or was made of what was not there.

    Raises:
        ModelError: it does, or was.
    """
    if (stream := stream_of(model)) is None:
        return
    owners = {id(slot.owner) for slots in stream.slots for slot in slots}
    if trained := [name for name, p in attached.trainable.items() if id(p) in owners]:
        raise ModelError(f"{trained[0]} is a weight of the base, which is streamed and cannot be trained", "take `lora` or `qlora`")
    made = {**attached.trainable, **attached.origins, **dict(model.named_buffers())}
    if stream.copies and (blank := [name for name, tensor in made.items() if bool(torch.isnan(tensor).any())]):
        what = f"{blank[0]} was made of a weight of the base, which is streamed and was not there"
        raise ModelError(what, "take `lora` or `qlora`, or leave train.placement.stream out")


@contextmanager
def passes_told(stream: Stream | None, train: Train, voice: Voice) -> Iterator[None]:
    """What a pass over streamed weights costs before those that are made within this, and what they have cost after them."""
    if stream is None:
        yield
        return
    voice.say(what_a_pass_costs(stream, train))
    yield
    voice.say(what_passes_cost(stream))


def what_a_pass_costs(stream: Stream, train: Train) -> str:
    """In words: bytes, how fast they come here, and what is computed for them."""
    before = read_from_disk()
    seconds, after = stream.time_first(), read_from_disk()
    first = sum(slot.home.nbytes for slot in stream.slots[0])
    cached = before is not None and after is not None and after - before < first // 2
    speed = first / seconds
    source = "the system's cache" if cached else "its disk" if train.placement.stream == "disk" else "the host's memory"
    rows = f"each row of up to {train.tokens_per_row:,} tokens takes two, forward and backward: larger rows pay for fewer"
    return (
        f"a pass over the weights brings {size(stream.pass_bytes)}; the first block came at {speed / 1e6:,.0f} MB/s from {source}, "
        f"at which speed a pass takes {stream.pass_bytes / speed:,.1f} s; {rows}"
    )


def what_passes_cost(stream: Stream) -> str:
    """What was brought, counted."""
    passes = stream.visits / len(stream.blocks)
    return f"{passes:,.1f} passes over the weights brought {size(stream.bytes)}; the computation waited {stream.waited:,.1f} s for them"


def _first_words(stream: Stream, where: str) -> str:
    held = "copied to the device for the time it computes" if stream.copies else "computed with where it is mapped"
    blocks = f"{len(stream.blocks)} blocks of {size(stream.pass_bytes // len(stream.blocks))}"
    return f"streamed from {where}: {blocks}, each {held}; answers cost a pass for every token, so judging by likelihood alone is quicker"


def _shelf(where: str | None, what: str, needed: int, known: Known, setting: Setting) -> Shelf:
    """Called after the parent, as a converted GGUF file is, so that `etude clean` knows by what it is needed."""
    if where == "host":
        shelf: Shelf = HostShelf(setting.device.type == "cuda", needed)
    else:
        name = f"{Path(known.parent.reference).stem}-streamed-{known.parent.fingerprint[:12]}-{what}"
        shelf = DiskShelf(setting.store.bases / name, needed)
    shelf.working = _bar(setting.voice, f"weights to be streamed ({what})", needed)
    return shelf


@contextmanager
def _bar(voice: Voice, label: str, total: int) -> Iterator[Callable[[int], None]]:
    with voice.bar(label, total / 1e6, "MB") as advance:
        yield lambda done: advance(done / 1e6, "")
