"""A QLoRA on a base of Llama's shape that no memory here holds: random blocks are quantised and written one by one, then streamed."""

import json
import sys
import time
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from etude.adaptation.lora import Lora
from etude.adaptation.lora_layer import LoraLinear
from etude.adaptation.peft_adapter import LAYERS, attach_config
from etude.adaptation.qlora import QuantisedLoraLinear
from etude.model import attention
from etude.model.device import best_device, use_threads
from etude.model.pages import anonymous_memory
from etude.model.quantised import as_tensors, library, linear_layers, put_four_bit
from etude.model.shards import DiskShelf
from etude.model.shelving import group
from etude.model.streamed import Stream
from stream_sides.steps import examples_of, stepper, watched

CAP = 24 * 2**30
"""Bytes of a GPU, where there is one, that may be used."""
NUMBERS = 2**24 - 3
"""Of which random weights are made."""
BYTES = 17 / 32
"""Of a parameter in four bits, its scales counted."""


def main(folder: Path, shape: dict[str, int], tokens: int) -> None:
    use_threads()
    device = best_device()
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(min(1.0, CAP / torch.cuda.get_device_properties(device).total_memory))
    config = LlamaConfig(tie_word_embeddings=False, **shape)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=attention.NAME)
    model.requires_grad_(False)
    with watched() as highest:
        began = time.perf_counter()
        written = write(model, DiskShelf(folder / "nf4", int(sum(p.numel() for p in model.parameters()) * BYTES)), device)
        tell(writing_seconds=time.perf_counter() - began, written_parameters=written)
        stream = put_together(model, DiskShelf(folder / "nf4", 0), device)
        adapter = Lora(rank=8)._config(model)
        attached = attach_config(model, adapter, {library().nn.Linear4bit: QuantisedLoraLinear} | dict(LAYERS))
        assert any(isinstance(module, LoraLinear) for module in model.modules())
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        take = stepper(attached, torch.bfloat16, tokens)
        for number in range(2):
            began, waited = time.perf_counter(), stream.waited
            loss = take(examples_of(1, tokens, config.vocab_size, number))
            tell(seconds=time.perf_counter() - began, loss=loss, waited=stream.waited - waited, anonymous_gib=highest[0] / 2**30)
    told = {"anonymous_bytes": highest[0], "passes": stream.visits / len(stream.blocks), "pass_bytes": stream.pass_bytes}
    told |= {"parameters": written + sum(p.numel() for p in outside(model)), "trained": attached.trainable_count}
    if device.type == "cuda":
        told |= {"device_bytes": torch.cuda.max_memory_reserved(device)}
    tell(**told, device=device.type)


def outside(model: PreTrainedModel) -> list[nn.Parameter]:
    return [*model.get_input_embeddings().parameters(), *model.get_output_embeddings().parameters(), *model.base_model.norm.parameters()]


def write(model: PreTrainedModel, shelf: DiskShelf, device: torch.device) -> int:
    """Every block is made, quantised, written and forgotten; then what is not a block. Returns how many numbers are in four bits."""
    written, count = 0, len(model.base_model.layers)
    numbers = (0.02 * torch.randn(NUMBERS, generator=torch.Generator().manual_seed(0))).bfloat16().to(device)
    for index, block in enumerate(model.base_model.layers):
        began = time.perf_counter()
        make(block, device, numbers)
        small = {f"{name}.weight": in_four_bits(layer.weight.data) for name, layer in linear_layers(block, model)}
        written += sum(layer.weight.numel() for _, layer in linear_layers(block, model))
        shelf.put(group(index), as_tensors({name: small.get(name, p.data) for name, p in block.named_parameters()}))
        block.to("meta")
        print(f"block {index + 1} of {count} written in {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
    rest = {"embedding": model.get_input_embeddings(), "head": model.get_output_embeddings(), "norm": model.base_model.norm}
    shelf.put("rest", {name: make(module, torch.device("cpu"), numbers.cpu()).weight.data for name, module in rest.items()})
    shelf.finish({})
    return written


def in_four_bits(weight: torch.Tensor) -> torch.Tensor:
    """As `model.quantised.packed` has it, without the error, which nobody asks of random numbers."""
    small = library().nn.Params4bit(weight.float(), requires_grad=False, quant_type="nf4", compress_statistics=True)
    return small.to(weight.device)


def make(module: nn.Module, device: torch.device, numbers: torch.Tensor) -> nn.Module:
    """Random weights in the place of none: the same numbers, from another beginning each time, because drawing them takes long."""
    module.to_empty(device=device)
    for p in module.parameters():
        if p.dim() == 1:
            p.data.fill_(1)
            continue
        begin, rest = int(torch.randint(len(numbers), ())), p.data.flatten()
        rest[: len(numbers) - begin] = numbers[begin : begin + len(rest)]
        for part in rest[len(numbers) - begin :].split(len(numbers)):
            part.copy_(numbers[: len(part)])
    return module


def put_together(model: PreTrainedModel, shelf: DiskShelf, device: torch.device) -> Stream:
    """The model over its shelf."""
    rest = shelf.get("rest")
    modules = {"embedding": model.get_input_embeddings(), "head": model.get_output_embeddings(), "norm": model.base_model.norm}
    for name, module in modules.items():
        module.weight = nn.Parameter(rest[name].to(device), requires_grad=False)
    model.base_model.rotary_emb = type(model.base_model.rotary_emb)(model.config).to(device)
    slots = []
    for index, block in enumerate(model.base_model.layers):
        slots.append(four_bit_slots(block, model, shelf.get(group(index)), device))
    return Stream(model, slots, device, copies=device.type != "cpu")


def four_bit_slots(block: nn.Module, model: PreTrainedModel, tensors: dict[str, torch.Tensor], device: torch.device) -> list:
    for name, module in block.named_modules():
        if f"{name}.weight" in tensors and type(module) is not nn.Linear:
            module.weight = nn.Parameter(tensors[f"{name}.weight"], requires_grad=False)
    return put_four_bit(block, model, tensors, device)


def tell(**values: object) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    assert anonymous_memory() is not None, "only Linux tells"
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]))
