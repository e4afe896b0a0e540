"""Errors of object stores in one line: what the server or the network said, and what to set."""

import re
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

_STATUS = re.compile(r"status code: (\d{3}(?: [A-Z][\w-]*)*)")
_CODE = re.compile(r"<Code>([\w.]+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*?)(?:\s*RequestId:[^<]*)?</Message>")
_REGION = re.compile(r"expecting '([\w-]+)'")
_LONGEST = 200
_CAUSES = {
    "dns error": "its server is not known by this name",
    "ConnectionRefused": "its server refuses connections",
    "BadScheme": "its server is not asked without encryption (https)",
    "InvalidCertificate": "its server has no valid certificate",
    "ConnectionReset": "the connection was reset",
    "IncompleteMessage": "the connection was closed before the answer",
    "IncompleteBody": "the answer ended early",
    "end of file before message length reached": "the answer ended early",
    "TimedOut": "no answer in time",
    "BareRedirect": "it is in another region",
    "NotPartial": "its server does not read parts of objects",
    "Connect,": "its server cannot be reached",
    "Precondition": "it was changed while it was read",
}
"""Words in obstore's error, and what they mean."""
_WRONG_KEYS = frozenset(
    ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired")
)
_NEVER_ANSWERED = ("invalid path", "BareRedirect", "BadScheme", "dns error", "/latest/api/token", "token request")
_HOW_TO_SIGN = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; or, if anyone may read it: "
    "export AWS_SKIP_SIGNATURE=true",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS=FILE, or run: gcloud auth application-default login; or, if anyone may "
    "read it: export GOOGLE_SKIP_SIGNATURE=true",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN; or, if anyone may "
    "read it: export AZURE_SKIP_SIGNATURE=true",
}
_ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "the network", "az": "AZURE_STORAGE_ACCOUNT_NAME"}


def short_reason(error: BaseException) -> str:
    """What the server or the network said, in one line, without URLs, whose queries may hold a signature."""
    text = str(error)
    status = _STATUS.search(text)
    code, message = _CODE.search(text), _MESSAGE.search(text)
    if status:
        parts = [part[1].strip() for part in (code, message) if part and part[1].strip()]
        return _line(f"{status[1]} ({': '.join(parts)})" if parts else status[1])
    for words, meaning in _CAUSES.items():
        if words in text:
            return meaning
    first = text.partition("\n\nDebug source")[0]
    return _line(re.sub(r"\?\S+", "?...", first))


def is_final(error: BaseException) -> bool:
    """Whether an error will not pass by itself: there is no such bucket, the credentials are none, it is elsewhere."""
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    is_told = status is not None and status[1][:3] in ("301", "307", "400", "404")
    has_wrong_keys = code is not None and code[1] in _WRONG_KEYS
    return is_told or has_wrong_keys or any(words in text for words in _NEVER_ANSWERED)


def how_to_sign(scheme: str) -> str:
    """What to set to give credentials to the provider of a scheme."""
    return _HOW_TO_SIGN.get(scheme, "batchcls signs no requests to web servers")


def place_problem(url: str, error: BaseException, endpoint: str = "") -> str:
    """The reason for which a bucket cannot be used at all, and what to set, in one line.

    Args:
        url: URL of the bucket, or of a place in it.
        error: Error of obstore.
        endpoint: URL of the server, where the user has set one.
    """
    text, scheme = str(error), url.partition("://")[0]
    status, reason = _STATUS.search(text), short_reason(error)
    code = _CODE.search(text)
    at_server = f" at {endpoint.rpartition('@')[2]}" if endpoint else ""
    if "Could not parse path" in text:
        return f"{url!r} is no name that can be read: {reason}; name a folder above it"
    if "invalid path" in text:
        return f"{url!r} holds a name that cannot be listed: {reason}; rename it, or name what is beside it"
    if "token request" in text or "/latest/api/token" in text or "169.254.169.254" in text:
        return f"no credentials were found for {url!r}; {how_to_sign(scheme)}"
    if "BareRedirect" in text or "region" in reason:
        region = (_REGION.search(text) or ["", ""])[1] or _region_of(url, endpoint)
        return f"the bucket of {url!r} is in another region; run: export AWS_REGION={region or 'REGION'}"
    if (code and code[1] in _WRONG_KEYS) or (status and status[1][:3] in ("401", "403")):
        return f"access to {url!r}{at_server} is refused: {reason}; {how_to_sign(scheme)}"
    if isinstance(error, FileNotFoundError) or (status and status[1].startswith("404")):
        return f"there is no bucket of {url!r}{at_server}; see whether its name and {_ENDPOINTS.get(scheme)} are right"
    return f"{url!r}{at_server} cannot be used: {reason}; see whether {_ENDPOINTS.get(scheme, 'the URL')} is right"


def _region_of(url: str, endpoint: str) -> str:
    """The region in which S3 says that a bucket is; empty if it does not say."""
    bucket = url.partition("://")[2].partition("/")[0]
    server = endpoint or "https://s3.amazonaws.com"
    try:
        with urlopen(Request(f"{server}/{bucket}", method="HEAD"), timeout=5) as answer:  # noqa: S310  # unsigned
            return str(answer.headers.get("x-amz-bucket-region", ""))
    except HTTPError as error:
        return str(error.headers.get("x-amz-bucket-region", ""))
    except (URLError, OSError, ValueError):
        return ""


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
