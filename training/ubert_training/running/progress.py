"""Progress bars on standard error."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int], None]


@contextmanager
def progress_bar(description: str, total: int | None, *, disable: bool = False) -> Iterator[Advance]:
    """A bar of ``total`` steps (None: unknown). Yields a function that advances it."""
    with _progress(disable=disable) as progress:
        task = progress.add_task(description, total=total)
        yield lambda steps: progress.advance(task, steps)


@contextmanager
def throughput_bar(description: str, reviews: int) -> Iterator[Callable[[int, int], None]]:
    """A bar of reviews that shows tokens per second. Yields a function that takes the reviews and tokens just done."""
    with _progress(TextColumn("{task.fields[rate]:,.0f} tokens/s")) as progress:
        task = progress.add_task(description, total=reviews, rate=0.0)
        tokens, started = 0, time.perf_counter()

        def advance(more_reviews: int, more_tokens: int) -> None:
            nonlocal tokens
            tokens += more_tokens
            progress.update(task, advance=more_reviews, rate=tokens / (time.perf_counter() - started))

        yield advance


def _progress(*more_columns: ProgressColumn, disable: bool = False) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *more_columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=disable,
    )
