"""Every error oodray raises on purpose.

    OodrayError                exit code 1
    ├── RunError               the run started and failed
    ├── DownloadError          a file cannot be had from the web; what arrived is kept
    ├── ImageError             one image cannot be processed: becomes a row with status "error"
    └── RequestError           exit code 2: the request was wrong, nothing was started
        ├── ConfigError        an option, a config file or a preset
        ├── DatasetError       a dataset that is not there or not in its layout
        ├── ModelError         a network, its config or its weights
        └── ResultsError       a results folder that cannot be read or continued

A message says what is wrong, where, and what to do next.
"""

from __future__ import annotations


class OodrayError(Exception):
    """Base of all errors with a message meant for the user."""

    exit_code = 1


class RunError(OodrayError):
    """The run started and failed."""


class DownloadError(OodrayError):
    """A file cannot be had from the web."""


class ImageError(OodrayError):
    """One image cannot be processed; the run records it and goes on."""


class RequestError(OodrayError):
    """The request was wrong; nothing was started."""

    exit_code = 2


class ConfigError(RequestError):
    """An option, a config file or a preset is wrong."""


class DatasetError(RequestError):
    """A dataset is not there or not in its layout."""


class ModelError(RequestError):
    """A network, its config or its weights cannot be used."""


class ResultsError(RequestError):
    """A results folder cannot be read or continued."""
