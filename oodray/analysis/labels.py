"""Whether the images of a run have labels, which most numbers need."""

from __future__ import annotations

import pyarrow.compute as pc

from oodray.analysis.files import CountedFiles
from oodray.errors import DatasetError
from oodray.results.folder import ResultsFolder


def refuse_without_labels(folder: ResultsFolder, so: str) -> None:
    """Refuse a run of which no image has a label.

    Args:
        folder: of the run.
        so: what follows from that.

    Raises:
        DatasetError: no image that is done has a label.
        ResultsError: there are no results, or a file cannot be read.
    """
    folder.read_run()
    tables = CountedFiles.of(folder).tables(["label_uri"])
    if not any(pc.count(table["label_uri"]).as_py() for table in tables):
        raise DatasetError(
            f"no image of {folder.path} has a label, so {so}; `oodray report {folder.path}` shows what was found"
        )
