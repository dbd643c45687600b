"""Evidence: what another party sent when it broke the protocol, kept by whom it was sent to.

Decides nothing. Writes the offending bytes beside what was authorised, so that they can be shown to
the others. Holds only what came from others, never what this party would have answered. A shell module.
"""

import datetime
from dataclasses import dataclass
from pathlib import Path

from fedproto import jcs
from fedproto.durable import make_private_directory, write_atomic
from fedproto.errors import PeerFault
from fedproto.ids import sha256_hex
from fedproto.jcs import Json
from fedproto.secagg.faults import Equivocation, IdentifiableAbort, SumDiffers

DIRECTORY = "evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceStore:
    """Where a party keeps evidence."""

    root: Path

    def keep(
        self, fault: PeerFault, received: bytes, authorisation: bytes, at: datetime.datetime
    ) -> Path:
        """Write one case and return its JSON file; the bytes lie beside it, as they came."""
        directory = self.root / DIRECTORY
        make_private_directory(directory)
        stem = f"{at:%Y%m%dT%H%M%S%f}-{fault.code}"
        write_atomic(directory / f"{stem}.received", received, mode=0o600)
        write_atomic(directory / f"{stem}.authorisation", authorisation, mode=0o600)
        # All messages that contradict each other: any alone would prove nothing.
        kinds = Equivocation | IdentifiableAbort | SumDiffers
        signed = fault.evidence if isinstance(fault, kinds) else ()
        for number, message in enumerate(signed):
            write_atomic(directory / f"{stem}.signed-{number}", message, mode=0o600)
        case: Json = {
            "v": 1,
            "at": int(at.timestamp() * 1000),
            "code": fault.code,
            "peer": fault.peer,
            "culprits": list(getattr(fault, "culprits", (fault.peer,))),
            "what": fault.what,
            "why": fault.why,
            "received_sha256": sha256_hex(received),
            "authorisation_sha256": sha256_hex(authorisation),
            "signed_sha256": [sha256_hex(message) for message in signed],
        }
        path = directory / f"{stem}.json"
        write_atomic(path, jcs.dumps(case), mode=0o600)
        return path
