"""How does a GGUF file become a plain model folder? Once, dequantised, checked against the file, and said so."""

import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
import transformers
from gguf import GGUFReader
from tokenizers.pre_tokenizers import ByteLevel, Digits
from tokenizers.pre_tokenizers import Sequence as Steps
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from etude.errors import ModelError
from etude.model.quiet import quiet

NOTE = "dequantised.json"
_REMEDY = "take the model's folder or hub id instead"
# What llama.cpp (src/llama-vocab.cpp) calls splitting as GPT-2 did, and the same after parting every digit.
_AS_GPT2 = {"default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe"}
_DIGITS_FIRST = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"}


def dequantised(file: Path, bases: Path, *, say: Callable[[str], None]) -> tuple[Path, list[str]]:
    """The folder in Hugging Face layout that `file` was converted to, converting it where that has not been done.

    Weights are stored in float32, which holds every dequantised value exactly. The folder is called after the file and its
    hash, is written aside and renamed when whole, and holds a note (`dequantised.json`) of what it came from.

    Args:
        file: a `.gguf` file of a text model that transformers can read.
        bases: where converted folders lie.
        say: told before the slow parts.

    Returns:
        The folder, and what should be told of it.

    Raises:
        ModelError: the file cannot be read, is of an unknown family, or what transformers made of it disagrees with the file.
    """
    digest, size = _sha256(file), file.stat().st_size
    folder = bases / f"{file.stem}-{digest[:12]}"
    note = read_note(folder)
    if note is None or (note["sha256"], note["bytes"]) != (digest, size):
        note = _convert(file, digest, size, folder, say)
    types = ", ".join(f"{count} × {name}" for name, count in note["tensors"].items())
    return folder, [f"weights dequantised from {note['file']} ({types}): they are not the original ones", *note["notes"]]


def read_note(folder: Path) -> dict[str, Any] | None:
    """What `folder` was dequantised from; None where it was not, or is not whole."""
    try:
        return json.loads((folder / NOTE).read_text())
    except FileNotFoundError:
        return None


def converted(file: Path, bases: Path) -> bool:
    """Whether `dequantised` would find it done."""
    return read_note(bases / f"{file.stem}-{_sha256(file)[:12]}") is not None


def describe(file: Path, folder: Path) -> list[str]:
    """Write what `dequantised` would, but for the weights, into an empty folder: configuration, tokenizer, ends of answers.

    Returns:
        What should be told of it.

    Raises:
        ModelError: as `dequantised`.
    """
    _, metadata = _opened(file)
    notes: list[str] = []
    with quiet(notes):
        tokenizer = _tokenizer(file, metadata)
        notes += _split_as_the_file_says(tokenizer, metadata)
        try:
            config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
        except (ValueError, KeyError, OSError, NotImplementedError) as error:
            family = metadata.get("general.architecture")
            raise ModelError(f"{file}: transformers cannot read this GGUF file of the family {family!r}: {error}", _REMEDY) from error
        for part in (config, tokenizer, _generation(metadata)):
            part.save_pretrained(folder)
    return notes


def _opened(file: Path) -> tuple[GGUFReader, dict[str, Any]]:
    try:
        reader = GGUFReader(file)
    except (ValueError, OSError, IndexError) as error:
        raise ModelError(f"{file} is not a whole GGUF file: {error}", "download it again") from error
    return reader, {name: reader.fields[name].contents() for name in reader.fields}


def _convert(file: Path, digest: str, size: int, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    say(f"reading {file.name}, once: {size / 1e6:.0f} MB, to be dequantised into {folder}")
    notes: list[str] = []
    reader, metadata = _opened(file)
    _check_space(file, sum(int(tensor.n_elements) for tensor in reader.tensors) * 4, folder.parent)
    with quiet(notes):
        tokenizer = _tokenizer(file, metadata)
        notes += _split_as_the_file_says(tokenizer, metadata)
        model = _model(file, metadata)
    model.generation_config = _generation(metadata)
    note = {
        "what": "weights dequantised from a GGUF file into float32",
        "file": file.name,
        "sha256": digest,
        "bytes": size,
        "architecture": metadata["general.architecture"],
        "tensors": dict(Counter(tensor.tensor_type.name for tensor in reader.tensors).most_common()),
        "transformers": transformers.__version__,
        "notes": notes,
    }
    _write(model, tokenizer, note, folder)
    say(f"{file.name} is now {folder}")
    return note


def _model(file: Path, metadata: dict[str, Any]) -> PreTrainedModel:
    """The model in float32, as one that was never quantised."""
    # Newer versions would keep the blocks packed where they find a kernel for them.
    packed = {"quantization_config": transformers.GgufConfig(dequantize=True)} if hasattr(transformers, "GgufConfig") else {}
    try:
        # Older readers draw a bar of their own, that no setting hides.
        with redirect_stderr(io.StringIO()):
            model, report = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32, trust_remote_code=False, output_loading_info=True, **packed
            )
    except (ValueError, KeyError, OSError, RuntimeError, NotImplementedError) as error:
        family = metadata.get("general.architecture")
        raise ModelError(f"{file}: transformers cannot read this GGUF file of the family {family!r}: {error}", _REMEDY) from error
    wrong = sorted(map(str, {*report["missing_keys"], *report["mismatched_keys"], *report["unexpected_keys"]}))
    if wrong:
        raise ModelError(f"{file}: {len(wrong)} weights do not fit the model that the file describes: {', '.join(wrong[:5])}", _REMEDY)
    model.hf_quantizer = None  # else save_pretrained refuses: "quantized with gguf and is not serializable"
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model


