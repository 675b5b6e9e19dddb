"""How is a model read, whatever it lies in, without anything about it going unsaid?"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from etude.errors import ModelError
from etude.model.outline import Outline, outline, senses
from etude.model.outputs import only_scores
from etude.model.quiet import quiet
from etude.model.streamed import shortened


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
    reference: str | Outline,
    *,
    dtype: torch.dtype,
    device: torch.device,
    bases: Path,
    attention: str = "sdpa",
    say: Callable[[str], None] = lambda note: None,
    place: Callable[[PreTrainedModel], object] | None = None,
) -> LoadedModel:
    """Read a model and its tokenizer.

    Args:
        reference: as `outline` takes it, or an outline, whose own notes are not said again.
        dtype: of the weights.
        device: where they go.
        bases: folder in which converted GGUF files are kept.
        attention: a name that transformers knows or that was registered with it.
        say: told each note as it arises, and what takes long.
        place: puts the weights where they will be, as they lie in the files until then; else all of them go to `device`.

    Raises:
        ModelError: it is not there, is not a decoder of text, is only a pickle, an adapter or code, or its weights do not fit.
    """
    known = outline(reference, bases=bases, say=say) if isinstance(reference, str) else reference
    folder, config, notes = known.folder, known.config, list[str]()
    with quiet(notes):
        notes += without_dropout(config)
        try:
            model, report = _read(folder, config, dtype, attention)
        except KeyError:
            model, report = _read(folder, config, dtype, "eager")
            notes.append(f"{type(model).__name__} knows no attention but its own: transformers' plain one is used")
        notes += [] if only_scores(folder) else _unused(folder, config, report)
    notes += without_dropout(model)
    for note in notes:
        say(note)
    if attention not in ("eager", "sdpa") and not model._can_set_attn_implementation():
        model.config._attn_implementation = "eager"  # its attention is its own: the masks of another would let it see the future
    model.eval().requires_grad_(False)
    if place is not None:
        place(model)
    else:
        model.to(device)  # type: ignore[bad-argument-type]
    with shortened(model):
        _check_causal(folder, model)
    return LoadedModel(model, known.tokenizer, known.stop_ids, known.origin, folder, [*known.notes, *notes])


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
    """The model, and what transformers says of its weights; a KeyError where the model's code keeps a table of its own attentions."""
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
        if isinstance(error, KeyError) and error.args == (attention,) and attention in AttentionInterface().valid_keys():
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{folder}: transformers cannot load it with attention {attention!r}: {first}", "see whether its files are whole"
        ) from error
    missing = set(report["missing_keys"])
    if only_scores(folder):  # a sequence classifier: it writes nothing, so the vocabulary's head is never read
        missing -= {name for name, p in model.named_parameters() if p is getattr(model.get_output_embeddings(), "weight", None)}
    for what, keys in (("missing", missing), ("of another shape", report["mismatched_keys"])):
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
    why = "the model's text part alone is read" if senses(config) else "the model has no place for them"
    return [f"{len(unused)} weights in {folder.name} are not used, {why}: {', '.join(unused[:4])}{', …' if len(unused) > 4 else ''}"]
