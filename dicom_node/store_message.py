"""C-STORE requests and responses as bytes (PS3.7 section 9.3.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dicom_node.errors import DicomNodeError

_C_STORE_RQ = 0x0001
_C_STORE_RSP = 0x8001
#: PS3.7 E.1: any other value of (0000,0800) says that a data set follows.
NO_DATA_SET = 0x0101
#: PS3.7 E.2: the message control header of a command's last fragment.
_LAST_COMMAND_FRAGMENT = 0x03


class ProtocolError(DicomNodeError):
    """The peer breaks the message protocol: the association is to be aborted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreRequest:
    """A C-STORE-RQ, as sent (PS3.7 table 9.3-1)."""

    message_id: int
    #: Raw: to be checked before they name anything.
    sop_class_uid: bytes
    sop_instance_uid: bytes
    has_data_set: bool


def parse_request(command: bytes | bytearray) -> StoreRequest:
    """Read a command set (PS3.7 section 6.3.1: always implicit VR little endian). Raises `ProtocolError`."""
    values: dict[int, bytes] = {}
    position = 0
    try:
        while position < len(command):
            group, element, length = struct.unpack_from("<HHL", command, position)
            if group != 0:
                raise ProtocolError("a command set holds an element that is not of group 0000")
            position += 8
            values[element] = bytes(command[position : position + length])
            position += length
        if _number(values, 0x0100) != _C_STORE_RQ:
            raise ProtocolError("a message on a storage context is not a C-STORE request")
        return StoreRequest(
            message_id=_number(values, 0x0110),
            sop_class_uid=values[0x0002],
            sop_instance_uid=values[0x1000],
            has_data_set=_number(values, 0x0800) != NO_DATA_SET,
        )
    except (struct.error, KeyError) as error:
        raise ProtocolError("a C-STORE request is incomplete (PS3.7 table 9.3-1)") from error


def encode_response(*, request: StoreRequest, context_id: int, status: int, comment: str = "") -> bytes:
    """A C-STORE-RSP as one whole P-DATA-TF PDU (PS3.8 section 9.3.5); `comment` is cut at 64 characters.

    Building this through message and PDU objects took more than a quarter of the listener's time.
    """
    elements = [
        _element(0x0002, request.sop_class_uid),
        struct.pack("<HHLH", 0, 0x0100, 2, _C_STORE_RSP),
        struct.pack("<HHLH", 0, 0x0120, 2, request.message_id),
        struct.pack("<HHLH", 0, 0x0800, 2, NO_DATA_SET),
        struct.pack("<HHLH", 0, 0x0900, 2, status),
    ]
    if comment:
        elements.append(_element(0x0902, _even(comment[:64].encode("ascii", "replace"))))
    elements.append(_element(0x1000, request.sop_instance_uid))
    body = b"".join(elements)
    command = struct.pack("<HHLL", 0, 0, 4, len(body)) + body
    item_length = len(command) + 2
    return (
        struct.pack(">BBLLBB", 0x04, 0, item_length + 4, item_length, context_id, _LAST_COMMAND_FRAGMENT)
        + command
    )


def _number(values: dict[int, bytes], element: int) -> int:
    (number,) = struct.unpack("<H", values[element])
    return int(number)


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, element, len(value)) + value


def _even(value: bytes) -> bytes:
    return value + b" " if len(value) % 2 else value
