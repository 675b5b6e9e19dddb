"""A model by name, ready to answer: what `etude.load` returns and `etude chat` talks with."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from etude.compose.artefacts import Opened, asking, look_up, open_model
from etude.compose.voice import Voice
from etude.core.sample import Example, Sample
from etude.core.scores import Outputs
from etude.data.encoder import Encoder
from etude.data.records import Completion, Conversation, Message
from etude.data.rows import Cut
from etude.data.samples import Teacher
from etude.data.template import Template
from etude.engine.score import leaf_outputs
from etude.errors import ModelError
from etude.lineage.store import open_store
from etude.model.device import best_device, choose_dtype, use_threads
from etude.model.generate import generate, stream
from etude.model.policy import Policy
from etude.model.probe import choose_layout

Messages = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An artefact or a base with its tokenizer; an adapter's parent is one switch away."""

    opened: Opened
    reader: Policy | None = None
    """What a head at the end of a text is read with, where it has one."""

    @property
    def has_parent(self) -> bool:
        """Whether `parent=True` gives answers of what it was tuned from."""
        return self.opened.attached is not None and self.opened.attached.can_switch_off

    @property
    def reads_messages(self) -> bool:
        """Whether there is a chat template; without one it reads a text and goes on from its end."""
        return self.opened.tokenizer.chat_template is not None

    def generate(
        self,
        prompt: str | Messages,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        parent: bool = False,
    ) -> str:
        """One answer.

        Args:
            prompt: a question, or the messages of a conversation that ends with the user's turn.
            temperature: 0 takes the most likely token every time.
            parent: answer as what it was tuned from.
        """
        if not parent:
            self._writes()
        with self._as(parent):
            (answer,) = generate(
                self.opened.model,
                [self.prompt(prompt)],
                stop_ids=self.opened.stop_ids,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
            )
        return str(self.opened.tokenizer.decode(answer.tokens, skip_special_tokens=True))

    def stream(self, prompt: str | Messages, *, max_new_tokens: int = 512, temperature: float = 0.0, parent: bool = False) -> Iterator[str]:
        """The same as it comes, piece by piece; characters of several tokens are held back until they are whole."""
        if not parent:
            self._writes()
        tokens: list[int] = []
        shown = ""
        with self._as(parent):
            stop_ids, model = self.opened.stop_ids, self.opened.model
            for token in stream(model, self.prompt(prompt), stop_ids=stop_ids, max_new_tokens=max_new_tokens, temperature=temperature):
                tokens.append(token)
                text = str(self.opened.tokenizer.decode(tokens, skip_special_tokens=True))
                if not text.endswith("\ufffd"):
                    yield text[len(shown) :]
                    shown = text

    def score(self, prompt: str | Messages, answer: str) -> float:
        """What a reward model finds an answer worth; only differences between answers to one prompt mean anything.

        Raises:
            ModelError: this is no reward model.
        """
        outputs = self._outputs("reward", "score")
        assert outputs.labels == ("reward",)
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        messages = tuple(Message(turn["role"], turn["content"], False) for turn in turns)
        alone = isinstance(prompt, str) and not self.reads_messages
        asked = Completion(str(prompt), answer) if alone else Conversation((*messages, Message("assistant", answer)))
        tokenizer, config = self.opened.tokenizer, self.opened.model.config.get_text_config()
        context = getattr(config, "max_position_embeddings", None) or 2**31  # ALiBi knows no last position
        teacher = Teacher(Template(tokenizer), Encoder(tokenizer, self.opened.stop_ids), "last-answer", "error", context)
        lesson = teacher.lesson(teacher.draft(asked))
        return float(self._at_the_end(lesson.examples[0][0].tokens)[0])

    def classify(self, prompt: str | Messages) -> dict[str, float]:
        """The probability of each label, the likeliest first.

        Raises:
            ModelError: this is no classifier with a head.
        """
        outputs = self._outputs("classify", "classify")
        logits = self._at_the_end(np.asarray(self.prompt(prompt), np.int32))
        shares = np.exp(logits - logits.max())
        told = dict(zip(outputs.labels, (shares / shares.sum()).tolist(), strict=True))
        return dict(sorted(told.items(), key=lambda one: -one[1]))

    def _outputs(self, kind: str, verb: str) -> Outputs:
        found = self.opened.outputs
        if found is None or found[0] != kind:
            what = "writes text" if found is None or found[1].at != "leaf" else f"was trained by {found[0]}"
            other = {"reward": "score", "classify": "classify"}.get(found[0] if found is not None else "", "generate")
            raise ModelError(f"{self.opened.parent.reference} {what}: it cannot `{verb}`", f"call its `{other}`")
        return found[1]

    def _at_the_end(self, tokens: np.ndarray) -> np.ndarray:
        """[outputs] of the head at the last token."""
        assert self.reader is not None, "it has a head"
        sample = Sample(tokens, np.zeros(len(tokens), np.float32))
        return leaf_outputs(self.reader, [Example((sample,), "asked", 1)], Cut(len(tokens), layout=self.reader.layout))[0]

    def _writes(self) -> None:
        """Refuse to write with what has lost its words.

        Raises:
            ModelError: its head scores; the vocabulary's was not trained with it.
        """
        if (found := self.opened.outputs) is not None and found[1].at == "leaf":
            name = self.opened.parent.reference
            what = f"{name} was trained by {found[0]} to score text, and writes none"
            raise ModelError(what, f"ask it from Python: `{asking(name, found)}`")

    def prompt(self, prompt: str | Messages) -> list[int]:
        """The tokens that the model will read, by the same template that training used."""
        tokenizer = self.opened.tokenizer
        if not self.reads_messages:
            if not isinstance(prompt, str):
                raise ModelError(
                    "this model has no chat template, so it cannot read messages", "ask one plain text, without a system message"
                )
            return tokenizer(prompt)["input_ids"]
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def _as(self, parent: bool) -> AbstractContextManager:
        if not parent:
            return nullcontext()
        if not self.has_parent or self.opened.attached is None:
            raise ModelError(f"{self.opened.parent.reference} holds no adapter to switch off", "load its parent by its own name")
        return self.opened.attached.off()


