"""The table of settings in `docs/reference.md`, made from their declarations: `python -m oodray.report.reference`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from oodray.config import SETTINGS
from oodray.settings import Setting

BEGIN = "<!-- The table of settings: made by `make reference`, do not edit. -->\n"
END = "<!-- End of the table. -->\n"

_HEADINGS = ("setting", "option", "value", "default", "fixed", "what it is")


def settings_table() -> str:
    """A Markdown table, one row per setting."""
    rows = [_HEADINGS, ["---"] * len(_HEADINGS), *map(_row, SETTINGS.values())]
    return "".join(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |\n" for row in rows)


def with_settings_table(document: str) -> str:
    """A document with the table of today between its two marks.

    Raises:
        ValueError: it lacks one of them.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the marks of the table are not there: {BEGIN.strip()} and {END.strip()}")
    return before + begin + "\n" + settings_table() + "\n" + end + after


def _row(setting: Setting) -> list[str]:
    check, about = setting.about.check, setting.about
    option = " / ".join(f"`{spelling}`" for spelling in setting.option.split("/")) if about.commands else ""
    return [
        f"`{setting.name}`",
        option,
        setting.expected if check is None else check.expected,
        about.unset or _as_in_yaml(setting.default),
        "yes" if about.identity else "no",
        f"{about.help}.",
    ]


def _as_in_yaml(default: Any) -> str:
    if default is None:
        return "needed"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(with_settings_table(target.read_text(encoding="utf-8")), encoding="utf-8")
