"""A reward model of this project as a reward: what people preferred, learnt before, is what answers are moved towards."""

from typing import Annotated, ClassVar

from pydantic import Field

from etude.objective.rewards.contract import Reward


class ByArtefact(Reward):
    """What a `reward` stage's head says at the answer's last token (https://arxiv.org/abs/2203.02155). It is a second model in memory."""

    kind: ClassVar[str] = "artefact"
    artefact: Annotated[str, Field(min_length=1)] = "reward"
    """Its name, `name@version` or an alias; where a stage of the same recipe makes it, that stage runs first. Its tokenizer must be that of
    the model that writes."""

    @property
    def reads_with(self) -> str:
        return self.artefact

    def score(self, prompt: str, expected: str, answer: str) -> float:
        raise NotImplementedError("the engine asks the artefact for all answers together")
