"""One large file from the web: resumed where it stopped, checked, and put in its place whole.

huggingface_hub downloads too, and is used where a run needs the many files of a model (`oodray.models.weights.hub`). It
does not do what is wanted of these files of up to 736 MB, tried with version 2.4.0 against a server on this machine:

* `hf_hub_download` deletes what has arrived when it is interrupted or gives up, and never takes up what a killed
  process left: the same command begins at byte 0. Inside a call it goes on, at the last multiple of 10 MiB.
* It compares lengths, not sha256.
* It refuses a mirror that gives the files alone, without the headers of the hub.
* A page to sign in to a network is reported as a file of the wrong length.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path

from filelock import FileLock, Timeout

from oodray.errors import DownloadError
from oodray.models.weights.wrong_files import describe_wrong_file
from oodray.storage.atomic import sha256_of

ATTEMPTS = 5
"""How often in a row nothing new may arrive before a download is given up."""

TIMEOUT = 60.0
"""Seconds of silence after which a connection counts as lost."""

LONGEST_WAIT = 60.0
"""Seconds to wait between attempts at most, whatever the server asks for."""

Report = Callable[[int, int | None], None]
"""Called with the bytes that are here, and those of the whole file where the server has said so."""

_CHUNK = 2**18
_UNREACHABLE = (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError)


class CannotWriteError(DownloadError):
    """There is no room for a download, or no right to write it."""


class _TryAgainError(Exception):
    """A download stopped in a way that is worth another attempt, after `wait` seconds if the server said so."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


def download(url: str, target: Path, *, sha256: str, report: Report) -> None:
    """Make `target` the file at `url`.

    What has arrived is kept beside it, under a name with a leading dot, until it is complete and has the right
    sha256: a download that was cut goes on from there, in this call or in a later one.

    Raises:
        DownloadError: if the file cannot be had, or has another sha256.
    """
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"{url} is not an address of the web; it must begin with https:// or http://")
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(part):
            spliced = _complete(url, part, report)
            if spliced and sha256_of(part) != sha256:
                # The pieces may be of two different files: once from the start.
                part.unlink()
                _complete(url, part, report)
            _check(part, sha256, url)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(target)
    except OSError as error:
        raise CannotWriteError(f"cannot write {target}: {error.strerror or error}") from error


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[None]:
    """One process at a time writes to `part`."""
    try:
        with FileLock(part.with_name(f"{part.name}.lock"), timeout=0):
            yield
    except Timeout as error:
        raise DownloadError(f"another process is downloading {part}; wait for it") from error


def _check(part: Path, sha256: str, url: str) -> None:
    found = sha256_of(part)
    if found == sha256:
        return
    wrong = describe_wrong_file(part)
    part.unlink()
    reason = f"sha256 {found}" if wrong is None else wrong
    raise DownloadError(f"{url} did not give the file that was published: {reason}. Nothing was kept.")


def _complete(url: str, part: Path, report: Report) -> bool:
    """Fetch what `part` lacks, in as many attempts as it takes; whether it is made of several pieces."""
    pieces = int(_size(part) > 0)
    failures = 0
    while True:
        before = _size(part)
        try:
            _fetch_rest(url, part, report)
            return pieces > 0
        except _TryAgainError as cut:
            failures = 1 if _size(part) > before else failures + 1
            pieces += 1
            if failures >= ATTEMPTS:
                raise DownloadError(
                    f"{url} cannot be downloaded now: {cut}. {_size(part):,} bytes are kept; "
                    "the same command goes on from there."
                ) from cut
            time.sleep(min(cut.wait if cut.wait is not None else 2.0 ** (failures - 1), LONGEST_WAIT))


def _fetch_rest(url: str, part: Path, report: Report) -> None:
    """One request: append to `part` what it lacks; write it anew where the server sends the file from its start."""
    have = _size(part)
    headers = {"User-Agent": "oodray", "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    response = _open(urllib.request.Request(url, headers=headers), part)
    if response is None:
        return
    with response:
        if response.status == http.client.PARTIAL_CONTENT:
            start, total = _content_range(response.headers)
            if start != have:
                part.unlink(missing_ok=True)
                raise _TryAgainError(f"the server sent bytes from {start} instead of {have}")
        else:
            have, total = 0, _number(response.headers.get("Content-Length"))
        with part.open("ab" if have else "wb") as file:
            while chunk := _read(response):
                file.write(chunk)
                have += len(chunk)
                report(have, total)
    if total is not None and have < total:
        raise _TryAgainError(f"the connection ended after {have:,} of {total:,} bytes")


def _open(request: urllib.request.Request, part: Path) -> http.client.HTTPResponse | None:
    """The server's answer; None if it says that all of the file is here."""
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and _is_whole(part, error.headers):
                return None
            raise _refusal(error) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, _UNREACHABLE):
            raise DownloadError(f"cannot reach {request.host}: {reason}. Is this machine on the network?") from error
        raise _TryAgainError(f"the connection failed: {reason or type(reason).__name__}") from error
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise DownloadError(f"{request.full_url} gave a web page, not the file: does this network ask to sign in?")
    return response


def _is_whole(part: Path, headers: Message) -> bool:
    """Whether `part` has as many bytes as the server says that the file has; else it is of no use."""
    _, total = _content_range(headers)
    if total is not None and total == _size(part):
        return True
    part.unlink(missing_ok=True)
    return False


def _refusal(error: urllib.error.HTTPError) -> DownloadError | _TryAgainError:
    """What an answer that is no success means."""
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        return _TryAgainError("the file at the server is not longer than what was here", wait=0)
    answer = f"the server answered {error.code} {error.reason}"
    if error.code >= 500 or error.code in (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS):
        return _TryAgainError(answer, _number(error.headers.get("Retry-After")))
    return DownloadError(f"{error.url} cannot be downloaded: {answer}")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        # What is there already: bytes waiting for a full chunk would be lost with the connection.
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _TryAgainError(f"the connection broke: {error or type(error).__name__}") from error


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """First byte and length of the whole, as `bytes 5-9/10` or `bytes */10` says, None where it does not."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", ""))
    return (None, None) if found is None else (_number(found[1]), _number(found[2]))


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
