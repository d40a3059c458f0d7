"""What the listener replaces of pynetdicom is what it was when it was replaced."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable

import pytest
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

#: When one of these fails, read the changed source, carry the change over to fast_upper_layer.py or
#: storage_server.py, run the tests of the listener, and write the new digest here.
REPLACED = {
    DULServiceProvider.__init__: "c82dafa9438ddf70",
    DULServiceProvider._read_pdu_data: "19f2d4e38c13c835",
    DULServiceProvider._is_transport_event: "8725ed03bb8fbdef",
    DULServiceProvider._decode_pdu: "fc71dd1bf853e1ce",
    DULServiceProvider.run_reactor: "e3a10eb3a0931e48",
    DULServiceProvider._process_recv_primitive: "4c0ebbb3e646e35e",
    Association.__init__: "eb07516b8009ad8f",
    Association._bind_defaults: "4cada43c3a193724",
    Association.run_reactor: "ed8bbbe3b3d6ddae",
    Association._run_reactor: "f28838c5559e462a",
    Association._serve_request: "2f24c1759cdf6c8c",
    DIMSEMessage.decode_msg: "f51c777e841a76be",
    DIMSEServiceProvider.receive_primitive: "5f99c86b14a15cef",
    Association.release: "c7d713502b77d702",
    ACSE._negotiate_as_acceptor: "fffd360957c42a8e",
    ACSE.send_reject: "700998293bbcb6c9",
    AssociationSocket._shutdown_socket: "e2b2628faa81a578",
    RequestHandler._create_association: "05c8d12b79863cdb",
    AssociationServer.__init__: "edacb98bdfb7b974",
    AssociationServer._bind_defaults: "4cada43c3a193724",
    AssociationServer.server_bind: "cf69278a05a5c777",
    AssociationServer.get_request: "925a4f3a3042f6e4",
    AssociationServer.shutdown: "e8e2c3a41009886d",
}


@pytest.mark.parametrize(
    ("function", "digest"), REPLACED.items(), ids=[function.__qualname__ for function in REPLACED]
)
def test_pynetdicom_is_the_one_that_was_read(function: Callable[..., object], digest: str) -> None:
    source = inspect.getsource(function)

    assert hashlib.sha256(source.encode()).hexdigest()[:16] == digest
