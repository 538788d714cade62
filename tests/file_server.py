"""An HTTP server on this machine that gives one file, well or badly."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


@dataclass
class FileServer:
    """What the server gives, and what it was asked.

    Attributes:
        content: the file.
        script: what is done instead of a good answer, request by request; a good answer when it is used up.
        ranges: the Range header of every request so far.
        address: where it listens.
    """

    content: bytes
    script: list[Callable[[Handler], None]] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    address: str = ""


class Handler(BaseHTTPRequestHandler):
    """Answers ranges as the web asks for it."""

    server_state: ClassVar[FileServer]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        state = self.server_state
        state.ranges.append(self.headers.get("Range"))
        if state.script:
            state.script.pop(0)(self)
        else:
            self.give()

    def give(self, content: bytes | None = None, sent: int | None = None) -> None:
        """A good answer; of its body the first `sent` bytes alone, and then the connection is cut."""
        content = self.server_state.content if content is None else content
        start = self.range_start()
        if start > 0 and start >= len(content):
            self.refuse(416, Content_Range=f"bytes */{len(content)}")
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:sent])
        if sent is not None:
            self.cut()

    def refuse(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def cut(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(2)

    def range_start(self) -> int:
        text = self.headers.get("Range", "bytes=0-")
        return int(text.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, *_arguments: object) -> None:
        """Keeps quiet."""


@contextlib.contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    state = FileServer(content)
    handler = type("OneFile", (Handler,), {"server_state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()
