"""How is a model born? A configuration from a family's name and a size, random weights from a seed, written as a folder like any base."""

import hashlib
import json
import math
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from etude.errors import ModelError
from etude.recipe.birth import Newborn

ASPECT = 64
"""Width over depth. Kaplan et al. (2020, figure 5, https://arxiv.org/abs/2001.08361) lose next to nothing between about 20 and 200."""
TIED_BELOW = 10**9
"""Smaller models read and write by one embedding, as small models do: else most of them would be vocabulary."""
OWN_CLASS = "etude_class"
"""The key of a configuration under which a class of the user's own is written down, with its file's hash: another code is another
model. Nothing is run because it stands there."""
_RESIDUAL = ("o_proj.weight", "down_proj.weight", "experts.down_proj", "out_proj.weight", "c_proj.weight")
"""Ends of the names of what writes into the residual stream."""


def configure(newborn: Newborn, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedConfig, list[str]]:
    """The configuration of a model to be born, and what was decided, in words.

    Raises:
        ModelError: no such architecture, a field that it does not know, or no size of it comes near the one asked for.
    """
    kind = _configuration_class(newborn.architecture)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    fixed = {"vocab_size": len(tokenizer), "max_position_embeddings": newborn.context, **ends}
    if ":" in newborn.architecture:
        fixed[OWN_CLASS] = f"{newborn.architecture} {own_source(newborn.architecture)}"
    wanted = newborn.parameters
    _check_fields(kind, newborn)
    if wanted is None:
        return _made(kind, {**fixed, **newborn.config}, newborn), []
    tied = {"tie_word_embeddings": wanted < TIED_BELOW}
    make = lambda depth, width: _made(kind, {**fixed, **tied, **_shape(kind, depth, width), **newborn.config}, newborn)
    depth, width = _nearest(lambda depth, width: count(make(depth, width)), wanted)
    config = make(depth, width)
    found = count(config)
    if not 0.75 < found / wanted < 1.33:
        raise ModelError(
            f"base: no {newborn.architecture} with a vocabulary of {len(tokenizer):,} comes near {wanted:,} parameters: nearest {found:,}",
            "take another size, a smaller vocabulary (`base.tokenizer.size`), or size it by hand in `base.config`",
        )
    text = config.get_text_config()
    said = f"{found:,} parameters ({len(tokenizer):,} × {text.hidden_size} of them the vocabulary's): {text.num_hidden_layers} layers, "
    said += f"{text.hidden_size} wide, {text.num_attention_heads} heads; about {ASPECT} times as wide as deep (Kaplan et al. 2020)"
    return config, [said]


def born(
    newborn: Newborn, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, folder: Path, say: Callable[[str], None]
) -> PreTrainedModel:
    """Draw the weights and write model and tokenizer into `folder`.

    transformers' own initialisation of the family; then what writes into the residual stream is scaled by 1/√(2 · layers), as GPT-2 did
    (Radford et al. 2019, section 2.3), so that the stream does not grow with depth. Where a family does so itself, it comes smaller.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(newborn.seed)
        model = _model_class(newborn.architecture)(config)
    layers = config.get_text_config().num_hidden_layers
    usual = getattr(config.get_text_config(), "initializer_range", None) or 0.02  # as transformers has it
    writing = [p for name, p in model.named_parameters() if name.endswith(_RESIDUAL)]
    scaled = [p for p in writing if float(p.detach().std()) >= 0.9 * usual]
    with torch.no_grad():
        for parameter in scaled:
            parameter.mul_(1 / math.sqrt(2 * layers))
    by = f", and {len(scaled)} matrices that end in the residual stream scaled by 1/√{2 * layers}" if scaled else ""
    if getattr(config, "router_aux_loss_coef", 0):
        say("its experts learn without a balance loss, which is not there yet: look whether all of them are used")
    say(f"weights drawn by transformers' own initialisation, seed {newborn.seed}{by}")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def count(config: PreTrainedConfig) -> int:
    """Parameters of a model of this configuration, tied ones once; no memory is taken."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def use_own_class(architecture: str) -> None:
    """Let transformers know a class of the user's own, `module:Class`; the module is looked for in the current folder too.

    Raises:
        ModelError: it cannot be imported, or is no causal language model of transformers' kind.
    """
    module, _, name = architecture.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        kind = getattr(import_module(module), name)
    except Exception as problem:  # whatever the user's own code does is the user's to hear of
        raise ModelError(f"base.architecture: {architecture} cannot be read: {type(problem).__name__}: {problem}", _OWN) from problem
    if _read_as.setdefault(module, now := _source(module)) != now:
        what = f"base.architecture: the file of {module} has changed since this process imported it"
        raise ModelError(what, "start Python anew: what is imported is imported once")
    config = getattr(kind, "config_class", None)
    name = getattr(config, "model_type", "")
    if not (isinstance(kind, type) and issubclass(kind, PreTrainedModel) and isinstance(config, type) and name):
        raise ModelError(f"base.architecture: {architecture} is no PreTrainedModel with a `config_class` that has a `model_type`", _OWN)
    try:
        AutoConfig.register(name, config, exist_ok=True)
    except ValueError as problem:  # another name is registered under this class, or a family's own name is taken
        raise ModelError(f"base.architecture: {architecture}: {problem}", "give the configuration a `model_type` of its own") from problem
    AutoModelForCausalLM.register(config, kind, exist_ok=True)


