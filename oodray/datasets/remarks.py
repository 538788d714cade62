"""What is noticed while a dataset is searched, and does not stop the search: a folder that may not be read, say.

Layouts search in functions of their own, which give pairs of files. Remarks reach the caller beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_MOST_NAMED = 3


@dataclass(frozen=True)
class Remark:
    """What was noticed.

    Attributes:
        text: in words.
        wrong: whether something is left out that may have been meant; otherwise it says how files were understood.
    """

    text: str
    wrong: bool = True


_listener: ContextVar[list[Remark] | None] = ContextVar("listener", default=None)


def remark(text: str, *, wrong: bool = True) -> None:
    """Say something to whoever listens; the same thing is said once."""
    heard = _listener.get()
    if heard is not None and Remark(text, wrong) not in heard:
        heard.append(Remark(text, wrong))


@contextmanager
def remarks() -> Iterator[list[Remark]]:
    """The remarks that are made in the block.

    >>> with remarks() as heard:
    ...     remark("a.heic is left out")
    >>> [made.text for made in heard]
    ['a.heic is left out']
    """
    heard: list[Remark] = []
    token = _listener.set(heard)
    try:
        yield heard
    finally:
        _listener.reset(token)


def examples(names: Iterable[object]) -> str:
    """The first few of many names, and how many more there are.

    >>> examples("abcde")
    'a, b, c and 2 more'
    """
    texts = [str(name) for name in names]
    more = len(texts) - _MOST_NAMED
    return ", ".join(texts[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
