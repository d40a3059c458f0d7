"""The answers that the listener gives to C-STORE, N-ACTION and N-EVENT-REPORT requests."""

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


class NormalizedStatus(IntEnum):
    """Status (0000,0900) of an N-ACTION or N-EVENT-REPORT response: PS3.7 sections 10.1.4.1.10 and 10.1.1.1.8."""

    #: It is recorded durably.
    SUCCESS = 0x0000
    #: The instance is not the well-known one of the Storage Commitment Push Model.
    NO_SUCH_INSTANCE = 0x0112
    #: The Event Type ID is none of PS3.4 table J.3-2.
    NO_SUCH_EVENT_TYPE = 0x0113
    #: The data set is no request, no report, or not one that we may take.
    INVALID_ARGUMENT = 0x0115
    #: The SOP class is not the Storage Commitment Push Model.
    NO_SUCH_CLASS = 0x0118
    #: The Action Type ID is not that of PS3.4 table J.3-1.
    NO_SUCH_ACTION = 0x0123
    #: It could not be recorded; worth another try.
    RESOURCE_LIMITATION = 0x0213
