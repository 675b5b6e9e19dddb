"""SmolLM2 with a LoRA on rows of 4,096 tokens, its blocks streamed from disk or resident; goes on by a step whenever it is told to."""

import json
import sys
import time
from pathlib import Path

import torch

from etude.adaptation.lora import Lora
from etude.model import attention
from etude.model.device import choose_dtype, use_threads
from etude.model.load import load
from etude.model.pages import anonymous_memory
from etude.model.shards import DiskShelf
from etude.model.shelving import shelve
from etude.model.streamed import stream_of
from stream_sides.steps import examples_of, stepper, watched


def main(side: str, model: str, work: Path, tokens: int) -> None:
    use_threads()
    cpu = torch.device("cpu")
    dtype, _ = choose_dtype("auto", cpu)
    imports = anonymous_memory() or 0
    place = None
    if side == "streamed":
        place = lambda read: shelve(read, lambda what, needed: DiskShelf(work / what, needed), dtype=dtype, device=cpu)
    # Files in float32: what is streamed is read as it lies, and converted block by block.
    lie = torch.float32 if side == "streamed" else dtype
    base = load(model, dtype=lie, device=cpu, bases=work, attention=attention.NAME, place=place).model
    attached = Lora(rank=8).attach(base, seed=0)
    take = stepper(attached, dtype, tokens)
    vocabulary = base.config.vocab_size
    print(json.dumps({"ready": True}), flush=True)
    with watched() as highest:
        for number, line in enumerate(sys.stdin):
            if line.strip() == "end":
                break
            began = time.perf_counter()
            loss = take(examples_of(4, tokens // 4, vocabulary, number))
            print(json.dumps({"seconds": time.perf_counter() - began, "loss": loss}), flush=True)
    stream = stream_of(base)
    told = {"anonymous_bytes": highest[0] - imports, "parameters_bytes": sum(p.nbytes for p in base.parameters())}
    if stream is not None:
        told |= {"pass_bytes": stream.pass_bytes, "passes": stream.visits / len(stream.blocks), "waited": stream.waited}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
