"""Is this data fit to be learnt from? Every check, what the rows look like together, and a cleaned copy."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from etude.catalog import CHECKS
from etude.compose.artefacts import look_at, look_up, open_model
from etude.compose.birth import base_of
from etude.compose.check_page import as_page, as_table
from etude.compose.looking import Meant, meant_by
from etude.compose.voice import Voice
from etude.data.checks.contract import Finding
from etude.data.checks.every import Unmade, findings, in_order
from etude.data.checks.material import Material, gather
from etude.data.checks.portrait import Side, portrait
from etude.data.locate import locate
from etude.data.mend import Mended, mend
from etude.data.questions import read_questions
from etude.data.rows import Cut
from etude.errors import DataError
from etude.evaluation import beforehand
from etude.lineage.store import Store, open_store
from etude.model.device import best_device, choose_dtype, use_threads
from etude.model.policy import Policy
from etude.model.probe import choose_layout
from etude.recipe.corpus import Benchmark

TOKENS_PER_ROW = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """What was found in the data. `rich` prints it as a table."""

    path: str
    base: str | None
    """Whose tokenizer read the rows; None where none was named."""
    rows: int
    """All rows that were read."""
    held_out: int
    """Of those, the ones that are judged on."""
    found: list[Finding]
    """The worst first."""
    unmade: list[Unmade]
    """Checks that were not made, and why."""
    notes: list[str]
    """What was decided about the sources."""
    sides: list[Side]
    """Lengths and diversity."""
    mended: Mended | None
    """The cleaned copy, where one was asked for."""

    @property
    def errors(self) -> int:
        """Kinds of findings that stop a run or make its numbers untrue."""
        return sum(one.severity == "error" for one in self.found)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, every row number among them."""
        copy = None if self.mended is None else {name: str(v) if isinstance(v, Path) else v for name, v in asdict(self.mended).items()}
        found = [
            {
                "kind": one.kind,
                "severity": one.severity,
                "what": one.what,
                "remedy": one.remedy,
                "rows": [{"source": place.source, "row": place.row} for place in one.rows],
                "examples": list(one.examples),
                "removed_by_fix": len(set(one.drop)),
                "repaired_by_fix": len({repair.place for repair in one.repairs}),
            }
            for one in self.found
        ]
        return {
            "path": self.path,
            "base": self.base,
            "rows": self.rows,
            "held_out": self.held_out,
            "errors": self.errors,
            "findings": found,
            "not_checked": [asdict(one) for one in self.unmade],
            "notes": self.notes,
            "portrait": [asdict(side) for side in self.sides],
            "fixed": copy,
        }

    def to_html(self) -> str:
        """One page that needs nothing else."""
        return as_page(self)

    def __rich__(self) -> RenderableType:
        return as_table(self)


def data_check(
    path: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    stage: str | None = None,
    against: Sequence[str] = (),
    model: bool = False,
    fix: str | os.PathLike[str] | None = None,
    voice: Voice | None = None,
    project: Path | None = None,
) -> Checked:
    """Look for what is wrong in rows, all of it, with row numbers and what to do about it.

    Args:
        path: a file or `hub:` data set of rows, or a recipe, whose held-out rows, template and context are then checked too.
        base: whose tokenizer and template read a file's rows; without it they are only read. A recipe names its own.
        stage: which stage of a recipe; by default its first.
        against: files or `hub:` data sets of questions that must not be trained on.
        model: also score the rows with the base: which it answers already, which it finds absurd. Takes minutes on a CPU.
        fix: write a cleaned copy of the file there, and what went and why beside it.

    Raises:
        EtudeError: the recipe, the data or the base cannot be read, or the copy cannot be written.
    """
    path, voice = os.fspath(path), voice or Voice()
    meant, store = meant_by(path, stage), open_store(project)
    named = None if base is None else os.fspath(base)
    if model and named is None and meant.recipe is None:
        raise DataError("no model is named", "name it with `--base`, or check a recipe")
    if fix is not None:
        _fixable(meant, Path(fix))
    outline = meant.outline(store, voice) or (look_at(named, store, voice) if named is not None else None)
    if meant.recipe is not None and outline is not None:
        named = meant.recipe.base if isinstance(meant.recipe.base, str) else outline.reference
    tokenizer, stop_ids = (outline.tokenizer, outline.stop_ids) if outline is not None else (None, frozenset())
    material = gather(meant.data, tokenizer, roles=meant.roles, stop_ids=stop_ids, seed=meant.seed)
    if fix is not None and material.stretches:
        raise DataError(f"--fix {fix}: a text is one row, which cannot be left out of itself", "mend it in an editor, by the findings")
    material.against = read_questions([Benchmark(path=one) for one in against])
    with voice.bar("checking", len(CHECKS), "checks") as advance:
        every = findings(material, lambda check: advance(1, check))
    found = every.found
    unmade = every.unmade
    if model and named is not None and material.prepared is not None:
        scoring = named if meant.recipe is None else base_of(meant.recipe, store, voice)  # a newborn is born for this
        found = in_order([*found, *_by_model(scoring, material, voice, store)])
    elif named is not None and not model:
        unmade = [*unmade, Unmade("beforehand", "rows were not scored with the base: that takes minutes", "ask for it with `--model`")]
    mended = None
    if fix is not None:
        (file,), _ = locate(meant.data.sources[0].path)
        mended = mend(file, Path(fix), found)
    return Checked(path, named, len(material.entries), len(material.held_out), found, unmade, material.notes, portrait(material), mended)


def _fixable(meant: Meant, out: Path) -> None:
    """One file can be copied cleaned; of several nobody would know where the copy belongs."""
    sources = meant.data.sources
    one = len(sources) == 1 and not sources[0].path.startswith("hub:")
    files = locate(sources[0].path)[0] if one else []
    if len(files) != 1 or files[0].url is not None:
        raise DataError(f"--fix {out}: the data is more than one file, or lies elsewhere", "check and fix one file on this machine")


def _by_model(name: str, material: Material, voice: Voice, store: Store) -> list[Finding]:
    use_threads()
    device = best_device()
    dtype, _ = choose_dtype("auto", device)
    opened = open_model(look_up(name, store, voice), store, dtype=dtype, device=device, voice=voice)
    layout = choose_layout(opened.model)
    policy = Policy(opened.model, layout=layout.name, compute=dtype)
    assert material.prepared is not None
    examples = material.prepared.examples
    total = sum(len(sample) for example in examples for sample in example.samples)
    with voice.bar("scores of the base", total, "tokens") as advance:
        return list(beforehand.findings(policy, examples, Cut(TOKENS_PER_ROW, layout=layout.name), lambda tokens: advance(tokens, "")))
