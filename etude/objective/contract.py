"""What the engine asks of an objective: sums and weights, never means. The engine alone divides."""

from abc import abstractmethod
from dataclasses import dataclass, field

from torch import Tensor

from etude.core.forest import Forest
from etude.core.sample import Example
from etude.core.scores import Scores
from etude.recipe.strict import Leaf


@dataclass(frozen=True, slots=True)
class Terms:
    """An objective's answer for one forest.

    `loss` has a differentiable sum for each term, to be divided by the weight of the same name. `metrics` has what is watched
    besides: each name's sum, and the term by whose weight it is divided.
    """

    loss: dict[str, Tensor]
    metrics: dict[str, tuple[Tensor, str]] = field(default_factory=dict)


class Objective(Leaf):
    """Pure functions of scores. `roles` says which samples an example must have."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that each example must bring; empty where samples stand alone."""
        return ()

    @property
    def needs_reference(self) -> bool:
        """Whether `loss` reads the parent's scores of the same forest."""
        return False

    @property
    def watched(self) -> tuple[str, ...]:
        """Names of the metrics that `loss` reports besides its terms."""
        return ()

    @abstractmethod
    def weight(self, examples: list[Example]) -> dict[str, float]:
        """What each term's sum will be divided by, counted from the data before any forward."""

    @abstractmethod
    def loss(self, scores: Scores, forest: Forest, reference: Scores | None = None) -> Terms:
        """The sums over this forest; over any cut of the step into forests they add up to the same."""

    def coefficients(self, forest: Forest) -> Tensor | None:
        """[N] d loss / d log-probability where it is known before the forward (linear objectives), else None.

        A trained head then needs its logits only once.
        """
        return None
