"""What the engine asks of an objective: sums and weights, never means. The engine alone divides."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from etude.core.forest import Forest
from etude.core.sample import Example
from etude.core.scores import Outputs, Scores
from etude.model.taught import Teaching
from etude.objective.rewards.contract import Reward
from etude.recipe.strict import Leaf


@dataclass(frozen=True, slots=True)
class Terms:
    """An objective's answer for one forest.

    `loss` has a differentiable sum for each term, to be divided by the weight of the same name. `metrics` has what is watched
    besides: each name's sum, and the term by whose weight it is divided.
    """

    loss: dict[str, Tensor]
    metrics: dict[str, tuple[Tensor, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an objective wants answers to be written and rewarded."""

    group: int
    """Answers to each prompt."""
    max_new_tokens: int
    temperature: float
    top_p: float
    rewards: tuple[Reward, ...]
    updates: int = 1
    """Optimizer steps on the answers of one step."""
    beside_parent: bool = False
    """Whether the parent's log-probabilities are written down with them."""


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """An answer that the policy wrote, with what was known of it then; arrays of one length, [L] float64."""

    reward: float
    old: np.ndarray
    """Each token's log-probability."""
    value: np.ndarray
    """What the head expected before each token; 0 where there is none."""
    parent: np.ndarray | None
    """Each token's log-probability under the parent, where it was asked for."""


NOTHING: Mapping[str, float] = {}


class Objective(Leaf):
    """Pure functions of scores. `roles` says which samples an example must have."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that the rows of data must bring; empty where samples stand alone."""
        return ()

    @property
    def prepares(self) -> tuple[str, ...]:
        """Roles of samples that are only scored, without gradient and over the whole step, for what `prepare` makes of them."""
        return ()

    @property
    def prepared(self) -> tuple[str, ...]:
        """Names of what `prepare` gives."""
        return ()

    def settle(
        self, train: Sequence[Example], held_out: Sequence[Example], decode: Callable[[Sequence[int]], str], say: Callable[[str], None]
    ) -> "Objective":
        """The objective as it is for these rows, such as with the labels found in them; `decode` leaves special tokens out.

        Raises:
            DataError: the rows do not say what it needs.
        """
        return self

    def arrange(self, examples: Sequence[Example]) -> list[Example]:
        """What is learnt from, given a source's rows; here an objective adds samples that only it needs."""
        return list(examples)

    @property
    def unit(self) -> str:
        """What its loss is counted in, for people; only likelihoods are nats a token."""
        return f"as {self.kind} counts it"

    @property
    def weighs_tokens(self) -> bool:
        """Whether every supervised token counts by its own weight, so that rows of other sources may be mixed in at other weights."""
        return False

    @property
    def reads_everything(self) -> bool:
        """Whether `loss` reads more of the policy's scores than log-probabilities."""
        return False

    @property
    def outputs(self) -> Outputs | None:
        """What it reads of a linear head on the final hidden state, which is born at zero and trained with the adaptation."""
        return None

    @property
    def writes(self) -> bool:
        """Whether its result writes text; a head that is read at leaves takes the vocabulary's place."""
        return self.outputs is None or self.outputs.at != "leaf"

    @property
    def choices(self) -> Mapping[str, tuple[int, ...]]:
        """Where it tells labels apart, each with the tokens of its words as an answer; known once it is settled."""
        return {}

    @property
    def usual_choice(self) -> str:
        """The label that most training rows have."""
        return ""

    @property
    def needs_reference(self) -> bool:
        """Whether `loss` reads the parent's scores of the same forest."""
        return False

    @property
    def teaching(self) -> Teaching | None:
        """Whose distributions `loss` compares the policy's with; None where there is no teacher."""
        return None

    @property
    def watched(self) -> tuple[str, ...]:
        """Names of the metrics that `loss` reports besides its terms."""
        return ()

    @property
    def sampling(self) -> Sampling | None:
        """How the policy writes what is learnt from; None where the rows are learnt from as they are."""
        return None

    @property
    def files(self) -> tuple[str, ...]:
        """Files beside the recipe that decide what is learnt: changed, they make another stage."""
        return ()

    def advantages(self, rewards: np.ndarray) -> np.ndarray:
        """[G] rewards of the answers to one prompt → what each is moved by; 0 where tokens are moved by what `by_token` says."""
        return np.zeros(len(rewards))

    def by_token(self, written: Sequence[Written]) -> list[dict[str, np.ndarray]]:
        """All answers of a step → for each what `loss` must know of its tokens, by name, [L]; see `Forest.member_known`."""
        return [{} for _ in written]

    @abstractmethod
    def weight(self, examples: list[Example]) -> dict[str, float]:
        """What each term's sum will be divided by, counted from the data before any forward."""

    def prepare(self, scores: Scores, forest: Forest, reference: Scores | None = None) -> dict[str, tuple[Tensor, str]]:
        """Sums over a forest of the roles in `prepares`, each with the term by whose weight it is divided; `loss` gets the means."""
        return {}

    @abstractmethod
    def loss(self, scores: Scores, forest: Forest, reference: Scores | None = None, constants: Mapping[str, float] = NOTHING) -> Terms:
        """The sums over this forest; over any cut of the step into forests they add up to the same.

        Args:
            reference: the parent's scores of the same forest, where `needs_reference`.
            constants: means over the whole step of what `prepare` gave.
        """

    def coefficients(self, forest: Forest) -> Tensor | None:
        """[N] d loss / d log-probability where it is known before the forward (linear objectives), else None.

        A trained head then needs its logits only once.
        """
        return None
