"""Numbers and messages in words, as several reports need them."""

from __future__ import annotations


def rate_text(rate: float) -> str:
    """A positive number in two digits, or all of those before the point.

    >>> rate_text(123.4), rate_text(4), rate_text(0.0512)
    ('123', '4.0', '0.051')
    """
    if rate < 1:
        return f"{rate:.2g}"
    return f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"


def duration_text(seconds: float) -> str:
    """Seconds as minutes and seconds, with hours where there are some.

    >>> duration_text(117), duration_text(3661.7)
    ('1:57', '1:01:02')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def one_line(text: str) -> str:
    r"""The text without line breaks and control characters.

    >>> one_line("out of memory:\n  tried 2 GiB")
    'out of memory: tried 2 GiB'
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
