"""A small real base in a folder, a few rows, and recipes about them: what a user's project looks like, in seconds."""

import json
from pathlib import Path

import torch
from chat_tokenizers import chat_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

COLOURS = ["red", "green", "blue", "black", "white"]


def make_base(folder: Path, seed: int = 0, **changes: object) -> Path:
    """A Llama of two layers in Hugging Face layout, with a chat template."""
    tokenizer = chat_tokenizer()
    shape = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    ends = dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=256, initializer_range=0.1, tie_word_embeddings=True, **shape, **ends, **changes
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def answers(path: Path, count: int = 40) -> Path:
    """Rows of prompt and completion."""
    rows = ({"prompt": f"What colour has thing {i}?", "completion": COLOURS[i % 5]} for i in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pairs(path: Path, count: int = 30) -> Path:
    """Rows of a prompt with a chosen and a rejected answer."""
    rows = ({"prompt": f"Name colour {i}", "chosen": f"It is {COLOURS[i % 5]}", "rejected": f"It is {i}"} for i in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def labelled(path: Path, count: int = 40) -> Path:
    """A table with columns of its own."""
    lines = [f"note number {i} says {COLOURS[i % 5]},{'good' if i % 2 else 'bad'}" for i in range(count)]
    path.write_text("\n".join(["note,mood", *lines]) + "\n")
    return path


def recipe(
    path: Path,
    base: Path | str,
    stages: dict[str, dict],
    evaluate: dict | str | None = "short",
) -> Path:
    """A recipe file; JSON is YAML too. By default it is judged on six rows and little general text."""
    short = {"rows": 6, "max_new_tokens": 4, "keep": {"tokens": 200}}
    written = {"name": path.stem, "base": str(base), "stages": stages, "evaluate": short if evaluate == "short" else evaluate}
    path.write_text(json.dumps(written, indent=1))
    return path


def stage(data: Path | str, *, parent: str = "base", adapt: str = "lora", objective: str = "next-token", held_out=8, **train) -> dict:
    """Four steps on `data`, unless said otherwise."""
    usual = {"steps": 4, "examples_per_step": 4, "learning_rate": 1e-2, "dtype": "float32"}
    return {
        "parent": parent,
        "data": {"sources": str(data), "held_out": held_out, "context": 128},
        "adapt": {"kind": "lora", "rank": 4} if adapt == "lora" else adapt,
        "objective": objective,
        "train": usual | train,
    }
