"""A linear head trained beside any adaptation, and saved so that plain transformers or plain peft loads it as a sequence classifier."""

import copy
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from etude.adaptation.contract import Attached
from etude.core.scores import Outputs
from etude.errors import ModelError
from etude.model.outputs import APART, NAME, describe_outputs, outputs_weight, put_outputs, without_outputs

_PEFT, _PEFT_TENSORS = "adapter_config.json", "adapter_model.safetensors"


def add_outputs(attached: Attached, outputs: Outputs) -> None:
    """Train a newborn head with what an adaptation trains.

    Raises:
        ModelError: it is to be a sequence classifier, and transformers has none for this architecture.
    """
    if outputs.at == "leaf":
        check_classifier(attached.model.config)
    attached.trainable[f"{NAME}.weight"] = put_outputs(attached.model, len(outputs.labels))
    attached.newborn.add(f"{NAME}.weight")


def save_with_outputs(attached: Attached, folder: Path, kind: str, outputs: Outputs) -> None:
    """Write what was trained, head included; the folder exists.

    Read at leaves, a whole model becomes a sequence classifier, and peft's adapters adapters of one (`modules_to_save`). What peft has no
    format for, and a head that is read everywhere, has the head in a file of its own, which is in nobody's way.
    """
    weight = outputs_weight(attached.model)
    assert weight is not None, "a head was put on"
    weight = weight.detach().cpu().contiguous()
    if outputs.at == "leaf" and not attached.is_adapter:
        _classifier(attached.model, weight, outputs).save_pretrained(folder)
    else:
        parameter = attached.trainable.pop(f"{NAME}.weight")
        with without_outputs(attached.model):
            attached.save(folder)
        attached.trainable[f"{NAME}.weight"] = parameter
        if outputs.at == "leaf" and (folder / _PEFT).is_file() and (folder / _PEFT_TENSORS).is_file():
            _as_peft_classifier(folder, weight)
        else:
            save_file({f"{NAME}.weight": weight}, folder / APART)
    describe_outputs(folder, kind, outputs)


def pad_apart(tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]) -> str | None:
    """Let a token pad that no text ends in: transformers' classifiers read the last token that is not the one that pads.

    Returns:
        a sentence where nothing will do, or where another token than before pads now; None where all is as it was.
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in stop_ids:
        return None
    special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    others = [name for name, i in special.items() if i not in stop_ids and i != tokenizer.bos_token_id]
    if tokenizer.unk_token in others:
        others.insert(0, str(tokenizer.unk_token))
    if not others:
        return "no token is free to pad with: elsewhere, score one text at a time"
    before, tokenizer.pad_token = tokenizer.pad_token, others[0]
    was = f"no longer {before!r}, which ends answers" if before else "which had no such token"
    return f"{others[0]!r} pads in the saved tokenizer ({was}): transformers' classifiers read the last token that is not padding"


def set_padding(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a classifier's configuration know the token that pads."""
    config.pad_token_id = tokenizer.pad_token_id


def check_classifier(config: PreTrainedConfig) -> PreTrainedModel:
    """transformers' sequence classifier of a causal model's configuration, without weights.

    Raises:
        ModelError: there is none with a head called `score` on the same trunk, so nothing but etude could load the result.
    """
    remedy = "take a base of another family, or for classes `objective.head: false`"
    with torch.device("meta"):
        causal = AutoModelForCausalLM.from_config(copy.deepcopy(config))
        try:
            made = AutoModelForSequenceClassification.from_config(copy.deepcopy(config))
        except ValueError as problem:
            raise ModelError(f"transformers has no sequence classifier beside {type(causal).__name__}", remedy) from problem
    trunk = getattr(made, made.base_model_prefix, None)
    if not isinstance(getattr(made, NAME, None), nn.Linear) or type(trunk) is not type(causal.base_model):
        raise ModelError(f"transformers' {type(made).__name__} is not {type(causal).__name__} with a linear head called `{NAME}`", remedy)
    return made


def _classifier(model: PreTrainedModel, weight: Tensor, outputs: Outputs) -> PreTrainedModel:
    """The same trunk under a head that transformers knows."""
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(outputs.labels))
    config.label2id = {label: i for i, label in enumerate(outputs.labels)}
    config.num_labels = len(outputs.labels)
    made = check_classifier(config)
    setattr(made, made.base_model_prefix, model.base_model)
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=getattr(made, NAME).bias is not None)
    with torch.no_grad():
        head.weight.copy_(weight)
        if head.bias is not None:
            head.bias.zero_()
    setattr(made, NAME, head)
    return made


def _as_peft_classifier(folder: Path, weight: Tensor) -> None:
    """An adapter of a causal model as one of a sequence classifier on the same trunk."""
    tensors = load_file(folder / _PEFT_TENSORS)
    virtual = "prompt_embeddings" in tensors  # peft lays no layers of its own around such a model, and names its head accordingly
    tensors[f"base_model.{NAME}.weight" if virtual else f"base_model.model.{NAME}.weight"] = weight
    save_file(tensors, folder / _PEFT_TENSORS, metadata={"format": "pt"})
    written = json.loads((folder / _PEFT).read_text(encoding="utf-8"))
    written |= {"task_type": "SEQ_CLS"} | ({} if virtual else {"modules_to_save": [NAME]})
    (folder / _PEFT).write_text(json.dumps(written, indent=2, sort_keys=True), encoding="utf-8")

