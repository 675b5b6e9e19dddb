"""How do processes run in turn, so that one works while the others idle?"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from side_by_side.figures import Measured
from side_by_side.plan import Plan

HERE = Path(__file__).parents[1]


class Side:
    """A worker process and what it answered."""

    def __init__(self, name: str, module: str, work: Path, threads: int):
        self.name, self.seconds, self.losses = name, [], []
        self.log = work / f"{name}.log"
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "side_by_side.worker", module, name, str(work)],
            cwd=HERE,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
        )

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_problem: object) -> None:
        self.process.kill()
        self.process.wait()

    def answer(self) -> dict[str, Any]:
        """The worker's next line, or a stop that shows how it died."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        end = "\n".join(self.log.read_text().splitlines()[-15:])
        raise SystemExit(f"the side {self.name!r} died (status {self.process.wait()}); its last words:\n{end}")

    def turn(self) -> dict[str, Any]:
        """Let it go on until its next answer."""
        assert self.process.stdin is not None
        self.process.stdin.write("go on\n")
        self.process.stdin.flush()
        return self.answer()

    def step(self) -> None:
        found = self.turn()
        self.seconds.append(found["seconds"])
        self.losses.append(found["loss"])

    def end(self) -> Measured:
        """Let it save its adapter and end before anybody else goes on."""
        last = self.turn()
        self.process.wait()
        return Measured(self.seconds, self.losses, **last)


def race(shape: str, plan: Plan, work: Path, sides: Mapping[str, str]) -> dict[str, Measured]:
    """Let sides take turns until the plan is done; what each of them measured.

    Args:
        sides: each one's name → the module whose `train` runs it.
    """
    work.mkdir()
    plan.write(work)
    with ExitStack() as stack:
        running = [stack.enter_context(Side(name, module, work, plan.threads)) for name, module in sides.items()]
        for side in running:
            assert side.answer() == {"ready": True}, "a side says when it is ready"
        for number in range(len(plan.steps)):
            for side in running:
                side.step()
            told = ", ".join(f"{side.name} {side.seconds[-1]:.2f} s" for side in running)
            print(f"{shape}, step {number + 1} of {len(plan.steps)}: {told}", file=sys.stderr, flush=True)
        return {side.name: side.end() for side in running}


def output(module: str, *arguments: str) -> Sequence[float]:
    """What a module prints as its last line, run in a process of its own."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=HERE, text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{module} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
