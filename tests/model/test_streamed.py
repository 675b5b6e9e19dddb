"""A base whose blocks come and go computes what it computes when it stays: to the bit, forward and backward, from disk and host memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from two_processes import on_two

from etude.adaptation.lora import Lora
from etude.adaptation.qlora import QLora
from etude.data.rows import Cut
from etude.engine.loop import fit
from etude.errors import ModelError
from etude.model.blocks import first_blocks, stack_of
from etude.model.probe import choose_layout
from etude.model.shards import DiskShelf, HostShelf, fill, map_shard, stored_type, write_shard
from etude.model.shelving import shelve
from etude.model.streamed import stream_of
from etude.model.widened import widened
from etude.objective.next_token import NextToken

SIZES = dict(hidden_size=64, intermediate_size=128, head_dim=16, num_hidden_layers=4)
CPU = torch.device("cpu")
WAYS = [Lora(rank=4), Lora(rank=4, targets=["q_proj"]), QLora(rank=4), QLora(rank=4, targets=["down_proj"])]


def streamed(model, where: str, folder: Path, dtype: torch.dtype = torch.float32):
    """The model with its blocks on a shelf; what was in memory is not any more."""
    model.requires_grad_(False)
    shelves = lambda what, needed: DiskShelf(folder / what, needed) if where == "disk" else HostShelf(pinned=False)
    shelve(model, shelves, dtype=dtype, device=CPU)
    return model


def base(dtype: torch.dtype = torch.float32):
    return tiny.llama(**SIZES).to(dtype).requires_grad_(False)


def trained(folder: Path, adaptation, model, **train) -> tuple[list[float], dict[str, torch.Tensor]]:
    made = tiny.course(folder, adaptation, NextToken(), model=model, compute=model.dtype, cut=Cut(64), steps=4, **train)
    fit(made.course)
    return made.losses, {name: p.detach().clone() for name, p in made.attached.trainable.items()}


@pytest.mark.parametrize("where", ["disk", "host"])
@pytest.mark.parametrize("adaptation", WAYS, ids=repr)
@pytest.mark.parametrize("dtype, again", [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)], ids=str)
def test_streamed_is_resident_to_the_bit(where, adaptation, again, dtype, tmp_path):
    """Losses and weights of four steps, each of several rows."""
    results = []
    for name, model in (("resident", base(dtype)), ("streamed", streamed(base(dtype), where, tmp_path, dtype))):
        if again:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        results.append(trained(tmp_path / name, adaptation, model))
    (losses, weights), (their_losses, their_weights) = results
    assert losses == their_losses and losses[-1] < losses[0]
    assert weights.keys() == their_weights.keys()
    assert all(torch.equal(weights[name], their_weights[name]) for name in weights)


def resident_and_streamed(folder: Path) -> dict[str, torch.Tensor]:
    """Both, each trained by all processes together; both processes have the same folder for the shelf."""
    found = {}
    for name, model in (("resident", base()), ("streamed", streamed(base(), "disk", folder / "shelves"))):
        losses, weights = trained(folder / name, QLora(rank=4), model)
        found |= {f"{name}/{path}": tensor for path, tensor in weights.items()} | {f"{name}/losses": torch.tensor(losses)}
    return found


def test_two_processes_share_a_shelf(tmp_path):
    first, second = on_two(resident_and_streamed, tmp_path)
    names = [name.removeprefix("resident/") for name in first if name.startswith("resident/")]
    assert len(names) > 14
    for name in names:
        assert torch.equal(first[f"streamed/{name}"], first[f"resident/{name}"])
        assert torch.equal(first[f"streamed/{name}"], second[f"streamed/{name}"])
    assert sorted(path.name for path in (tmp_path / "run/shelves").iterdir()) == ["float32", "nf4-float32"], "nothing is left half-written"


@pytest.mark.parametrize("where", ["disk", "host"])
def test_every_gradient_is_the_same(where, tmp_path):
    """Also of what comes first: the input, through every frozen block."""
    found = []
    for model in (base(), streamed(base(), where, tmp_path)):
        inputs = torch.randn(1, 9, 64, generator=torch.Generator().manual_seed(3)).requires_grad_()
        model.set_attn_implementation("eager")
        model(inputs_embeds=inputs).logits.square().sum().backward()
        found.append(inputs.grad)
    assert torch.equal(*found)


def test_one_block_is_there_at_a_time_and_no_number_where_there_is_none(tmp_path):
    model = streamed(base(), "host", tmp_path)
    stream = stream_of(model)
    blocks = stack_of(model)

    def there() -> list[bool]:
        return [not any(torch.isnan(p).any() for p in block.parameters()) for block in blocks]

    seen = []
    for block in blocks:
        block.register_forward_pre_hook(lambda *_: seen.append(there()))
    attached = Lora(rank=4).attach(model, seed=0)
    assert there() == [False] * 4 and not any(torch.isnan(p).any() for p in attached.trainable.values())
    with torch.no_grad():
        model.set_attn_implementation("eager")
        model(input_ids=torch.arange(5)[None])
    assert seen == [[number == turn for number in range(4)] for turn in range(4)]
    assert there() == [False, False, False, True]
    assert stream.visits == 4 and stream.bytes == stream.pass_bytes == sum(p.nbytes for p in base().model.layers.parameters())


def test_what_autograd_keeps_is_no_weight(tmp_path):
    """A note of it instead: between forward and backward only the last block is there."""
    model = streamed(base(), "host", tmp_path)
    model.set_attn_implementation("eager")
    inputs = torch.randn(1, 3, 64).requires_grad_()
    loss = model(inputs_embeds=inputs).logits.sum()
    stream = stream_of(model)
    assert {index for index, _ in stream._placed.values()} == {3}
    loss.backward()
    assert stream.visits == 4 + 3 and {index for index, _ in stream._placed.values()} == {0}


def test_files_that_lie_as_they_compute_are_the_shelf_and_others_are_written_once(tmp_path):
    from transformers import AutoModelForCausalLM

    base(torch.bfloat16).save_pretrained(tmp_path / "base")
    assert stored_type(tmp_path / "base") == torch.bfloat16

    def opened(dtype: torch.dtype) -> torch.nn.Module:
        read = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
        return streamed(read, "disk", tmp_path / str(dtype).removeprefix("torch."), dtype)

    same, wide = opened(torch.bfloat16), opened(torch.float32)
    if sys.platform == "linux":
        assert not (tmp_path / "bfloat16").exists(), "they are mapped where they lie"
    (shelf,) = (tmp_path / "float32").iterdir()
    files = {path.name: path.stat().st_mtime_ns for path in shelf.iterdir()}
    assert {"block-00000.safetensors", "block-00003.safetensors", "rest.safetensors"} < files.keys()
    opened(torch.float32)
    assert files == {path.name: path.stat().st_mtime_ns for path in shelf.iterdir()}
    for one, other in zip(same.parameters(), wide.parameters(), strict=True):
        assert torch.equal(one.float(), other)
    assert next(wide.parameters()).dtype == torch.float32


def test_a_shard_is_aligned_and_any_reader_reads_it(tmp_path):
    tensors = {"odd": torch.arange(7.0), "small": torch.tensor(3, dtype=torch.int64), "wide": torch.randn(5, 3).bfloat16()}
    write_shard(tmp_path / "one.safetensors", tensors)
    mapped, foreign = map_shard(tmp_path / "one.safetensors"), load_file(tmp_path / "one.safetensors")
    for name, tensor in tensors.items():
        assert torch.equal(mapped[name], tensor) and torch.equal(foreign[name], tensor)
        assert mapped[name].data_ptr() % 64 == 0
    with safe_open(tmp_path / "one.safetensors", framework="pt") as file:
        assert {name for name in file.keys() if not name.startswith("padding.")} == tensors.keys()  # noqa: SIM118


@pytest.mark.parametrize("where", ["disk", "host"])
def test_widened_it_is_float32_for_a_moment(where, tmp_path):
    model, whole = streamed(base(torch.bfloat16), where, tmp_path, torch.bfloat16), base(torch.bfloat16)
    tokens = torch.arange(3, 20)[None]
    for one in (model, whole):
        one.set_attn_implementation("eager")
    before = model(input_ids=tokens).logits
    found = []
    for one in (model, whole):
        with torch.no_grad(), widened(one, CPU) as wide:
            assert wide
            found.append(one(input_ids=tokens).logits)
    assert torch.equal(*found) and found[0].dtype == torch.float32
    assert torch.equal(model(input_ids=tokens).logits, before), "and afterwards what it was"


def test_its_layout_is_asked_of_its_first_blocks(tmp_path):
    model = streamed(tiny.llama(**SIZES | {"num_hidden_layers": 6}), "disk", tmp_path)
    stream = stream_of(model)
    layout = choose_layout(model)
    assert (layout.name, layout.note) == ("forest", "")
    with first_blocks(model) as (count, of):
        assert (count, of) == (2, 6) and len(stack_of(model)) == 2
    assert len(stack_of(model)) == 6
    assert all(visit < 2 for visit in stream._ahead)


def test_what_has_no_one_list_of_blocks_is_refused():
    model = tiny.llama()
    model.model.layers[1] = model.model.layers[0]
    with pytest.raises(ModelError, match="share weights"):
        stack_of(model)
    model = tiny.llama()
    model._no_split_modules = []
    with pytest.raises(ModelError, match="no list of blocks") as caught:
        stack_of(model)
    assert "train.placement.stream" in caught.value.remedy


def test_no_room_is_said_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("etude.model.shards.lacking", lambda folder, needed: f"it needs {needed}")
    with pytest.raises(ModelError, match="no room"):
        streamed(base(), "disk", tmp_path / "bases")
    monkeypatch.undo()
    write = iter([None, OSError("gone")])
    monkeypatch.setattr("etude.model.shards.write_shard", lambda *_: (_ for _ in ()).throw(problem) if (problem := next(write)) else None)
    with pytest.raises(OSError, match="gone"):
        streamed(base(), "disk", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_of_two_runs_that_write_a_shelf_the_first_is_kept(tmp_path):
    """The other may have mapped it by then."""
    first, second = (DiskShelf(tmp_path / "shelf", 100) for _ in range(2))
    for shelf in (first, second):
        shelf.put("block", {"w": torch.arange(3.0)})
    first.finish({"blocks": 1})
    there = (tmp_path / "shelf").stat().st_ino
    second.finish({"blocks": 1})
    assert (tmp_path / "shelf").stat().st_ino == there and [path.name for path in tmp_path.iterdir()] == ["shelf"]
    assert torch.equal(second.get("block")["w"], torch.arange(3.0)) and second.found() is not None


def test_who_stops_at_once_leaves_nothing_half_written(tmp_path):
    def write(put):
        put("block", {"w": torch.arange(3.0)})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(DiskShelf(tmp_path / "shelf", 100), write)
    assert list(tmp_path.iterdir()) == []


def test_memory_is_asked_for_before_it_is_taken(monkeypatch):
    monkeypatch.setattr("etude.model.shards.memory_left", lambda: (1000, 99))
    shelf = HostShelf(False, 100)
    with pytest.raises(ModelError, match="no room in memory for the weights that are to be streamed: they take"):
        shelf.put("block", {"w": torch.arange(3.0)})
    monkeypatch.setattr("etude.model.shards.memory_left", lambda: (1000, 100))
    shelf.put("block", {"w": torch.arange(3.0)})


MANY = """
import sys, torch
from pathlib import Path
from transformers import AutoModelForCausalLM
import tiny
from etude.adaptation.lora import Lora
from etude.adaptation.qlora import QLora
from etude.data.rows import Cut
from etude.engine.loop import fit
from etude.model.load import load
from etude.model.pages import anonymous_memory
from etude.model.shards import DiskShelf
from etude.model.shelving import shelve
from etude.model.streamed import stream_of
from etude.objective.next_token import NextToken

