"""How is a model read, whatever it lies in, without anything about it going unsaid?"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from etude.errors import ModelError
from etude.model.gguf import dequantised
from etude.model.origin import resolve
from etude.model.quiet import quiet
from etude.model.tokenizer import load_tokenizer, stop_tokens

_SENSES = ("vision_config", "audio_config", "image_config", "speech_config", "video_config")


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model at rest: evaluating, nothing in it asks for gradients."""

    model: PreTrainedModel
    """A decoder of text."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer, with its chat template where it has one."""
    stop_ids: frozenset[int]
    """Tokens that end an answer."""
    origin: str
    """Where it came from, in words."""
    folder: Path
    """The folder in Hugging Face layout that was read; its files are what a fingerprint is taken of."""
    notes: list[str] = field(default_factory=list)
    """What the user should be told: each was also said while loading."""


def load(
    reference: str,
    *,
    dtype: torch.dtype,
    device: torch.device,
    bases: Path,
    attention: str = "sdpa",
    say: Callable[[str], None] = lambda note: None,
) -> LoadedModel:
    """Read a model and its tokenizer.

    Args:
        reference: `owner/name` or `owner/name@revision` on the hub, a folder in Hugging Face layout, a `.gguf` file, or
            `package:module/file.gguf`.
        dtype: of the weights.
        device: where they go.
        bases: folder in which converted GGUF files are kept.
        attention: a name that transformers knows or that was registered with it.
        say: told each note as it arises, and what takes long.

    Raises:
        ModelError: it is not there, is not a decoder of text, is only a pickle, an adapter or code, or its weights do not fit.
    """
    notes: list[str] = []
    origin = resolve(reference)
    folder = origin.path
    if origin.kind == "gguf":
        folder, notes = dequantised(origin.path, bases, say=say)
    check_folder(folder)
    with quiet(notes):
        config = _config(folder)
        notes += without_dropout(config)
        model, report = _read(folder, config, dtype, attention)
        notes += _unused(folder, config, report)
        tokenizer = load_tokenizer(folder)
    notes += without_dropout(model)
    stop_ids, ends = stop_tokens(tokenizer, model.generation_config)
    rows = model.config.get_text_config(decoder=True).vocab_size
    if len(tokenizer) > rows:
        notes.append(f"the tokenizer knows {len(tokenizer)} tokens and the model {rows}: text with the last ones cannot be read")
    notes.append(ends)
    for note in notes:
        say(note)
    model.to(device).eval().requires_grad_(False)  # type: ignore[bad-argument-type]
    _check_causal(folder, model)
    return LoadedModel(model, tokenizer, stop_ids, origin.text, folder, notes)


def check_folder(folder: Path) -> None:
    """Refuse what is not a text model's folder with safetensors weights, saying what it is instead."""
    if not (folder / "config.json").exists():
        if (folder / "adapter_config.json").exists():
            base = json.loads((folder / "adapter_config.json").read_text()).get("base_model_name_or_path")
            raise ModelError(
                f"{folder} holds an adapter of {base}, not a model", "name its base, or the artefact in this project it belongs to"
            )
        if files := sorted(path.name for path in folder.glob("*.gguf")):
            raise ModelError(f"{folder} holds GGUF files, not a model in Hugging Face layout", f"name the file: {folder / files[0]}")
        raise ModelError(f"{folder} holds no config.json: it is not a model in Hugging Face layout", "name the folder that holds it")
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
    senses = [sense.removesuffix("_config") for sense in _SENSES if getattr(config, sense, None) is not None]
    if senses and not name.endswith("ForCausalLM"):
        raise ModelError(
            f"{folder}: a {kind!r} reads {' and '.join(senses)} beside text; etude is for text alone", "take its text-only sister"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{folder}: a {kind!r} has an encoder; etude is for decoders", "take a decoder of text")
    if not name:
        raise ModelError(f"{folder}: a {kind!r} does not predict the next token", "take a decoder of text")
    return config


def without_dropout(thing: PreTrainedConfig | nn.Module) -> list[str]:
    """Set every dropout of a configuration, or every dropout module still left, to 0; what was found, in words.

    With dropout the cut of a step into rows would change its masks, so 0 is the default, also where a model says more.
    """
    found: dict[str, float] = {}
    if isinstance(thing, nn.Module):
        for name, module in thing.named_modules():
            if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
                found[name], module.p = module.p, 0.0
    else:
        for part in (thing, thing.get_text_config(decoder=True)):
            for name, value in vars(part).items():
                if ("dropout" in name or "layerdrop" in name or name.endswith("pdrop")) and isinstance(value, float) and value > 0:
                    found[name] = value
                    setattr(part, name, 0.0)
    if not found:
        return []
    listed = ", ".join(f"{name} {value}" for name, value in list(found.items())[:4]) + (", …" if len(found) > 4 else "")
    return [f"the model's dropout is switched off ({listed})"]


def _read(folder: Path, config: PreTrainedConfig, dtype: torch.dtype, attention: str) -> tuple[PreTrainedModel, dict[str, Any]]:
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (ValueError, KeyError, OSError, RuntimeError, ImportError, SafetensorError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{folder}: transformers cannot load it with attention {attention!r}: {first}", "see whether its files are whole"
        ) from error
    for what, keys in (("missing", report["missing_keys"]), ("of another shape", report["mismatched_keys"])):
        if keys:
            names = ", ".join(sorted(map(str, keys))[:5])
            raise ModelError(
                f"{folder}: {len(keys)} weights are {what}, and would be random: {names}", "the folder is not whole: download it again"
            )
    return model, report


def _check_causal(folder: Path, model: PreTrainedModel) -> None:
    """Refuse a model whose first token sees the second: encoders load as language models too, and their loss looks splendid."""
    tokens = torch.tensor([[0, 1], [0, 2]], device=model.device)
    with torch.no_grad():
        logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits.float()  # [2, 2, vocabulary]
    leaked, meant = (logits[0] - logits[1]).abs().amax(-1).tolist()
    if leaked > meant * torch.finfo(model.dtype).eps ** 0.5:
        raise ModelError(f"{folder}: a token sees what comes after it: this is an encoder, not a decoder of text", "take a decoder of text")


def _unused(folder: Path, config: PreTrainedConfig, report: dict[str, Any]) -> list[str]:
    """Weights in the files that the model has no place for."""
    unused = sorted(report["unexpected_keys"])
    if not unused:
        return []
    senses = any(getattr(config, sense, None) is not None for sense in _SENSES)
    why = "the model's text part alone is read" if senses else "the model has no place for them"
    return [f"{len(unused)} weights in {folder.name} are not used, {why}: {', '.join(unused[:4])}{', …' if len(unused) > 4 else ''}"]
