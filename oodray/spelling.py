"""One way to answer a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], *, what: str = "known") -> str:
    """The known name that is nearest to a mistyped one, as a question; else all of them.

    >>> did_you_mean("ood_ration", ["k", "ood_ratio"])
    "did you mean 'ood_ratio'?"
    >>> did_you_mean("speed", ["k", "ood_ratio"], what="known keys")
    'known keys: k, ood_ratio'
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"{what}: {', '.join(names)}"
