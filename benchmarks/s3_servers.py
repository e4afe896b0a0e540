"""S3 servers on this machine: rclone's, which is fast, and one that lists any number of keys that it makes up."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

BUCKET = "slides"
_PAGE = 1000
_START_S = 60.0
_MODIFIED = "Wed, 21 Oct 2015 07:28:00 GMT"


@contextmanager
def rclone_server(folder: Path) -> Iterator[Mapping[str, str]]:
    """A context that serves the subfolders of a folder as buckets, and yields the environment variables to use it."""
    program = Path(sys.executable).with_name("rclone")
    port = _free_port()
    with _served(
        [str(program), "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", "--auth-key", "bench,bench"]
        + ["--config", os.devnull, "--log-level", "ERROR"],
        port,
    ) as variables:
        yield variables


@contextmanager
def listing_server(keys: int, image: Path) -> Iterator[Mapping[str, str]]:
    """A context that serves a bucket of so many keys, all of one image, and yields the environment variables."""
    port = _free_port()
    with _served([sys.executable, "-m", __name__, str(port), str(keys), str(image)], port) as variables:
        yield variables


@contextmanager
def _served(command: list[str], port: int) -> Iterator[Mapping[str, str]]:
    server = subprocess.Popen(command)
    try:
        _wait_for(port, server)
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + _START_S
    while server.poll() is None and time.monotonic() < until:
        try:
            urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
            return
        except URLError as error:
            if hasattr(error, "code"):  # it answers, if only with an error
                return
            time.sleep(0.05)
    raise RuntimeError("the server has not started")


class _Handler(BaseHTTPRequestHandler):
    """Answers for a bucket whose keys are made up when they are listed; a token is the number of the next key."""

    protocol_version = "HTTP/1.1"

    def __init__(self, keys: int, image: bytes, *arguments: Any) -> None:
        self._keys, self._image = keys, image
        super().__init__(*arguments)

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._send(self._page(int(query.get("continuation-token", ["0"])[0])), "text/xml")
        else:
            self._send(self._image, "image/jpeg")

    def _page(self, first: int) -> bytes:
        last = min(self._keys, first + _PAGE)
        listed = "".join(
            f"<Contents><Key>slides/part-{number // 10_000:04d}/{number:08d}.jpg</Key><ETag>0</ETag>"
            f"<LastModified>2015-10-21T07:28:00.000Z</LastModified><Size>{len(self._image)}</Size></Contents>"
            for number in range(first, last)
        )
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
        ending = more if last < self._keys else "<IsTruncated>false</IsTruncated>"
        return f"<ListBucketResult><Name>{BUCKET}</Name>{ending}{listed}</ListBucketResult>".encode()

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Last-Modified": _MODIFIED, "ETag": "0"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Nothing is printed."""


if __name__ == "__main__":
    _handler = partial(_Handler, int(sys.argv[2]), Path(sys.argv[3]).read_bytes())
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _handler).serve_forever()
