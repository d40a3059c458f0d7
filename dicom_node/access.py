"""Who may call: known peers by AE title and address."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
from dataclasses import dataclass

LOGGER = logging.getLogger(__name__)

_ANY_TITLE = "*"
#: Seconds for which the addresses of a host name are believed.
_NAMES_LAST = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownPeer:
    """A peer that may open associations."""

    #: What people call it.
    name: str
    #: "*" stands for every AE title.
    ae_title: str
    #: A host name, an address, or a network as 10.1.0.0/16; "" is any address.
    host: str = ""


class PeerBook:
    """Finds the peer behind a calling AE title and a source address.

    An AE title is no proof of identity; with the address it is what DIMSE without TLS has.
    """

    def __init__(self, peers: tuple[KnownPeer, ...]) -> None:
        self._peers = peers
        self._networks = {peer.host: network for peer in peers if (network := _network(peer.host))}
        self._names: dict[str, tuple[float, frozenset[str]]] = {}
        self._lock = threading.Lock()

    def knows_title(self, ae_title: str) -> bool:
        """Whether any peer has this AE title."""
        return any(peer.ae_title in (ae_title, _ANY_TITLE) for peer in self._peers)

    def find(self, ae_title: str, address: str) -> KnownPeer | None:
        """The peer with this AE title at this address."""
        for peer in self._peers:
            if peer.ae_title in (ae_title, _ANY_TITLE) and self._is_at(peer.host, address):
                return peer
        return None

    def _is_at(self, host: str, address: str) -> bool:
        if not host:
            return True
        source = _unmapped(address)
        network = self._networks.get(host)
        if network is not None:
            return source in network
        return str(source) in self._addresses(host)

    def _addresses(self, host: str) -> frozenset[str]:
        """What a host name stands for now; a name that does not resolve stands for nothing."""
        with self._lock:
            until, addresses = self._names.get(host, (0.0, frozenset()))
        if time.monotonic() < until:
            return addresses
        try:
            found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
            addresses = frozenset(str(_unmapped(str(entry[4][0]))) for entry in found)
        except (OSError, UnicodeError):
            LOGGER.warning("the host name of a known peer does not resolve: %s", host)
            addresses = frozenset()
        with self._lock:
            self._names[host] = (time.monotonic() + _NAMES_LAST, addresses)
        return addresses


def _network(host: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """The network that `host` writes down, None where it is a name."""
    try:
        return ipaddress.ip_network(host, strict=False)
    except ValueError:
        return None


def _unmapped(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address; an IPv4 one that came over an IPv6 socket as IPv4 (RFC 4291 section 2.5.5.2)."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed
