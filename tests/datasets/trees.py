"""Datasets of empty files, to find samples in."""

from __future__ import annotations

from pathlib import Path

from oodray.datasets.layout import Layout


def touch(root: Path, *names: str) -> Path:
    """Empty files below root: nothing here decodes them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(layout: Layout, root: Path) -> dict[str, tuple[str, str | None]]:
    """The samples by id, as paths below root."""

    def below(uri: str | None) -> str | None:
        return None if uri is None else Path(uri).relative_to(root).as_posix()

    return {sample.image_id: (below(sample.image_uri) or "", below(sample.label_uri)) for sample in layout.find(root)}