def load(name: str | os.PathLike[str], *, dtype: str = "auto", voice: Voice | None = None, project: Path | None = None) -> Model:
    """A model by `name`, `name@version`, hub id, folder, `.gguf` file or `package:module/file.gguf`.

    Args:
        dtype: `auto`, `float32` or `bfloat16`.

    Raises:
        EtudeError: what is missing, and the remedy.
    """
    name = os.fspath(name)
    use_threads()
    device = best_device()
    compute, _ = choose_dtype(dtype, device)  # type: ignore[bad-argument-type]
    store, voice = open_store(project), voice or Voice()
    opened, reader = open_model(look_up(name, store, voice), store, dtype=compute, device=device, voice=voice), None
    if opened.outputs is not None and opened.outputs[1].at == "leaf":
        reader = Policy(opened.model, layout=choose_layout(opened.model).name, compute=compute)
    return Model(opened, reader)


def chat(
    name: str | os.PathLike[str],
    question: str,
    *,
    system: str | None = None,
    parent: bool = False,
    temperature: float = 0.0,
    max_new_tokens: int = 512,
    project: Path | None = None,
) -> str:
    """One answer of a model by its name; `load` once for several.

    Args:
        name: as `load` takes it.
        system: a system message before the question.
        parent: answer as what the artefact was tuned from.
        temperature: 0 takes the most likely token every time.

    Raises:
        EtudeError: what is missing, and the remedy.
    """
    messages = [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": question}]
    model = load(name, project=project)
    asked = messages if model.reads_messages or system else question
    return model.generate(asked, temperature=temperature, max_new_tokens=max_new_tokens, parent=parent)
