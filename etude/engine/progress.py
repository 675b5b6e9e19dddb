"""How long work reports on itself: logical tokens (as if nothing were shared) since the last report. Who shows it is not its business."""

from collections.abc import Callable

Progress = Callable[[int], None]


def silent(_tokens: int) -> None:
    """For callers that show nothing."""
