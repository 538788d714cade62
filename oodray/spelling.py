"""One way to answer a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], *, what: str = "known", most: int | None = None) -> str:
    """The known name that is nearest to a mistyped one, as a question; else all of them, or the first `most`.

    >>> did_you_mean("ood_ration", ["k", "ood_ratio"])
    "did you mean 'ood_ratio'?"
    >>> did_you_mean("speed", ["k", "ood_ratio"], what="known keys")
    'known keys: k, ood_ratio'
    >>> did_you_mean("SMIYC", ["issu", "smiyc"])
    "did you mean 'smiyc'?"
    >>> did_you_mean("", ["a/1", "a/2", "a/3"], what="known ids", most=2)
    'known ids: a/1, a/2, and 1 more'
    """
    names = list(known)
    small = {known_name.lower(): known_name for known_name in reversed(names)}
    close = difflib.get_close_matches(name.lower(), small, n=1)
    if close:
        return f"did you mean {small[close[0]]!r}?"
    more = [f"and {len(names) - most} more"] if most is not None and len(names) > most else []
    return f"{what}: {', '.join([*names[:most], *more])}"
