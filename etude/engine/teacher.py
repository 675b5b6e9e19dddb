"""What a teacher says of the same forest: a model in memory, the policy with its adapters off, or its likeliest tokens, stored before."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from etude.adaptation.contract import Attached
from etude.core.forest import Forest
from etude.core.sample import Example, Sample
from etude.data.rows import Cut, rows_of
from etude.engine.progress import Progress, silent
from etude.model.divergence import States
from etude.model.head import CHUNK
from etude.model.policy import Policy
from etude.model.taught import Distributions, Teaching, TopK, joined

Teacher = Callable[[Forest, Sequence[Example]], Distributions | TopK]
"""Takes a forest and the step it was cut from."""


def in_memory(teacher: Policy) -> Teacher:
    """A second model, which reads every forest once more."""
    return lambda forest, _step: States.of(teacher, forest, teacher.head)


def switched_off_teacher(policy: Policy, attached: Attached) -> Teacher:
    """The policy's own parent: nothing to keep, one more forward without gradient."""
    head = getattr(policy.head, "base_layer", policy.head)  # read when the adapters are on again

    def ask(forest: Forest, _step: Sequence[Example]) -> States:
        with attached.off():
            return States.of(policy, forest, head)

    return ask


class StoredTeacher:
    """A teacher's likeliest tokens at every supervised one, laid over any forest in which the samples come again."""

    def __init__(self, examples: Sequence[Example], tensors: dict[str, Tensor]):
        """`tensors` as `compute` gives them, for the same examples in the same order."""
        samples = _samples(examples)
        self.examples = examples  # kept alive, because samples are known by identity
        self.ids, self.values = tensors["ids"], tensors["log_probability"]
        self.first, self.row = _places(samples)

    @staticmethod
    def compute(
        teacher: Policy, examples: Sequence[Example], cut: Cut, teaching: Teaching, progress: Progress = silent
    ) -> dict[str, Tensor]:
        """Ask for every supervised token of every example.

        Returns:
            `ids` [supervised tokens, k] int32 and `log_probability` [supervised tokens, k + 1], at the teaching's temperature.
        """
        samples = _samples(examples)
        first, row = _places(samples)
        k = _kept(teaching, teacher)
        ids, values = torch.zeros(int(row[-1]) + 1, k, dtype=torch.int32), torch.zeros(int(row[-1]) + 1, k + 1)
        for low in range(0, len(examples), 256):
            chunk = examples[low : low + 256]
            for forest in rows_of(chunk, cut):
                states = States.of(teacher, forest.to(teacher.device), teacher.head)
                found, said = [], []
                with torch.no_grad():
                    for start in range(0, len(forest.target), CHUNK):
                        softer = states.log_distribution(start, start + CHUNK) / teaching.temperature
                        found.append(softer.topk(k).indices)
                        said.append(joined(softer, found[-1]))
                at = row[_members(forest, chunk, first)]
                ids[at] = torch.cat(found).int().cpu()[forest.member_prediction]
                values[at] = torch.cat(said).cpu()[forest.member_prediction]
                progress(forest.logical_tokens)
        return {"ids": ids, "log_probability": values}

    @staticmethod
    def whole(file: Path, examples: Sequence[Example], teaching: Teaching, say: Callable[[str], None]) -> bool:
        """Whether what a teacher says of these examples lies in `file`; a file that is torn, or of others, is said."""
        if not file.exists():
            return False
        tokens = int(_places(_samples(examples))[1][-1]) + 1
        try:
            found = load_file(file)
            (rows, k), values = found["ids"].shape, found["log_probability"].shape
            if rows == tokens and values == (rows, k + 1) and k <= (teaching.top_k or 0):
                return True
            problem = "it is of other rows"
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            problem = str(error)
        say(f"{file.name} cannot be used ({problem}): the teacher is asked again")
        return False

    def __call__(self, forest: Forest, step: Sequence[Example]) -> TopK:
        on_cpu = forest.to("cpu")
        at = torch.zeros(len(on_cpu.target), dtype=torch.int64)
        at[on_cpu.member_prediction] = self.row[_members(on_cpu, step, self.first)]
        device = forest.tokens.device
        return TopK(self.ids[at].long().to(device), self.values[at].to(device))


def _kept(teaching: Teaching, teacher: Policy) -> int:
    """All but one token at most: the others need one."""
    return min(teaching.top_k or 0, teacher.model.config.get_text_config().vocab_size - 1)


def _samples(examples: Sequence[Example]) -> list[Sample]:
    return [sample for example in examples for sample in example.samples]


def _places(samples: Sequence[Sample]) -> tuple[dict[int, int], Tensor]:
    """Where each sample's tokens begin among all, by its identity; and [tokens] the row of each supervised one among these."""
    begins = np.cumsum([0, *map(len, samples)])
    supervised = np.concatenate([sample.weight for sample in samples]) > 0
    return dict(zip(map(id, samples), begins.tolist(), strict=False)), torch.from_numpy(np.cumsum(supervised) - 1)


def _members(forest: Forest, step: Sequence[Example], first: dict[int, int]) -> Tensor:
    """[M] which token among all each member predicts; the target's position is one after its source's."""
    laid_out = [sample for number in dict.fromkeys(forest.example) for sample in step[number].samples]
    begin = torch.tensor([first[id(sample)] for sample in laid_out])
    return begin[forest.member_sample] + forest.position[forest.source[forest.member_prediction]] + 1
