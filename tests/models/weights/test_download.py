from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_server import FileServer, Handler, serving
from filelock import FileLock

from oodray.errors import DownloadError
from oodray.models.weights import download as module
from oodray.models.weights.download import ATTEMPTS, LONGEST_WAIT, download

CONTENT = np.random.default_rng(0).bytes(1_500_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(CONTENT) as state:
        yield state


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds between attempts, which are not waited for."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "weights.pth"


@pytest.fixture
def part(target: Path) -> Path:
    """Where the beginning of the file is kept, with the folder made."""
    target.parent.mkdir()
    return target.with_name(f".{target.name}.part")


class Get:
    """A download of the server's file, with what was reported."""

    def __init__(self, server: FileServer, target: Path) -> None:
        self.server, self.target = server, target
        self.reports: list[tuple[int, int | None]] = []

    def __call__(self, sha256: str = SHA256) -> None:
        download(
            f"{self.server.address}/weights.pth",
            self.target,
            sha256=sha256,
            report=lambda done, total: self.reports.append((done, total)),
        )


@pytest.fixture
def get(server: FileServer, target: Path) -> Get:
    return Get(server, target)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*.part"))


class TestWhole:
    def test_the_file_arrives(self, get: Get, target: Path, server: FileServer) -> None:
        get()
        assert target.read_bytes() == CONTENT
        assert (visible(target.parent), parts(target.parent)) == (["weights.pth"], [])
        assert server.ranges == [None]

    def test_progress_is_reported(self, get: Get) -> None:
        get()
        done = [done for done, _ in get.reports]
        assert len(done) > 3
        assert done == sorted(set(done))
        assert get.reports[-1] == (len(CONTENT), len(CONTENT))

    def test_a_server_that_does_not_say_how_much(self, get: Get, target: Path, server: FileServer) -> None:
        def untold(handler: Handler) -> None:
            handler.send_response(200)
            handler.send_header("Connection", "close")
            handler.end_headers()
            handler.wfile.write(CONTENT)
            handler.cut()

        server.script = [untold]
        get()
        assert target.read_bytes() == CONTENT
        assert get.reports[-1] == (len(CONTENT), None)


class TestCut:
    def test_it_goes_on_where_the_connection_was_cut(
        self, get: Get, target: Path, server: FileServer, waits: list[float]
    ) -> None:
        server.script = [lambda handler: handler.give(sent=400_000), lambda handler: handler.give(sent=300_000)]
        get()
        assert target.read_bytes() == CONTENT
        assert server.ranges == [None, "bytes=400000-", "bytes=700000-"]
        assert waits == [1, 1]  # something arrived each time

    def test_a_later_call_goes_on(self, get: Get, target: Path, part: Path, server: FileServer) -> None:
        part.write_bytes(CONTENT[:1_000_000])
        get()
        assert target.read_bytes() == CONTENT
        assert server.ranges == ["bytes=1000000-"]
        assert parts(target.parent) == []

    def test_it_is_given_up_when_nothing_more_arrives(
        self, get: Get, target: Path, part: Path, server: FileServer, waits: list[float]
    ) -> None:
        server.script = [lambda handler: handler.give(sent=400_000)] + 10 * [lambda handler: handler.give(sent=0)]
        with pytest.raises(DownloadError, match=r"the connection ended after 400,000 of 1,500,000 bytes.*are kept"):
            get()
        assert len(server.ranges) == ATTEMPTS
        assert waits == [1, 2, 4, 8][: ATTEMPTS - 1]
        assert not target.exists()
        assert part.read_bytes() == CONTENT[:400_000]
        server.script.clear()
        get()
        assert target.read_bytes() == CONTENT

    def test_before_any_answer(self, get: Get, target: Path, server: FileServer) -> None:
        server.script = [Handler.cut]
        get()
        assert target.read_bytes() == CONTENT

    def test_a_server_that_falls_silent(
        self, get: Get, target: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "TIMEOUT", 0.2)

        def hang(handler: Handler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(CONTENT)))
            handler.end_headers()
            handler.wfile.write(CONTENT[:1000])
            handler.wfile.flush()
            handler.rfile.read(1)  # until the other side gives up
            handler.close_connection = True

        server.script = [hang]
        get()
        assert target.read_bytes() == CONTENT
        assert server.ranges == [None, "bytes=1000-"]


