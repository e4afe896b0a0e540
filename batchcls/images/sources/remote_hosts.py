"""Hosts that a list may name in URLs: none that only this machine can ask, such as a cloud's metadata service."""

import ipaddress
import socket
from functools import lru_cache

from batchcls.storage.transient_errors import NO_ANSWER

_METADATA = frozenset(
    map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
"""Addresses at which clouds tell a machine its credentials, beside the link-local ones."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@lru_cache(4096)  # the URLs of a list name few hosts
def host_refusal(host: str) -> str | None:
    """The reason for which a list may not name a host; None if it may.

    Hosts on private networks, as image servers are, may be named; this machine, and addresses that answer each machine
    with what is meant for it alone, may not.

    Args:
        host: Name or address, without brackets.
    """
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            return f"{NO_ANSWER} the name service for the host {host!r}"
        return f"there is no host {host!r}"
    except (OSError, UnicodeError):
        return f"there is no host {host!r}"
    for *_, address in answers:
        if _is_forbidden(ipaddress.ip_address(str(address[0]).partition("%")[0])):
            return (
                f"{host!r} is this machine, or a service that tells each machine its secrets, which no list may ask; "
                "name the URL itself in place of the list"
            )
    return None


def _is_forbidden(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_forbidden(inner)
    return (
        address in _METADATA
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
        or (address.version == 4 and int(address) >> 24 == 0)
    )
