"""A model by name, ready to answer: what `etude.load` returns and `etude chat` talks with."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.compose.artefacts import Opened, look_up, open_model
from etude.compose.voice import Voice
from etude.errors import ModelError
from etude.lineage.store import open_store
from etude.model.device import best_device, choose_dtype, use_threads
from etude.model.generate import generate, stream

Messages = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An artefact or a base with its tokenizer; an adapter's parent is one switch away."""

    opened: Opened

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
    return Model(open_model(look_up(name, store, voice), store, dtype=compute, device=device, voice=voice))


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
