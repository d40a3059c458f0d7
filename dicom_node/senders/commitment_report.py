"""Storage commitment, answered: the report to a peer that asked, on an association that we open."""

from __future__ import annotations

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_role

from dicom_node import commitment, errors
from dicom_node.commitment import CommitmentReport
from dicom_node.senders import Destination, contexts
from dicom_node.senders.association import open_association

_CONTEXTS = contexts.ways((commitment.SOP_CLASS_UID, str(ExplicitVRLittleEndian)))


def report(destination: Destination, said: CommitmentReport) -> int:
    """Tell a peer what we hold of what it asked for; the status that it answers (PS3.4 J.3.3).

    Raises ContextRefused where it takes no reports on associations that are not its own, and other
    SendErrors where it may do so later.
    """
    event_type, ds = commitment.encode_report(said)
    # PS3.4 J.2.1, PS3.7 D.3.3.4: whoever opens the association is the SCP here, and says so.
    roles = [build_role(commitment.SOP_CLASS_UID, scp_role=True)]
    with open_association(destination, _CONTEXTS, roles=roles) as assoc:
        try:
            answer, _ = assoc.send_n_event_report(
                ds, event_type, commitment.SOP_CLASS_UID, commitment.SOP_INSTANCE_UID
            )
        except (RuntimeError, ValueError) as error:  # pynetdicom: the association ended
            raise errors.SendError(f"{destination.name} ended the association before the report") from error
        status = answer.get("Status")
        if status is None:
            raise errors.SendError(f"{destination.name} gave no answer to the report")
        return int(status)