folder, kind = Path(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
if kind == "qlora":
    import bitsandbytes
before = anonymous_memory()
model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32, attn_implementation="etude").requires_grad_(False)
shelve(model, lambda what, needed: DiskShelf(folder / what, needed), dtype=torch.float32, device=torch.device("cpu"))
adaptation = {"lora": Lora(rank=1), "qlora": QLora(rank=1)}[kind]
made = tiny.course(folder / "run", adaptation, NextToken(), model=model, steps=2, examples_per_step=1)
highest = 0
def watch(*_):
    global highest
    highest = max(highest, anonymous_memory())
for block in model.model.layers:
    block.register_full_backward_hook(watch)
fit(made.course)
watch()
print(highest - before, stream_of(model).pass_bytes)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="what memory is a file's is asked of Linux")
@pytest.mark.parametrize("kind", ["lora", pytest.param("qlora", marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_model(kind, tmp_path):
    """16 blocks of 13 MiB: what the process really holds stays far below them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = dict(hidden_size=512, intermediate_size=1536, num_hidden_layers=16, num_attention_heads=4, num_key_value_heads=4)
    LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)).save_pretrained(tmp_path / "base", max_shard_size="100MB")
    paths = [str(path) for path in (Path(tiny.__file__).parent, Path(tiny.__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {json.dumps(paths)}\n{MANY}", str(tmp_path), kind],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},  # what is freed goes back at once: what is counted is held
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    held, streamed_bytes = map(int, done.stdout.split())
    whole = 16 * 4 * (4 * 512 * 512 + 3 * 512 * 1536)
    assert streamed_bytes >= (whole if kind == "lora" else whole // 8)
    assert held < whole // 3, f"{held >> 20} MiB"
