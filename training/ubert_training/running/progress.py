"""Progress bars on standard error; silent where nobody watches."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int], None]


@contextmanager
def progress_bar(description: str, total: int | None, *, disable: bool = False) -> Iterator[Advance]:
    """A bar of ``total`` steps (None: unknown); the yielded function advances it."""
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=disable,
    )
    with progress:
        task = progress.add_task(description, total=total)
        yield lambda steps: progress.advance(task, steps)


@contextmanager
def throughput_bar(description: str, reviews: int) -> Iterator[Callable[[int, int], None]]:
    """A bar of reviews that tells tokens a second; the yielded function takes further reviews and their tokens."""
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} tokens/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with progress:
        task = progress.add_task(description, total=reviews, rate=0.0)
        tokens, started = 0, time.perf_counter()

        def advance(further_reviews: int, further_tokens: int) -> None:
            nonlocal tokens
            tokens += further_tokens
            progress.update(task, advance=further_reviews, rate=tokens / (time.perf_counter() - started))

        yield advance