class TestWrongBytes:
    def test_are_not_kept(self, get: Get, target: Path, server: FileServer) -> None:
        server.script = [lambda handler: handler.give(content=CONTENT[::-1])]
        with pytest.raises(DownloadError, match=r"did not give the file that was published: sha256 [0-9a-f]{64}\. Not"):
            get()
        assert visible(target.parent) == parts(target.parent) == []
        assert len(server.ranges) == 1

    def test_at_the_beginning_are_fetched_again(self, get: Get, target: Path, part: Path, server: FileServer) -> None:
        part.write_bytes(b"of another version" * 1000)
        get()
        assert target.read_bytes() == CONTENT
        assert server.ranges == ["bytes=18000-", None]

    def test_of_a_file_that_changed_while_it_was_downloaded(self, get: Get, target: Path, server: FileServer) -> None:
        server.script = [lambda handler: handler.give(content=CONTENT[::-1], sent=400_000)]
        get()
        assert target.read_bytes() == CONTENT
        assert server.ranges == [None, "bytes=400000-", None]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"<!DOCTYPE html><title>Sign in</title>", "it is a web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "it is a Git LFS pointer"),
            (b"", "it is empty"),
        ],
        ids=["html", "lfs", "nothing"],
    )
    def test_are_recognised(self, get: Get, target: Path, server: FileServer, content: bytes, message: str) -> None:
        server.script = [lambda handler: handler.give(content=content)]
        with pytest.raises(DownloadError, match=message):
            get()
        assert visible(target.parent) == []

    def test_a_page_to_sign_in_leaves_what_had_arrived(self, get: Get, part: Path, server: FileServer) -> None:
        part.write_bytes(CONTENT[:1000])
        server.script = [lambda handler: handler.refuse(200, b"<html>", Content_Type="text/html; charset=utf-8")]
        with pytest.raises(DownloadError, match="gave a web page, not the file"):
            get()
        assert part.read_bytes() == CONTENT[:1000]

    def test_the_target_stays_what_it_was(self, get: Get, target: Path, server: FileServer) -> None:
        target.parent.mkdir()
        target.write_bytes(b"older")
        with pytest.raises(DownloadError):
            get(sha256="0" * 64)
        assert target.read_bytes() == b"older"


class TestRanges:
    def test_a_server_that_ignores_them(self, get: Get, target: Path, part: Path, server: FileServer) -> None:
        part.write_bytes(CONTENT[:700_000])

        def whole(handler: Handler) -> None:
            del handler.headers["Range"]
            handler.give()

        server.script = [whole]
        get()
        assert target.read_bytes() == CONTENT
        assert server.ranges == ["bytes=700000-"]

    @pytest.mark.parametrize("content_range", ["bytes 7-1499999/1500000", "nonsense", ""])
    def test_a_server_that_sends_another_one(
        self, get: Get, target: Path, part: Path, server: FileServer, content_range: str
    ) -> None:
        part.write_bytes(CONTENT[:700_000])
        server.script = [lambda handler: handler.refuse(206, CONTENT[7:], Content_Range=content_range)]
        get()
        assert target.read_bytes() == CONTENT
        assert server.ranges == ["bytes=700000-", None]

    def test_416_when_everything_is_here(self, get: Get, target: Path, part: Path, server: FileServer) -> None:
        part.write_bytes(CONTENT)
        get()
        assert target.read_bytes() == CONTENT
        assert server.ranges == [f"bytes={len(CONTENT)}-"]

    @pytest.mark.parametrize("here", [CONTENT + b"more", CONTENT[::-1]], ids=["too-long", "other-bytes"])
    def test_416_when_what_is_here_is_of_no_use(
        self, get: Get, target: Path, part: Path, server: FileServer, here: bytes
    ) -> None:
        part.write_bytes(here)
        get()
        assert target.read_bytes() == CONTENT
        assert server.ranges == [f"bytes={len(here)}-", None]

    def test_416_that_does_not_say_how_long_the_file_is(
        self, get: Get, target: Path, part: Path, server: FileServer
    ) -> None:
        part.write_bytes(CONTENT[:1000])
        server.script = [lambda handler: handler.refuse(416)]
        get()
        assert target.read_bytes() == CONTENT
        assert server.ranges == ["bytes=1000-", None]

    def test_416_for_no_range_at_all(self, get: Get, server: FileServer) -> None:
        server.script = 10 * [lambda handler: handler.refuse(416)]
        with pytest.raises(DownloadError, match="cannot be downloaded now"):
            get()
        assert len(server.ranges) == ATTEMPTS


