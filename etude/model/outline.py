"""What is known of a model before its weights are read: where it lies, its configuration, its tokenizer, what ends its answers?"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from etude.errors import ModelError
from etude.model.gguf import converted, dequantised, describe
from etude.model.origin import resolve
from etude.model.quiet import quiet
from etude.model.tokenizer import load_tokenizer, stop_tokens

_SENSES = ("vision_config", "audio_config", "image_config", "speech_config", "video_config")


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A decoder of text without its weights: enough to read data as it will."""

    config: PreTrainedConfig
    """Its configuration."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer, with its chat template where it has one."""
    stop_ids: frozenset[int]
    """Tokens that end an answer."""
    origin: str
    """Where it came from, in words."""
    reference: str
    """What names the same again: of the hub, with the commit that was read."""
    folder: Path
    """The folder in Hugging Face layout; its files are what a fingerprint is taken of."""
    notes: list[str]
    """What the user should be told: each was also said."""


def outline(reference: str, *, bases: Path, say: Callable[[str], None] = lambda note: None, weights: bool = True) -> Outline:
    """Find a model and read all but its weights; a GGUF file is converted first, once.

    Args:
        reference: `owner/name` or `owner/name@revision` on the hub, a folder in Hugging Face layout, a `.gguf` file, or
            `package:module/file.gguf`.
        bases: folder in which converted GGUF files are kept.
        say: told each note as it arises, and what takes long.
        weights: whether they will be needed. Without, none are downloaded or converted, and `folder` may hold none.

    Raises:
        ModelError: it is not there, is not a decoder of text, or is only a pickle, an adapter or code.
    """
    notes: list[str] = []
    origin = resolve(reference, weights=weights)
    folder = origin.path
    with ExitStack() as stack:
        if origin.kind == "gguf" and (weights or converted(origin.path, bases)):
            folder, notes = dequantised(origin.path, bases, say=say)
        elif origin.kind == "gguf":
            folder = Path(stack.enter_context(TemporaryDirectory()))
            notes = describe(origin.path, folder)
        check_folder(folder, weights=weights)
        stack.enter_context(quiet(notes))
        config = _config(folder)
        tokenizer = load_tokenizer(folder)
        stop_ids, ends = stop_tokens(tokenizer, _generation(folder, config))
    rows = config.get_text_config(decoder=True).vocab_size
    if len(tokenizer) > rows:
        notes.append(f"the tokenizer knows {len(tokenizer)} tokens and the model {rows}: text with the last ones cannot be read")
    notes.append(ends)
    for note in notes:
        say(note)
    return Outline(config, tokenizer, stop_ids, origin.text, origin.reference, folder, notes)


def _generation(folder: Path, config: PreTrainedConfig) -> GenerationConfig:
    """As transformers has it for a loaded model: the folder's own, or what its configuration says."""
    if (folder / "generation_config.json").exists():
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    return GenerationConfig.from_model_config(config)


def senses(config: PreTrainedConfig) -> list[str]:
    """What a model reads beside text, such as `vision`."""
    return [sense.removesuffix("_config") for sense in _SENSES if getattr(config, sense, None) is not None]


def check_folder(folder: Path, *, weights: bool = True) -> None:
    """Refuse what is not a text model's folder, with safetensors weights if they are needed, saying what it is instead."""
    if not (folder / "config.json").exists():
        if (folder / "adapter_config.json").exists():
            base = json.loads((folder / "adapter_config.json").read_text()).get("base_model_name_or_path")
            raise ModelError(
                f"{folder} holds an adapter of {base}, not a model", "name its base, or the artefact in this project it belongs to"
            )
        if files := sorted(path.name for path in folder.glob("*.gguf")):
            raise ModelError(f"{folder} holds GGUF files, not a model in Hugging Face layout", f"name the file: {folder / files[0]}")
        raise ModelError(f"{folder} holds no config.json: it is not a model in Hugging Face layout", "name the folder that holds it")
    if weights:
        _check_weights(folder)


def _check_weights(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        if missing := [shard for shard in shards if not (folder / shard).exists()]:
            raise ModelError(
                f"{folder}: {len(missing)} of {len(shards)} weight files are missing: {', '.join(missing[:3])}", "download it again"
            )
        return
    if (folder / "model.safetensors").exists():
        return
    if pickles := sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)):
        raise ModelError(
            f"{folder} holds its weights only as pickles ({', '.join(pickles[:3])}), which can run any code when they are read",
            "ask its author for safetensors, or convert it yourself where that does no harm: "
            "`AutoModelForCausalLM.from_pretrained(folder).save_pretrained(other)`",
        )
    raise ModelError(f"{folder} holds no weights (model.safetensors)", "download it again, or name the folder that holds them")


def _config(folder: Path) -> PreTrainedConfig:
    """The configuration of a decoder of text, or a ModelError that says what it is instead."""
    try:
        written: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise ModelError(f"{folder}/config.json is not JSON: {error}", "download it again") from error
    kind = written.get("model_type")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (ValueError, KeyError, OSError) as error:
        if "auto_map" in written:
            raise ModelError(
                f"{folder}: the model brings code of its own, which etude never runs", "take a family that transformers knows"
            ) from error
        raise ModelError(
            f"{folder}: transformers cannot read the configuration of a {kind!r}: {error}", "a newer transformers may"
        ) from error
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, "")
    if not name and type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:  # a class of the user's own, which a recipe named
        name = str(getattr(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], "__name__", ""))
    if (others := senses(config)) and not name.endswith("ForCausalLM"):
        raise ModelError(
            f"{folder}: a {kind!r} reads {' and '.join(others)} beside text; etude is for text alone", "take its text-only sister"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{folder}: a {kind!r} has an encoder; etude is for decoders", "take a decoder of text")
    if not name:
        raise ModelError(f"{folder}: a {kind!r} does not predict the next token", "take a decoder of text")
    return config
