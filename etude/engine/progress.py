"""How long work reports on itself: tokens computed since the last report. Who shows it is not the engine's business."""

from collections.abc import Callable

Progress = Callable[[int], None]


def silent(_tokens: int) -> None:
    """For callers that show nothing."""
