"""Artefacts that reward answers: found and checked before anything is trained, opened where answers are written."""

from collections.abc import Sequence

import numpy as np
import torch

from etude.compose.artefacts import Known, look_up, open_model
from etude.compose.prerequisites import StandIns
from etude.compose.voice import Voice
from etude.core.sample import Example, Sample
from etude.data.rows import Cut
from etude.engine.rollouts import Scorer
from etude.engine.score import leaf_outputs
from etude.errors import ModelError
from etude.lineage.store import Store
from etude.model.outline import Outline
from etude.model.policy import Policy
from etude.model.probe import choose_layout
from etude.objective.contract import Objective


def reward_models(objective: Objective, writer: Outline, store: Store, voice: Voice, stand_ins: StandIns) -> dict[str, Known]:
    """The artefacts that an objective's rewards name, by these names.

    Args:
        stand_ins: what those stand for that the recipe itself makes.

    Raises:
        LineageError, ModelError: one is not there, is no reward model, or reads other tokens than the model that writes.
    """
    sampling = objective.sampling
    names = [name for reward in (sampling.rewards if sampling is not None else ()) if (name := reward.reads_with) is not None]
    found = {name: look_up(stand_ins[name].reference if name in stand_ins else name, store, voice) for name in names}
    for name, known in found.items():
        made = name not in stand_ins or stand_ins[name].made
        if made and (known.outputs is None or known.outputs[0] != "reward"):
            raise ModelError(f"rewards: {name} is no reward model", "name an artefact of a stage with `objective: reward`")
        if known.outline.tokenizer.get_vocab() != writer.tokenizer.get_vocab():
            raise ModelError(f"rewards: {name} reads other tokens than the model that writes", "train it on the same family")
    return found


def scorers(
    found: dict[str, Known], store: Store, *, dtype: torch.dtype, device: torch.device, row: int, voice: Voice
) -> dict[str, Scorer]:
    """Each opened, by its name: tokens of prompts with their answers → what each answer is worth.

    Args:
        row: tokens computed at once.
    """
    return {name: _scorer(known, store, dtype, device, row, voice) for name, known in found.items()}


def _scorer(known: Known, store: Store, dtype: torch.dtype, device: torch.device, row: int, voice: Voice) -> Scorer:
    opened = open_model(known, store, dtype=dtype, device=device, voice=voice)
    layout = choose_layout(opened.model).name
    policy, cut = Policy(opened.model, layout=layout, compute=dtype), Cut(row, layout=layout)
    count, size = sum(p.numel() for p in opened.model.parameters()), sum(p.nbytes for p in opened.model.parameters())
    voice.say(f"{known.parent.reference} rewards answers: a second model in memory, {count:,} parameters in {size / 2**20:,.1f} MiB")

    def score(answers: Sequence[Sequence[int]]) -> list[float]:
        samples = [np.asarray(tokens, np.int32) for tokens in answers]
        examples = [Example((Sample(tokens, np.zeros(len(tokens), np.float32)),), "written", i) for i, tokens in enumerate(samples, 1)]
        return leaf_outputs(policy, examples, cut)[:, 0].tolist()

    return score
