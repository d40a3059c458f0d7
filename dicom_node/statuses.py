"""The C-STORE answers that the listener gives."""

from __future__ import annotations

from enum import IntEnum


class StoreStatus(IntEnum):
    """Status (0000,0900) of a C-STORE response: PS3.4 table B.2-1 and PS3.7 section 9.1.1.1.9."""

    #: PS3.4 B.2.3: the instance is stored; here, durable under its final name.
    SUCCESS = 0x0000
    #: PS3.4 B.2.3, A7xx: the disk is below its watermark or did not take the bytes; worth another try.
    OUT_OF_RESOURCES = 0xA700
    #: PS3.4 B.2.3, A9xx: SOP class or instance of the data set are not those of the request.
    DOES_NOT_MATCH = 0xA900
    #: PS3.4 B.2.3, Cxxx: the bytes cannot be read as a data set, or end before its UIDs.
    NOT_A_DATA_SET = 0xC000
    #: PS3.4 B.2.3, Cxxx: a UID that must name the file is not a UID (PS3.5 section 9.1).
    BAD_UID = 0xC001
    #: PS3.4 B.2.3, Cxxx: it came back to where it was made; another try would be answered the same.
    LOOPED = 0xC002
