"""Progress with an estimated end: a bar on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["track"]

T = TypeVar("T")
log = logging.getLogger("phenohit")


def track(
    items: Iterable[T],
    title: str,
    total: int | None = None,
    every_s: float = 10.0,
    note: Callable[[], str] | None = None,
) -> Iterator[T]:
    """Yield `items` while showing how far we are.

    Parameters
    ----------
    items : iterable
    title : str
        What is being done, e.g. ``"forest: assays"``.
    total : int, optional
        Number of items; taken from `items` where it has a length.
    every_s : float
        Off a terminal, seconds between log lines. Work that ends sooner logs nothing.
    note : function, optional
        What else to say whenever something is shown, such as an error so far.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # pyright: ignore[reportArgumentType]
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(desc=title, total=total, leave=False, mininterval=0.2) as bar:
            for item in items:
                yield item
                if note is not None:
                    bar.set_postfix_str(note(), refresh=False)
                bar.update()
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= every_s:
            last = now
            left = "" if not total else f", about {(now - start) / done * (total - done):.0f} s left"
            rate, said = "", "" if note is None else note()
            if note is not None:
                rate = f", {done / (now - start):.3g} a second"
            log.info(
                "%s: %d%s done%s%s%s", title, done, f" of {total}" if total else "", rate, left, said and f"; {said}"
            )