def _tokenizer(file: Path, metadata: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer, checked against what the file says of it."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    except (ValueError, KeyError, OSError, NotImplementedError) as error:
        raise ModelError(f"{file}: transformers cannot read this GGUF file's tokenizer: {error}", _REMEDY) from error
    assert tokenizer is not None, "transformers gives a tokenizer or raises"
    if (template := metadata.get("tokenizer.chat_template")) and tokenizer.chat_template is None:
        tokenizer.chat_template = template
    _begin_and_end_as_the_file_says(tokenizer, metadata)
    wrong = _disagreements(tokenizer, metadata)
    if wrong:
        raise ModelError(f"{file}: the tokenizer that transformers made of it is another than the file's: {'; '.join(wrong)}", _REMEDY)
    return tokenizer


def _begin_and_end_as_the_file_says(tokenizer: PreTrainedTokenizerBase, metadata: dict[str, Any]) -> None:
    """transformers 5.17 takes the beginning of text for its end in files of SmolLM2."""
    for name in ("bos", "eos"):
        number = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if number is not None and number != getattr(tokenizer, f"{name}_token_id"):
            setattr(tokenizer, f"{name}_token", tokenizer.convert_ids_to_tokens(int(number)))


def _split_as_the_file_says(tokenizer: PreTrainedTokenizerBase, metadata: dict[str, Any]) -> list[str]:
    """Split texts by the file's own rule where transformers took GPT-2's for every byte-level tokenizer; what cannot be, in words."""
    rule, backend = metadata.get("tokenizer.ggml.pre"), getattr(tokenizer, "backend_tokenizer", None)
    if rule is None or rule in _AS_GPT2 or backend is None or not isinstance(backend.pre_tokenizer, ByteLevel):
        return []
    if rule in _DIGITS_FIRST:
        backend.pre_tokenizer = Steps([Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)])
        return []
    return [f"the file splits texts by the rule {rule!r}, transformers by GPT-2's: some texts may become other tokens than the model knows"]


def _disagreements(tokenizer: PreTrainedTokenizerBase, metadata: dict[str, Any]) -> list[str]:
    """What the file says and the tokenizer does not do."""
    tokens = metadata["tokenizer.ggml.tokens"]
    wrong = []
    if len(tokenizer) != len(tokens):
        wrong.append(f"{len(tokenizer)} tokens instead of {len(tokens)}")
    other = [i for i, (ours, theirs) in enumerate(zip(tokenizer.convert_ids_to_tokens(list(range(len(tokens)))), tokens)) if ours != theirs]
    if other:
        i = other[0]
        wrong.append(f"{len(other)} tokens differ, first {i}: {tokenizer.convert_ids_to_tokens(i)!r} instead of {tokens[i]!r}")
    for name in ("bos", "eos"):
        theirs, ours = metadata.get(f"tokenizer.ggml.{name}_token_id"), getattr(tokenizer, f"{name}_token_id")
        if theirs is not None and ours != theirs:
            wrong.append(f"{name} token {ours} instead of {theirs}")
    if (template := metadata.get("tokenizer.chat_template")) is not None and tokenizer.chat_template != template:
        wrong.append("another chat template")
    if (adds := metadata.get("tokenizer.ggml.add_bos_token")) is not None:
        does = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
        if does != bool(adds):
            wrong.append(f"beginning-of-text is {'' if does else 'not '}added to a text, against the file")
    return wrong


def _generation(metadata: dict[str, Any]) -> GenerationConfig:
    """Ends of answers as the file names them: end of sequence, and of turn and message where it has its own."""
    ends = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    known = list(dict.fromkeys(int(end) for end in ends if end is not None))
    return GenerationConfig(bos_token_id=metadata.get("tokenizer.ggml.bos_token_id"), eos_token_id=known or None)


def _write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, note: dict[str, Any], folder: Path) -> None:
    """Write everything aside, then rename: a folder of that name is whole or is not there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.parent / f".{folder.name}.{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        with quiet(note["notes"]):
            model.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
        (aside / NOTE).write_text(json.dumps(note, indent=2) + "\n")
        for path in aside.iterdir():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        if folder.exists():  # of that name, but not what the note promises
            shutil.rmtree(folder)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check_space(file: Path, needed: int, bases: Path) -> None:
    at = next(folder for folder in (bases, *bases.absolute().parents) if folder.exists())
    free = shutil.disk_usage(at).free
    if free < needed * 1.05:
        raise ModelError(
            f"{file.name} becomes {needed / 1e9:.1f} GB in float32, and {at} has {free / 1e9:.1f} GB free",
            "free space, or take a smaller model",
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
