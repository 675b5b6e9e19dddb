"""What a reward is: a number for an answer that the policy wrote."""

from abc import abstractmethod

from pydantic import Field

from etude.recipe.strict import Leaf


class Reward(Leaf):
    """Options of a way to score answers."""

    weight: float = Field(default=1.0)
    """By what it is multiplied before rewards are summed; below zero it is a penalty."""

    @property
    def files(self) -> tuple[str, ...]:
        """Files that it is made of."""
        return ()

    @property
    def reads_with(self) -> str | None:
        """The artefact whose head says what answers are worth, in place of `score`; None where `score` does."""
        return None

    @abstractmethod
    def score(self, prompt: str, expected: str, answer: str) -> float:
        """What an answer is worth.

        Args:
            prompt: what was read, as text with its special tokens.
            expected: the row's own answer; empty where it has none.
            answer: what was written, without the token that ended it.
        """
