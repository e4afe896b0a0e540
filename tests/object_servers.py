"""Real object stores on this machine, each a process of its own."""

import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self
from urllib.error import URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import urlopen

import pytest

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")

_START_S, _HANG_S = 240.0, 60.0
BUCKET = "slides"
PAGE = 20
"""Number of keys in a page of a listing, so that also short ones have several."""


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def s3_environment(endpoint: str) -> dict[str, str]:
    """The environment variables with which a program finds an S3 server on this machine, and asks no one else."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextmanager
def moto_server(log: Path) -> Iterator[str]:
    """A context that yields the URL of a moto server, an S3 that holds its objects in memory.

    Args:
        log: File for what the server prints.
    """
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env={**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE)},
            stdout=stream,
            stderr=stream,
        )
    try:
        wait_for(endpoint)
        yield endpoint
    finally:
        server.kill()
        server.wait()


@contextmanager
def s3_named(endpoint: str, **others: str) -> Iterator[None]:
    """A context in which the environment names an S3 server on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**s3_environment(endpoint), **others}.items():
            patch.setenv(name, value)
        yield


def wait_for(endpoint: str) -> None:
    """Wait until a server answers."""
    until = time.monotonic() + _START_S
    while True:
        try:
            urlopen(endpoint, timeout=1).close()  # noqa: S310
            return
        except (URLError, TimeoutError) as error:
            if hasattr(error, "code"):  # it answers, if only with an error
                return
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def fill_bucket(endpoint: str, files: Mapping[str, bytes], bucket: str = BUCKET) -> None:
    """Put objects into a bucket, which is made if there is none; nothing else stays in it."""
    client = s3_client(endpoint)
    if bucket not in [made["Name"] for made in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=bucket)
    for held in client.list_objects_v2(Bucket=bucket).get("Contents", []):
        client.delete_object(Bucket=bucket, Key=held["Key"])
    for key, content in files.items():
        client.put_object(Bucket=bucket, Key=key, Body=content)


def s3_client(endpoint: str) -> Any:
    """A client of boto3, which sees a server as it is."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",  # noqa: S106
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that a proxy gives without asking the server."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


Fault = Answer | Literal["reset", "lost", "cut", "hang"] | None
"""What a proxy does to a request: it answers by itself; resets the connection, before or after the server has done what
was asked; ends the server's answer in the middle; answers never; None: nothing."""
DENIED = Answer(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
BUSY = Answer(503, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>")
FAULTS: tuple[Fault, ...] = (BUSY, DENIED, "reset", "cut")


def seeded_faults(share: float, seed: int = 0, faults: Sequence[Fault] = FAULTS) -> Callable[[str, str, int], Fault]:
    """A function that chooses faults for a share of all requests, the same ones whatever their order."""

    def choose(method: str, path: str, number: int) -> Fault:
        chance = random.Random(f"{seed} {method} {path} {number}")
        return chance.choice(faults) if chance.random() < share else None

    return choose


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: Any) -> None:
        """A client that goes away is no error."""


class FaultProxy:
    """A proxy in front of a server on this machine, in threads, which fails some of the requests.

    Args:
        upstream: URL of the server.
        choose: Takes method and path of a request, and how often this path has been requested before.
    """

    def __init__(self, upstream: str, choose: Callable[[str, str, int], Fault]) -> None:
        self.requests: Counter[str] = Counter()
        """Number of requests by path."""
        self.faults: list[Fault] = []
        self.choose = choose
        self._server = _Server(("127.0.0.1", 0), partial(_Handler, self, urlsplit(upstream)))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault_of(self, method: str, path: str) -> Fault:
        """The fault of the next request."""
        number = self.requests[path]
        self.requests[path] += 1
        fault = self.choose(method, path, number)
        if fault is not None:
            self.faults.append(fault)
        return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, proxy: FaultProxy, upstream: SplitResult, *arguments: Any) -> None:
        self._proxy, self._upstream = proxy, upstream
        super().__init__(*arguments)

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self._proxy.fault_of(self.command, self.path.partition("?")[0])
        if isinstance(fault, Answer):
            self._send(fault.status, fault.body, fault.headers)
        elif fault == "reset":
            self._reset()
        elif fault == "hang":
            time.sleep(_HANG_S)
        else:
            upstream = HTTPConnection(self._upstream.hostname or "", self._upstream.port)
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
            headers = [pair for pair in answer.getheaders() if pair[0].lower() not in _OF_THE_CONNECTION]
            upstream.close()
            if fault == "lost":
                self._reset()
            else:
                self._send(answer.status, content, headers, is_cut=fault == "cut")

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _send(self, status: int, body: bytes, headers: Iterable[tuple[str, str]], *, is_cut: bool = False) -> None:
        self.send_response_only(status)
        headers = dict(headers)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        for name, value in {**headers, "Content-Length": length or str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if is_cut else body)
        self.close_connection = self.close_connection or is_cut

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815

    def log_message(self, *arguments: Any) -> None:
        """Nothing is printed."""


_OF_THE_CONNECTION = ("connection", "transfer-encoding", "keep-alive", "server", "date")
