"""Who got what: weights by a release or a round, content by a grant, bundles by an export.

Decides by the ledger alone. What the protocol itself hands out is listed as such: every member that a
round invites receives the adapter that it starts from, and who attests figures of one had it. A copy
made outside leaves no entry. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from audit.history import History
from audit.records import State
from fedproto.events.oversight import AccessGranted, ExportIssued
from fedproto.ids import Digest, MemberId


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """`kind` is round, evaluation, release, access or export; `to` names members or channels.

    `what` is an adapter, a class of content or a bundle; `until` is the end of a grant (ms), `ended`
    the entry that revoked a release.
    """

    index: int
    kind: str
    by: MemberId
    to: tuple[str, ...]
    what: str
    until: int | None = None
    ended: int | None = None

    @property
    def cites(self) -> tuple[int, ...]:
        """Every entry that this rests on, in order."""
        return tuple(index for index in (self.index, self.ended) if index is not None)


def handovers(history: History, artifact: Digest | None = None) -> tuple[Handover, ...]:
    """Return every handover in the order of the ledger; with an artifact, those of that adapter."""
    state = history.state
    found = [*_rounds(state), *_evaluations(state), *_releases(state)]
    if artifact is None:
        found += _grants_and_exports(history)
    kept = (item for item in found if artifact in {None, item.what})
    return tuple(sorted(kept, key=lambda item: item.index))


def _rounds(state: State) -> Iterator[Handover]:
    for run in state.runs.values():
        for attempt in run.rounds:
            started = attempt.started
            yield Handover(
                index=started.index,
                kind="round",
                by=started.member,
                to=started.body.invited,
                what=started.body.model_in,
            )


def _evaluations(state: State) -> Iterator[Handover]:
    for acts in state.evaluations.values():
        for act in acts:
            yield Handover(
                index=act.index,
                kind="evaluation",
                by=act.member,
                to=(act.member,),
                what=act.body.artifact,
            )


def _releases(state: State) -> Iterator[Handover]:
    for release in state.releases.values():
        approved = release.approved
        yield Handover(
            index=approved.index,
            kind="release",
            by=approved.member,
            to=approved.body.release.channels,
            what=approved.body.release.artifact,
            ended=release.revoked,
        )


def _grants_and_exports(history: History) -> Iterator[Handover]:
    for index, signed in enumerate(history.events):
        body, by = signed.event.body, signed.event.actor.member
        match body:
            case AccessGranted():
                yield Handover(
                    index=index,
                    kind="access",
                    by=by,
                    to=(body.grantee,),
                    what=body.content,
                    until=body.until,
                )
            case ExportIssued():
                yield Handover(
                    index=index,
                    kind="export",
                    by=by,
                    to=(body.recipient,),
                    what=body.bundle_sha256,
                )
            case _:
                continue
