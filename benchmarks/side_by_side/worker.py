"""One side in a process of its own: it waits for a line before every step and before its end, and idles while the other sides work."""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import TextIO


class Turns:
    """The line protocol: `step` comes in, `{"seconds": …, "loss": …}` goes out."""

    def __init__(self, answers: TextIO):
        self.answers = answers

    def hand_over(self, **values: object) -> None:
        """Answer, and return when it is this side's turn again: whatever follows would else run beside another side's step.

        The process ends where nobody will ever ask.
        """
        self.say(**values)
        if not sys.stdin.readline():
            raise SystemExit("the benchmark is gone")

    def say(self, **values: object) -> None:
        self.answers.write(json.dumps(values) + "\n")
        self.answers.flush()


def resident(line: str) -> int:
    """Bytes of this process's memory: `VmRSS` now, `VmHWM` at the highest point so far (unlike getrusage's, not its parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(next(found for found in status.splitlines() if found.startswith(f"{line}:")).split()[1]) * 1024


def main(module: str, side: str, work: Path) -> None:
    """`module` has a function `train(side, work, turns)` that runs the plan in `work`."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    runs = importlib.import_module(module)
    importlib.import_module("transformers.models.llama.modeling_llama")  # else it would count as memory of the training
    imports = resident("VmRSS")
    turns = Turns(answers)
    facts = runs.train(side, work, turns)
    turns.say(imports=imports, peak=resident("VmHWM"), facts=facts)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
