"""How are names, places and numbers of things written on a terminal?"""

import re
from pathlib import Path


def short(reference: str) -> str:
    """A file or folder by its last part, a commit by its beginning; artefacts and hub ids as they are."""
    if reference.startswith(("/", "package:")):
        return Path(reference).name
    return re.sub(r"@([0-9a-f]{8})[0-9a-f]{32}$", r"@\1", reference)


def where(path: Path) -> str:
    """Relative to where the user stands, if it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def counted(number: int, what: str) -> str:
    """`1 thread`, `2 processes`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}{'es' if what.endswith('s') else 's'}"
