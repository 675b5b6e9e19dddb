"""Where is the project? The `.etude` folder of this directory or of the nearest one above it, as with git."""

from pathlib import Path

from etude.errors import LineageError

FOLDER = ".etude"


def find_project(start: Path | None = None) -> Path | None:
    """The nearest `.etude` at or above `start` (by default the current directory), or None."""
    here = (start or Path.cwd()).resolve()
    return next((above / FOLDER for above in (here, *here.parents) if (above / FOLDER).is_dir()), None)


def make_project(start: Path | None = None) -> Path:
    """The project folder: the nearest one, else a new one in `start` (by default the current directory).

    Raises:
        LineageError: it cannot be made there.
    """
    if found := find_project(start):
        return found
    folder = (start or Path.cwd()).resolve() / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        # Weights and checkpoints do not belong into the user's own repository.
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise LineageError(f"{folder}: cannot be made: {error}", "work in a directory that can be written") from error
    return folder
