"""Real object stores on this machine, each a process of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

_START_S = 60.0
BUCKET = "slides"


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
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=stream, stderr=stream
        )
    try:
        wait_for(endpoint)
        yield endpoint
    finally:
        server.kill()
        server.wait()


def wait_for(endpoint: str) -> None:
    """Wait until a server answers."""
    until = time.monotonic() + _START_S
    while True:
        try:
            urlopen(endpoint, timeout=1).close()  # noqa: S310
            return
        except URLError as error:
            if hasattr(error, "code"):  # it answers, if only with an error
                return
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
