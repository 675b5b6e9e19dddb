"""What the parent says of the same forest: the policy with its adapters off, scores stored before the first step, or a second model."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from etude.adaptation.contract import Attached
from etude.core.forest import Forest
from etude.core.sample import Example, Sample
from etude.core.scores import Scores
from etude.data.rows import Cut, rows_of
from etude.engine.progress import Progress, silent
from etude.errors import TrainingError
from etude.lineage.durable import lacking, write_whole
from etude.model.policy import Policy

Reference = Callable[[Forest, Sequence[Example]], Scores]
"""Takes a forest and the step it was cut from."""


def switched_off(policy: Policy, attached: Attached) -> Reference:
    """The policy's own forward with the adapters off: nothing to keep, one more forward without gradient."""

    def score(forest: Forest, _step: Sequence[Example]) -> Scores:
        with torch.no_grad(), attached.off():
            return policy(forest)

    return score


def second_copy(policy: Policy) -> Policy:
    """The policy as it is now, frozen, beside the one that will be trained: where the parent can be neither switched on nor scored once."""
    return Policy(copy.deepcopy(policy.model).eval().requires_grad_(False), layout=policy.layout, compute=policy.compute)


def beside(parent: Policy) -> Reference:
    """The scores of a model that is held in memory as well."""

    def score(forest: Forest, _step: Sequence[Example]) -> Scores:
        with torch.no_grad():
            return parent(forest)

    return score


class StoredReference:
    """Log-probabilities of the parent, computed once and laid over any forest in which the samples come again."""

    def __init__(self, examples: Sequence[Example], tensors: dict[str, Tensor]):
        """`tensors` as `compute` gives them, for the same examples in the same order."""
        self.numbers = {id(sample): i for i, sample in enumerate(_samples(examples))}
        self.examples = examples  # kept alive, because samples are known by identity
        self.starts, self.values = tensors["starts"], tensors["log_probability"]

    @staticmethod
    def compute(
        policy: Policy, examples: Sequence[Example], cut: Cut, progress: Progress = silent, *, with_values: bool = False
    ) -> dict[str, Tensor]:
        """Score every example under the policy as it is now.

        Args:
            with_values: whether a linear head says a value before each token, to be kept too.

        Returns:
            `starts` [samples + 1] and `log_probability` [tokens of all samples], 0 where nothing is supervised; `value` like that.
        """
        samples = _samples(examples)
        starts = torch.tensor([0, *(len(sample) for sample in samples)]).cumsum(0)
        values, expected = torch.zeros(int(starts[-1])), torch.zeros(int(starts[-1]) if with_values else 0)
        first = dict(zip((id(sample) for sample in samples), starts.tolist(), strict=False))
        for low in range(0, len(examples), 256):
            chunk = examples[low : low + 256]
            for forest in rows_of(chunk, cut):
                with torch.no_grad():
                    scores = policy(forest.to(policy.device), outputs="source" if with_values else None)
                places = _places(forest, torch.tensor([first[id(sample)] for sample in _laid_out(forest, chunk)]))
                values[places] = scores.log_probability.cpu()[forest.member_prediction]
                if scores.outputs is not None:
                    expected[places] = scores.outputs[:, 0].cpu()[forest.member_prediction]
                progress(forest.logical_tokens)
        return {"starts": starts, "log_probability": values} | ({"value": expected} if with_values else {})

    @staticmethod
    def whole(file: Path, examples: Sequence[Example], say: Callable[[str], None]) -> bool:
        """Whether the scores of these examples lie in `file`; a file that is torn, or of others, is said."""
        if not file.exists():
            return False
        starts = torch.tensor([0, *(len(sample) for sample in _samples(examples))]).cumsum(0)
        try:
            found = load_file(file)
            if torch.equal(found["starts"], starts) and found["log_probability"].shape == (int(starts[-1]),):
                return True
            problem = "it is of other rows"
        except (OSError, KeyError, SafetensorError) as error:
            problem = str(error)
        say(f"{file.name} cannot be used ({problem}): the parent is scored again")
        return False

    @staticmethod
    def write(file: Path, tensors: dict[str, Tensor]) -> None:
        """Keep what `compute` gave, whole and on the disk.

        Raises:
            TrainingError: no room, or a disk that refuses.
        """
        remedy = "make room, for instance by `etude clean`, and give the same command again"
        if figures := lacking(file.parent, sum(tensor.nbytes for tensor in tensors.values())):
            raise TrainingError(f"no room for the scores of the parent: {figures}", remedy)
        try:
            write_whole(file, lambda aside: save_file(tensors, aside))
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{file}: the scores of the parent could not be written: {error}", remedy) from error

    def __call__(self, forest: Forest, step: Sequence[Example]) -> Scores:
        begin = self.starts[torch.tensor([self.numbers[id(sample)] for sample in _laid_out(forest, step)])]
        device = forest.tokens.device
        on_cpu = forest.to("cpu")
        read = torch.zeros(len(on_cpu.target))
        read[on_cpu.member_prediction] = self.values[_places(on_cpu, begin)]
        return Scores(read.to(device))


def _samples(examples: Sequence[Example]) -> list[Sample]:
    return [sample for example in examples for sample in example.samples]


def _laid_out(forest: Forest, step: Sequence[Example]) -> list[Sample]:
    """The forest's samples in its own numbering: examples in the order of the step, samples in the order of the example."""
    return [sample for number in dict.fromkeys(forest.example) for sample in step[number].samples]


def _places(forest: Forest, begin: Tensor) -> Tensor:
    """[M] where each member's value lies, given where each sample's values begin; the target's position is one after its source's."""
    return begin[forest.member_sample] + forest.position[forest.source[forest.member_prediction]] + 1
