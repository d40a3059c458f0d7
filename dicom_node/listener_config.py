"""How to listen: titles, limits and time-outs."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.access import KnownPeer
from dicom_node.loop_guard import LoopGuard


@dataclass(frozen=True, kw_only=True)
class ListenerConfig:
    """How to listen."""

    ae_title: str
    #: 0 takes a free port.
    port: int
    host: str = "0.0.0.0"
    peers: tuple[KnownPeer, ...] = ()
    #: False lets any AE title at any address store; only the called AE title is checked then.
    require_known_peers: bool = True
    #: The longest P-DATA-TF PDU that we offer to take; DCMTK sends no longer ones than this default.
    max_pdu: int = 128 * 1024
    #: In all; a fifth of them is kept for others than the address that has the most.
    max_associations: int = 32
    #: Connections that have not asked for an association yet; each is one file descriptor.
    max_waiting: int = 256
    #: Seconds that a connection may take to ask for an association.
    association_timeout: float = 15.0
    #: Seconds without a byte after which an association is aborted.
    network_timeout: float = 60.0
    #: Seconds that `stop` waits for instances in hand.
    stop_seconds: float = 30.0
    #: Whom it keeps from being stored; None stores everything.
    guard: LoopGuard | None = None

    def __post_init__(self) -> None:
        if not 4096 <= self.max_pdu <= 1 << 20:
            raise ValueError(f"max_pdu must be between 4096 and 1048576 bytes, not {self.max_pdu}")
        if min(self.association_timeout, self.network_timeout) <= 0:
            raise ValueError("association_timeout and network_timeout must be positive: they free the slots")