class TestAnswers:
    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    def test_a_file_that_is_not_there_is_said_at_once(self, get: Get, server: FileServer, status: int) -> None:
        server.script = [lambda handler: handler.refuse(status)]
        with pytest.raises(DownloadError, match=rf"weights\.pth cannot be downloaded: the server answered {status} "):
            get()
        assert len(server.ranges) == 1

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_a_busy_server_is_asked_again(
        self, get: Get, target: Path, server: FileServer, waits: list[float], status: int
    ) -> None:
        server.script = 2 * [lambda handler: handler.refuse(status)]
        get()
        assert target.read_bytes() == CONTENT
        assert waits == [1, 2]

    @pytest.mark.parametrize(("asked", "waited"), [("7", 7), ("0", 0), ("86400", LONGEST_WAIT), ("tomorrow", 1)])
    def test_after_as_long_as_it_says(
        self, get: Get, server: FileServer, waits: list[float], asked: str, waited: float
    ) -> None:
        server.script = [lambda handler: handler.refuse(503, Retry_After=asked)]
        get()
        assert waits == [waited]

    def test_a_server_that_stays_busy(self, get: Get, target: Path, server: FileServer) -> None:
        server.script = 100 * [lambda handler: handler.refuse(503)]
        with pytest.raises(DownloadError, match=r"cannot be downloaded now: the server answered 503.*0 bytes are kept"):
            get()
        assert len(server.ranges) == ATTEMPTS
        assert not target.exists()

    def test_redirects_are_followed_with_the_range(
        self, get: Get, target: Path, part: Path, server: FileServer
    ) -> None:
        part.write_bytes(CONTENT[:1000])
        server.script = [lambda handler: handler.refuse(302, Location=f"{server.address}/elsewhere")]
        get()
        assert target.read_bytes() == CONTENT
        assert server.ranges == ["bytes=1000-", "bytes=1000-"]


class TestNoNetwork:
    def test_a_port_where_nobody_listens(self, target: Path, waits: list[float]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(DownloadError, match=rf"cannot reach {address}: .*Is this machine on the network\?"):
            download(f"http://{address}/a.pth", target, sha256=SHA256, report=lambda done, total: None)
        assert waits == []
        assert not target.exists()

    def test_a_name_that_nobody_knows(self, target: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*_arguments: Any, **_options: Any) -> Any:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        with pytest.raises(DownloadError, match=r"cannot reach hub\.invalid: .*Name or service not known"):
            download("https://hub.invalid/a.pth", target, sha256=SHA256, report=lambda done, total: None)
        assert waits == []

    @pytest.mark.parametrize("url", ["mirror/a.pth", "file:///etc/hostname", ""])
    def test_what_is_no_address_of_the_web(self, target: Path, url: str) -> None:
        with pytest.raises(DownloadError, match="is not an address of the web"):
            download(url, target, sha256=SHA256, report=lambda done, total: None)
        assert not target.parent.exists()


class TestFiles:
    def test_one_process_at_a_time(self, get: Get, part: Path, server: FileServer) -> None:
        with (
            FileLock(part.with_name(f"{part.name}.lock")),
            pytest.raises(DownloadError, match="another process is downloading"),
        ):
            get()
        assert server.ranges == []
        get()

    def test_a_folder_that_cannot_be_written(self, server: FileServer, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DownloadError, match=r"cannot write .*file/weights\.pth"):
            Get(server, tmp_path / "file" / "weights.pth")()
