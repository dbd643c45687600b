"""The member's own acts: declared, voted and signed with its acting key, then sent to the ledger.

Decides the body of each act from what the node verified. Each carries the head of the last checkpoint
that this node verified, so that two histories would show in the log. A shell module.
"""

from collections.abc import Callable
from typing import Any

import grpc

from fedproto import telemetry
from fedproto.errors import FederationError
from fedproto.events.governance import VoteCast
from fedproto.events.models import DatasetDeclared
from fedproto.events.rounds import ParticipationSigned, SumAudited
from fedproto.ids import Digest
from fedproto.party import Party
from fedproto.statements import Body, seal_event
from fedproto.transport import from_rpc_error
from fedproto.v1 import governance_pb2_grpc
from fedproto.v1.governance_pb2 import ActRequest
from member_node.gate import GatedChannel
from member_node.ledger_client import LedgerClient
from member_node.policy import DatasetTerms

_PATIENCE_S = 30.0
_MADE_BEFORE = "RNM-GOV-0003"


class ActClient:
    """Signs and submits acts; each returns the envelope once it is in the ledger."""

    def __init__(self, channel: GatedChannel, party: Party, ledger: LedgerClient) -> None:
        self._channel = channel
        self._party = party
        self._ledger = ledger

    def declare_dataset(
        self, commitment: Digest, terms: DatasetTerms, policy_sha256: Digest, size_bucket: int
    ) -> bytes:
        """Declare the dataset that the trainer found."""
        body = DatasetDeclared(
            commitment=commitment,
            legal_basis=terms.legal_basis,
            purpose=terms.purpose,
            residency=terms.residency,
            licence=terms.licence,
            policy_sha256=policy_sha256,
            size_bucket=size_bucket,
        )
        stub = governance_pb2_grpc.GovernanceStub(self._channel)
        return self._submit(stub.DeclareDataset, body)

    def vote(self, ballot: VoteCast) -> bytes:
        """Cast a ballot."""
        return self._submit(governance_pb2_grpc.GovernanceStub(self._channel).Vote, ballot)

    def sign_participation(self, receipt: ParticipationSigned) -> bytes:
        """Sign for what was given to a round."""
        channel = self._channel.about(receipt.run, receipt.round)
        stub = governance_pb2_grpc.GovernanceStub(channel)
        return self._submit(stub.SignParticipation, receipt)

    def audit_sum(self, finding: SumAudited) -> bytes:
        """Say whether a round's sum is that of its uploads."""
        channel = self._channel.about(finding.run, finding.round)
        return self._submit(governance_pb2_grpc.GovernanceStub(channel).AuditSum, finding)

    def _submit(self, call: Callable[..., Any], body: Body) -> bytes:
        state = self._ledger.state
        event = self._party.event(
            body,
            charter=state.charter.digest,
            head=self._ledger.head,
            trace=telemetry.current(),
        )
        leaf = seal_event(event, (self._party.signing_key,))
        try:
            call(ActRequest(envelope=leaf), timeout=_PATIENCE_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._channel.to) from None
        return leaf


def made_before(error: FederationError) -> bool:
    """Say whether an act failed because the ledger has it: after a crash that is a success."""
    return error.code == _MADE_BEFORE
