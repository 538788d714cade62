"""A real S3 server, and a proxy before it that does what servers and networks do on a bad day."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}

BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextlib.contextmanager
def running(weed: str, folder: Path) -> Iterator[str]:
    """SeaweedFS as an S3 server on this machine, with an empty bucket; gives its address."""
    from pyarrow.fs import S3FileSystem

    names = ("s3", "master", "volume", "filer")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    keys = [{"accessKey": CREDENTIALS["AWS_ACCESS_KEY_ID"], "secretKey": CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}]
    identity = {"name": "tests", "credentials": keys, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    options = [f"-{name}.port={port}" for name, port in ports.items()]
    options += [f"-s3.config={folder / 's3.json'}", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    options += ["-volume.max=20", "-master.volumeSizeLimitMB=64", "-master.telemetry=false"]
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # which have ports of their own that another server may hold
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [weed, "server", "-s3", *options],
            stdout=log,
            stderr=log,
        )
    try:
        address, deadline = f"127.0.0.1:{ports['s3']}", time.monotonic() + 60
        store = S3FileSystem(
            access_key="key",
            secret_key="secret",
            region="us-east-1",
            scheme="http",
            endpoint_override=address,
            allow_bucket_creation=True,
        )
        while True:
            try:
                store.create_dir("bucket")
                break
            except OSError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                time.sleep(0.2)
        yield address
    finally:
        server.kill()  # asked to end, it takes half a minute, and nobody needs what it holds
        server.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, nor 10000 above: SeaweedFS takes those as well."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(20000, 30000)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10000))
            found.append(port)
    return found


class FaultyProxy:
    """Passes requests on to a server; some it answers with 503, cuts the answer of, or answers slowly.

    A context manager. `faults` counts what was done to requests; `cuts` are lengths to which the next answers are cut.
    """

    def __init__(self, server: str, *, share: float, seed: int = 0) -> None:
        host, port = server.split(":")
        self._server = host, int(port)
        self._share = share
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.faults: Counter[str] = Counter()
        self.cuts: list[int] = []

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def environment(self) -> dict[str, str]:
        """The variables with which pyarrow finds the store."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": f"http://{self.address}"}

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            request = _read_request(client)
            if request is None:
                return
            fault = "none"
            if self._random.random() < self._share:
                fault = self._random.choice(["busy", "cut", "slow"])
            self.faults[fault] += 1
            if fault == "busy":
                client.sendall(BUSY)
                return
            answer = self._ask(request)
            if self.cuts:
                client.sendall(answer[: self.cuts.pop(0)])
                return
            if fault == "cut":
                client.sendall(answer[: self._random.randrange(len(answer))])
            elif fault == "slow":
                for start in range(0, len(answer), max(1, len(answer) // 5)):
                    client.sendall(answer[start : start + max(1, len(answer) // 5)])
                    time.sleep(0.1)
            else:
                client.sendall(answer)

    def _ask(self, request: bytes) -> bytes:
        with socket.create_connection(self._server) as server:
            server.sendall(request)
            return b"".join(iter(lambda: server.recv(65536), b""))


def _read_request(client: socket.socket) -> bytes | None:
    """A request, whole; its connection is to be closed after the answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    if re.search(rb"(?im)^expect:", head):
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    chunked = re.search(rb"(?im)^transfer-encoding: *chunked", head)
    while (length and len(body) < int(length[1])) or (chunked and not body.endswith(b"\r\n0\r\n\r\n")):
        more = client.recv(65536)
        if not more:
            return None
        body += more
    lines = [line for line in head.split(b"\r\n") if not re.match(rb"(?i)(expect|connection):", line)]
    return b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body
