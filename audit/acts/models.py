"""The rules of base weights, datasets, evaluations and releases.

Decides one event type each, on top of the common checks of `audit.state`. Trusts only admitted acts.
Every refusal raises RNM-GOV-*. Pure.
"""

from dataclasses import replace

from audit import decision
from audit.decision import AGAIN, QUORUM
from audit.records import Dataset, Logged, Release, State
from fedproto.events.models import (
    BaseModelApproved,
    DatasetDeclared,
    DatasetWithdrawn,
    EvaluationAttested,
    ReleaseApproved,
    ReleaseRevoked,
)
from fedproto.governance import rules
from fedproto.governance.charter import Action, Role
from fedproto.governance.rules import refuse
from fedproto.ids import Digest


def approve_base_model(state: State, act: Logged[BaseModelApproved]) -> State:
    """Base weights are approved once: by vote, or by a pretrainer where the charter leaves it to it."""
    body = act.body
    manifest = body.manifest_sha256
    if manifest in state.base_models:
        raise refuse(f"base weights {manifest[:16]} are approved already", AGAIN)
    if not body.proposal:
        decision.require_direct(state, Action.APPROVE_BASE_MODEL, act.member)
    else:
        decision.check_executor(state, act.member, Action.APPROVE_BASE_MODEL, "base_model.approved")
        proposal = decision.require_carried(
            state, Digest(body.proposal), body.votes, Action.APPROVE_BASE_MODEL, act.at
        )
        if proposal.opened.body.terms != body.model:
            raise refuse("the base weights are not those that were voted on")
        state = decision.decided(state, proposal)
    return replace(state, base_models=state.base_models.with_item(manifest, act))


def declare_dataset(state: State, act: Logged[DatasetDeclared]) -> State:
    """A trainer commits to a dataset once; a copied commitment would hide whose data it is."""
    rules.check_roles(state.charter, act.member, (Role.TRAINER,), "dataset.declared")
    commitment = act.body.commitment
    if commitment in state.datasets:
        raise refuse(f"dataset {commitment[:16]} is declared already", AGAIN)
    declared = Dataset(declared=act)
    return replace(state, datasets=state.datasets.with_item(commitment, declared))


def withdraw_dataset(state: State, act: Logged[DatasetWithdrawn]) -> State:
    """Who declared a dataset takes it out of use, once."""
    dataset = state.datasets.get(act.body.commitment)
    if dataset is None or dataset.declared.member != act.member:
        raise refuse(f"{act.member} has not declared dataset {act.body.commitment[:16]}")
    if dataset.withdrawn is not None:
        raise refuse(f"the dataset was withdrawn by entry {dataset.withdrawn}", AGAIN)
    changed = replace(dataset, withdrawn=act.index)
    return replace(state, datasets=state.datasets.with_item(act.body.commitment, changed))


def attest_evaluation(state: State, act: Logged[EvaluationAttested]) -> State:
    """A member's figures for an adapter that a round led to, or for an approved base model.

    Once for each suite. A pretrainer attests base models alone: it has no seat among those whose
    evaluations an adapter's release rests on.
    """
    body = act.body
    base = state.base_model(body.artifact) is not None
    roles = (Role.TRAINER, Role.EVALUATOR, *((Role.PRETRAINER,) if base else ()))
    rules.check_roles(state.charter, act.member, roles, "evaluation.attested")
    if not (base or _made(state, body.artifact)):
        raise refuse(f"no round led to {body.artifact[:16]}, and it is no approved base model")
    before = state.evaluations.get(body.artifact, ())
    if any((e.member, e.body.suite_sha256) == (act.member, body.suite_sha256) for e in before):
        raise refuse(f"{act.member} has attested this suite for this artifact", AGAIN)
    return replace(state, evaluations=state.evaluations.with_item(body.artifact, (*before, act)))


def _made(state: State, artifact: Digest) -> bool:
    attempts = (attempt for run in state.runs.values() for attempt in run.rounds)
    return any(a.aggregated and a.closed and a.closed.body.model_out == artifact for a in attempts)


def approve_release(state: State, act: Logged[ReleaseApproved]) -> State:
    """A release follows from its vote, enough members' evaluations and the run that it names."""
    decision.check_executor(state, act.member, Action.APPROVE_RELEASE, "release.approved")
    body, terms = act.body, act.body.release
    stop = state.stopped(terms.made_by)
    if stop is not None:
        raise refuse(f"work is stopped by entry {stop.index}, of {stop.member}", "RNM-GOV-0004")
    proposal = decision.require_carried(
        state, body.proposal, body.votes, Action.APPROVE_RELEASE, act.at
    )
    if proposal.opened.body.terms != terms:
        raise refuse("the release is not the one that was voted on")
    made = [
        a.closed.body.model_out for a in state.rounds(terms.made_by) if a.closed and a.aggregated
    ]
    if terms.artifact not in made:
        raise refuse(f"run {terms.made_by} did not lead to adapter {terms.artifact[:16]}")
    attested = state.evaluations.get(terms.artifact, ())
    if body.evaluations != tuple(sorted(item.leaf for item in attested)):
        raise refuse("the release cites other evaluations than those in the ledger")
    members = {item.member for item in attested}
    if len(members) < state.charter.limits.evaluations:
        raise refuse(
            f"{len(members)} members attested an evaluation, the charter asks for "
            f"{state.charter.limits.evaluations}",
            QUORUM,
        )
    _check_sources(state, body)
    done = decision.decided(state, proposal)
    return replace(done, releases=done.releases.with_item(act.leaf, Release(approved=act)))


def _check_sources(state: State, body: ReleaseApproved) -> None:
    """Refuse a release of what a withdrawn dataset fed, or that spent more than the charter allows."""
    receipts = (r for attempt in state.rounds(body.release.made_by) for r in attempt.receipts)
    for commitment in sorted({receipt.body.dataset for receipt in receipts}):
        dataset = state.datasets[commitment]
        if dataset.withdrawn is not None:
            raise refuse(f"dataset {commitment[:16]}, which fed it, is withdrawn")
        if dataset.epsilon_micro > state.charter.limits.epsilon_micro_per_dataset:
            raise refuse(
                f"dataset {commitment[:16]} has more ε spent than the charter allows now",
                "RNM-GOV-0005",
            )


def revoke_release(state: State, act: Logged[ReleaseRevoked]) -> State:
    """A release ends at once, by the vote that it cites."""
    decision.check_executor(state, act.member, Action.REVOKE_RELEASE, "release.revoked")
    body = act.body
    release = state.releases.get(body.revocation.release)
    if release is None:
        raise refuse(f"there is no release {body.revocation.release[:16]}")
    if release.revoked is not None:
        raise refuse(f"the release was revoked by entry {release.revoked}", AGAIN)
    proposal = decision.require_carried(
        state, body.proposal, body.votes, Action.REVOKE_RELEASE, act.at
    )
    if proposal.opened.body.terms != body.revocation:
        raise refuse("the revocation is not the one that was voted on")
    done = decision.decided(state, proposal)
    ended = replace(release, revoked=act.index)
    return replace(done, releases=done.releases.with_item(body.revocation.release, ended))
