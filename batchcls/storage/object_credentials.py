"""Credentials for object stores, found as each provider's own tools find them; none is stored or shown."""

import os
import socket
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from batchcls.errors import SlidesError
from batchcls.storage.object_reasons import how_to_sign

_METADATA_SERVER = ("169.254.169.254", 80)
"""Address at which a machine of a cloud finds the credentials of its role."""
_METADATA_S = 1.0
_PREFIXES = ("AWS_", "GOOGLE_", "AZURE_")
_FOUND_BY_OBSTORE: dict[str, tuple[str, ...]] = {
    "s3": (
        *("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    ),
    "gs": (
        *("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_SERVICE_ACCOUNT_KEY"),
        "GOOGLE_APPLICATION_CREDENTIALS",
    ),
    "az": (
        *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"),
        *("AZURE_STORAGE_TOKEN", "AZURE_CLIENT_SECRET", "AZURE_STORAGE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"),
        *("AZURE_USE_AZURE_CLI", "AZURE_STORAGE_USE_EMULATOR", "AZURE_MSI_ENDPOINT", "IDENTITY_ENDPOINT"),
    ),
}
"""Environment variables from which obstore itself finds credentials, by scheme."""
_SKIP = {"s3": "AWS_SKIP_SIGNATURE", "gs": "GOOGLE_SKIP_SIGNATURE", "az": "AZURE_SKIP_SIGNATURE"}


def provider_environment() -> dict[str, str]:
    """The environment variables of all providers."""
    return {name: value for name, value in os.environ.items() if name.startswith(_PREFIXES)}


def credential_options(bucket_url: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """The options that let a store of obstore find credentials; empty where it finds them by itself.

    Raises:
        SlidesError: If there are none.
    """
    scheme = bucket_url.partition("://")[0]
    if is_true(environment.get(_SKIP[scheme])) or any(environment.get(name) for name in _FOUND_BY_OBSTORE[scheme]):
        return {}
    if scheme == "az" and not environment.get("AZURE_STORAGE_ACCOUNT_NAME"):
        raise SlidesError(f"{bucket_url!r} names a container, and no account; {how_to_sign(scheme)}")
    if scheme == "s3" and find_spec("boto3"):
        return _of_boto3(bucket_url)
    if scheme == "az" and find_spec("azure") and find_spec("azure.identity"):
        from obstore.auth.azure import AzureCredentialProvider

        return {"credential_provider": AzureCredentialProvider()}
    if scheme == "gs" and _google_default_file().is_file():
        return {}
    if not _is_in_cloud(environment):
        raise SlidesError(f"no credentials were found for {bucket_url!r}; {how_to_sign(scheme)}")
    return {}


def is_true(value: str | None) -> bool:
    """Whether the value of an environment variable says yes."""
    return (value or "").lower() in ("1", "true", "yes", "on", "y")


def _of_boto3(bucket_url: str) -> dict[str, Any]:
    from obstore.auth.boto3 import Boto3CredentialProvider

    boto_error = import_module("botocore.exceptions").BotoCoreError  # a package without types
    try:
        return {"credential_provider": Boto3CredentialProvider()}
    except (boto_error, ValueError) as error:
        why = f" ({' '.join(str(error).split())})" if isinstance(error, boto_error) else ""
        raise SlidesError(f"no credentials were found for {bucket_url!r}{why}; {how_to_sign('s3')}") from error


def _google_default_file() -> Path:
    return Path.home() / ".config" / "gcloud" / "application_default_credentials.json"


def _is_in_cloud(environment: Mapping[str, str]) -> bool:
    """Whether this machine has a server that gives the credentials of its role; elsewhere asking takes minutes."""
    if is_true(environment.get("AWS_EC2_METADATA_DISABLED")):
        return False
    try:
        socket.create_connection(_METADATA_SERVER, _METADATA_S).close()
    except OSError:
        return False
    return True
