"""Talking in a terminal: one question, or turn by turn, with the parent one word away."""

import sys
from typing import Any

from rich.console import Console

from etude.compose.models import Model


def converse(model: Model, question: str | None, system: str | None, *, parent: bool, temperature: float, max_new_tokens: int) -> None:
    """Answer on standard output; everything else goes to standard error."""
    console = Console(file=sys.stderr, highlight=False)
    start: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    messages = list(start)

    def answer() -> str:
        pieces = []
        # Without a template there are no turns: the last question alone is what it goes on from.
        asked = messages if model.reads_messages or start else messages[-1]["content"]
        for piece in model.stream(asked, max_new_tokens=max_new_tokens, temperature=temperature, parent=parent):
            sys.stdout.write(piece)
            sys.stdout.flush()
            pieces.append(piece)
        sys.stdout.write("\n")
        return "".join(pieces)

    if question is not None:
        messages.append({"role": "user", "content": question})
        answer()
        return
    console.print("/parent switches to what it was tuned from and back, /new begins again, /bye leaves", style="dim")
    if not model.reads_messages:
        console.print("no chat template: it goes on from each text that you type, and remembers none", style="yellow")
    while True:
        try:
            said = console.input("[bold]> [/bold]").strip()
        except EOFError:
            return
        if said == "/bye":
            return
        if said == "/new":
            messages = list(start)
        elif said == "/parent":
            if not model.has_parent:
                console.print("there is no adapter to switch off", style="yellow")
                continue
            parent = not parent
            console.print("now answering: " + ("its parent" if parent else "the artefact"), style="dim")
        elif said.startswith("/"):
            console.print(f"unknown command {said}; /parent, /new, /bye", style="yellow", markup=False)
        elif said:
            messages.append({"role": "user", "content": said})
            messages.append({"role": "assistant", "content": answer()})