def own_source(architecture: str) -> str:
    """sha256 of the file that `module:Class` is written in; of a module without one (built in), its name."""
    use_own_class(architecture)
    return _source(architecture.partition(":")[0])


def check_own_class(folder: Path) -> None:
    """Refuse weights whose class, which a recipe of this project has named, is no longer written as it was when they were born.

    Raises:
        ModelError: its code has changed.
    """
    file = folder / "config.json"
    said = json.loads(file.read_text(encoding="utf-8")).get(OWN_CLASS) if file.exists() else None
    architecture, _, then = str(said).rpartition(" ")
    if said is not None and architecture.partition(":")[0] in sys.modules and own_source(architecture) != then:
        what = f"{folder}: these weights were born of {architecture}, whose code has changed since"
        raise ModelError(what, "bring the former file back, or run the recipe again: then another model is born")


_read_as: dict[str, str] = {}
"""Of modules that classes of the user's own are written in: the hash of the file when this process read it."""


def _source(module: str) -> str:
    """sha256 of a module's file, which may be gone."""
    file = getattr(sys.modules[module], "__file__", None)
    if not file:
        return module
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if Path(file).exists() else "gone"


_OWN = "name a `module:Class` beside the recipe: a transformers PreTrainedModel with a language-model head (docs/pretraining.md)"


def _configuration_class(architecture: str) -> type[PreTrainedConfig]:
    if ":" in architecture:
        use_own_class(architecture)
        return _model_class(architecture).config_class
    if architecture not in CONFIG_MAPPING:
        from difflib import get_close_matches  # noqa: PLC0415 (only to help)

        near = get_close_matches(architecture, list(CONFIG_MAPPING), n=3)
        raise ModelError(
            f"base.architecture: transformers knows no {architecture!r}",
            f"did you mean {' or '.join(near)}?" if near else "take a `model_type` such as llama, or a `module:Class` of your own",
        )
    return CONFIG_MAPPING[architecture]


def _model_class(architecture: str) -> Any:
    if ":" not in architecture:
        return AutoModelForCausalLM.from_config
    module, _, name = architecture.partition(":")
    return getattr(sys.modules[module], name)


def _check_fields(kind: type[PreTrainedConfig], newborn: Newborn) -> None:
    """A misspelt field would be kept in the configuration and read by nobody."""
    known = kind()
    unknown = [field for field in newborn.config if not hasattr(known, field)]
    if unknown:
        raise ModelError(
            f"base.config: {newborn.architecture} has no field {', '.join(map(repr, unknown))}", f"its fields are those of {kind.__name__}"
        )


def _made(kind: type[PreTrainedConfig], fields: dict[str, Any], newborn: Newborn) -> PreTrainedConfig:
    try:
        config = kind(**fields, dtype="float32")
        count(config)
    except Exception as problem:  # transformers' own checks raise whatever fits them
        first = " ".join(str(problem).split())[:300]
        raise ModelError(
            f"base: no {newborn.architecture} can be made so: {type(problem).__name__}: {first}", "look at `base.config`"
        ) from problem
    return config


def _shape(kind: type[PreTrainedConfig], depth: int, width: int) -> dict[str, Any]:
    """The fields that say how large a model is, as far as the family has them. Heads are of 64, or 32 in narrow models."""
    known = kind()
    head = 64 if width >= 512 else 32
    inner = 32 * max(1, round(width * 8 / 3 / 32))  # three of 8/3 the width hold what two of 4 did (Shazeer 2020, arXiv:2002.05202)
    wanted: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": width // head,
        "num_key_value_heads": width // head,
        "head_dim": head,
        "intermediate_size": inner,
    }
    if hasattr(known, "num_experts_per_tok"):  # two of eight experts, as Mixtral (arXiv:2401.04088), each half as wide
        small = 32 * max(1, round(inner / 2 / 32))
        wanted |= {"num_local_experts": 8, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": small}
        wanted["intermediate_size"] = inner if hasattr(known, "moe_intermediate_size") else small
    if missing := [field for field in ("hidden_size", "num_hidden_layers", "num_attention_heads") if not hasattr(known, field)]:
        raise ModelError(f"base.size: {kind.__name__} has no {missing[0]}, so no dial can size it", "size it by hand in `base.config`")
    return {field: value for field, value in wanted.items() if hasattr(known, field)}


def _nearest(parameters: Callable[[int, int], int], wanted: int) -> tuple[int, int]:
    """Depth and width whose count is nearest: the width by halving, as deep as 1/64 of it, then a few layers more or fewer."""
    depth_of = lambda width: max(2, round(width / ASPECT))
    low, high = 1, 1
    step = lambda i: 32 * i if 32 * i < 512 else 64 * math.ceil(i / 2)
    while parameters(depth_of(step(high)), step(high)) < wanted and high < 1024:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters(depth_of(step(middle)), step(middle)) < wanted else (low, middle)
    near = {(max(1, depth_of(step(i)) + more), step(i)) for i in (low, high) for more in range(-2, 3)}
    return min(sorted(near), key=lambda shape: abs(math.log(parameters(*shape) / wanted)))
