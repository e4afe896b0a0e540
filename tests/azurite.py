"""Azurite, Microsoft's own Azure Blob Storage for tests, and a bucket in it or in moto, by one name."""

import base64
import hashlib
import hmac
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.object_servers import BUCKET, free_port, moto_server, s3_environment, wait_for

AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account that every azurite has, and its key, which Microsoft publishes."""
_PATIENCE_S = 60.0


@contextmanager
def object_server(kind: str, folder: Path) -> Iterator[str]:
    """A context that yields the URL of a new bucket, which this process and those that it starts can use.

    Args:
        kind: ``moto`` or ``azurite``.
        folder: An empty folder for what the server writes.
    """
    if kind == "moto":
        with moto_server(folder / "moto.log") as endpoint, _environment(s3_environment(endpoint)):
            import boto3

            boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
            yield f"s3://{BUCKET}"
        return
    if (program := azurite_program(folder)) is None:
        pytest.skip("azurite is not installed, and npm cannot install it")
    with azurite_server(program, folder) as endpoint, _environment(azurite_environment(endpoint)):
        yield f"az://{BUCKET}"


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    saved = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def azurite_environment(endpoint: str) -> dict[str, str]:
    """The environment variables with which a program finds azurite on this machine."""
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": AZURITE_ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": AZURITE_KEY,
        "AZURE_STORAGE_ENDPOINT": endpoint,
    }


def azurite_program(folder: Path) -> Path | None:
    """The program azurite-blob, installed in ``folder`` by npm where it is not installed; None where that fails."""
    if installed := shutil.which("azurite-blob"):
        return Path(installed)
    if not (npm := shutil.which("npm")):
        return None
    options = ["--no-audit", "--no-fund", "--no-save", "--prefix", str(folder)]
    done = subprocess.run([npm, "install", *options, "azurite@3"], capture_output=True, check=False)
    program = folder / "node_modules" / ".bin" / "azurite-blob"
    return program if done.returncode == 0 and program.exists() else None


@contextmanager
def azurite_server(program: Path, folder: Path) -> Iterator[str]:
    """A context that yields the URL of azurite, an Azure Blob Storage in memory, with the container `BUCKET`.

    Args:
        program: See `azurite_program`.
        folder: Folder that the server may write to.
    """
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}"
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    server = subprocess.Popen(
        [program, *options, "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )
    try:
        wait_for(endpoint)
        _create_container(endpoint)
        yield endpoint
    finally:
        server.kill()
        server.wait()


def _create_container(endpoint: str) -> None:
    date = formatdate(usegmt=True)
    headers = {"x-ms-date": date, "x-ms-version": "2021-12-02"}
    signed = "\n".join(
        ["PUT", *[""] * 11, *(f"{name}:{value}" for name, value in headers.items())]
        + [f"/{AZURITE_ACCOUNT}/{AZURITE_ACCOUNT}/{BUCKET}", "restype:container"]
    )
    digest = hmac.new(base64.b64decode(AZURITE_KEY), signed.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {AZURITE_ACCOUNT}:{base64.b64encode(digest).decode()}"
    headers["Content-Length"] = "0"
    url = f"{endpoint}/{BUCKET}?restype=container"
    urlopen(Request(url, method="PUT", headers=headers), timeout=_PATIENCE_S).close()  # noqa: S310
