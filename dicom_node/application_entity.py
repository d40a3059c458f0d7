"""The listener's configuration and contexts as pynetdicom sees them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification

from dicom_node.contexts import is_storage
from dicom_node.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.listener_config import ListenerConfig
from dicom_node.receiver import StorageContext

#: The door bounds associations; pynetdicom would also count those that are about to end.
_UNBOUNDED = 1_000_000


def configured(config: ListenerConfig) -> AE:
    """pynetdicom's view of the configuration."""
    ae = AE(ae_title=config.ae_title)
    ae.maximum_pdu_size = config.max_pdu
    ae.maximum_associations = _UNBOUNDED
    ae.acse_timeout = config.association_timeout
    ae.dimse_timeout = config.network_timeout
    ae.network_timeout = config.network_timeout
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    # Storage contexts are chosen for each association from what it proposes.
    ae.add_supported_context(Verification)
    return ae


def accepted(contexts: Iterable[PresentationContext]) -> dict[int, StorageContext]:
    """The accepted storage contexts by presentation context ID."""
    return {
        context.context_id: StorageContext(
            sop_class_uid=str(context.abstract_syntax), transfer_syntax_uid=str(context.transfer_syntax[0])
        )
        for context in contexts
        if is_storage(UID(context.abstract_syntax))
    }


def quieten_pynetdicom() -> None:
    """Keep pynetdicom from writing what is exchanged, patient names among it, into the log."""
    logger: Any = logging.getLogger("pynetdicom")
    if logger.getEffectiveLevel() < logging.WARNING:
        logger.setLevel(logging.WARNING)
