"""The table of docs/novelty.md, from what `candidates` wrote: `python -m benchmarks.research.table OUT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def table(folder: Path) -> str:
    """AP / FPR95 of every candidate on every set, with half the width of the 95 % interval of AP; Markdown."""
    columns = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.gap*.json"))}
    names = list(dict.fromkeys(name for found in columns.values() for name in found))
    lines = ["| candidate | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    lines += [
        f"| {name} | " + " | ".join(_cell(found.get(name)) for found in columns.values()) + " |" for name in names
    ]
    return "\n".join(lines)


def _cell(found: dict[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['ap']:.1f} ± {(found['ap_high'] - found['ap_low']) / 2:.1f} / {found['fpr']:.1f}"


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
