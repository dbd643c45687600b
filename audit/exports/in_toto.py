"""What the ledger knows of an adapter, as in-toto statements: provenance and test results.

Decides nothing beyond audit.lineage. Each fact names its entry by index and leaf hash. An adapter's
digest is a tagged hash of its vector and a dataset's a keyed commitment, so neither is called `sha256`.
Implements in-toto Statement v1, SLSA provenance v1 and test-result v0.1; DSSE is the caller's. Pure.
"""

from collections.abc import Iterator

from audit.citation import Citations
from audit.history import History
from audit.legible import instant
from audit.lineage import Evaluation, Lineage, Source
from fedproto.ids import Digest
from fedproto.jcs import Json
from fedproto.schema import to_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
BUILD_TYPE = "urn:renmei:build:federated-adapter:v1"
ADAPTER, COMMITMENT = "renmeiAdapterV1", "renmeiCommitmentV1"


def statements(history: History, citations: Citations, found: Lineage) -> Iterator[Json]:
    """Yield an adapter's provenance, then the test results that a release rests on."""
    yield _statement(found.artifact, PROVENANCE, _provenance(history, citations, found))
    rested_on = _cited_by_releases(history, found)
    for item in found.evaluations:
        # The gate's verdict is the release: figures that no release cites have none.
        if history.leaves[item.index] in rested_on:
            yield _statement(found.artifact, TEST_RESULT, _test_result(citations, item))


def _statement(artifact: Digest, predicate_type: str, predicate: Json) -> Json:
    return {
        "_type": STATEMENT,
        "subject": [{"name": "adapter", "digest": {ADAPTER: artifact}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def _provenance(history: History, citations: Citations, found: Lineage) -> Json:
    state = history.state
    last, first = found.steps[-1], found.steps[0]
    mandate = state.runs[last.run].mandate
    started = citations.row(first.started).not_before_s
    finished = citations.row(last.closed).not_after_s
    times = {"startedOn": instant(started), "finishedOn": instant(finished)}
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"plan": to_json(mandate.body.plan)},
            "internalParameters": {
                "rounds": [
                    {
                        "run": step.run,
                        "round": step.round,
                        "attempt": step.attempt,
                        "members": list(step.included),
                        "entries": [
                            entry(citations, index)
                            for index in (step.started, *step.receipts, step.closed)
                        ],
                    }
                    for step in found.steps
                ],
                "mandates": [
                    entry(citations, index)
                    for item in found.mandates
                    for index in (item.proposal, *item.votes, item.index)
                ],
            },
            "resolvedDependencies": [
                {
                    "name": f"base/{found.base.name}/manifest",
                    "digest": {"sha256": found.base.manifest_sha256},
                    "annotations": {
                        "licence": found.base.licence,
                        "corpus_sha256": found.base.corpus_sha256,
                        "entries": [entry(citations, found.base.approved)],
                    },
                },
                *(_dataset(citations, source) for source in found.sources),
            ],
        },
        "runDetails": {
            "builder": {"id": f"urn:renmei:log:{state.charter.origin}"},
            "metadata": {
                "invocationId": last.run,
                **{name: text for name, text in times.items() if text is not None},
            },
        },
    }


def _dataset(citations: Citations, source: Source) -> Json:
    ends = [] if source.withdrawn is None else [source.withdrawn]
    return {
        "name": f"dataset/{source.member}",
        "digest": {COMMITMENT: source.commitment},
        "annotations": {
            "member": source.member,
            "legal_basis": source.legal_basis,
            "purpose": source.purpose,
            "residency": source.residency,
            "licence": source.licence,
            "epsilon_micro": source.epsilon_micro,
            "withdrawn": source.withdrawn is not None,
            "entries": [
                entry(citations, index) for index in (source.declared, *source.receipts, *ends)
            ],
        },
    }


def _test_result(citations: Citations, item: Evaluation) -> Json:
    return {
        "result": "PASSED",
        "configuration": [
            {
                "name": "suite",
                "digest": {"sha256": item.suite_sha256},
                "annotations": {
                    "member": item.member,
                    "metrics": to_json(item.metrics),
                    "report_sha256": item.report_sha256,
                    "entries": [entry(citations, item.index)],
                },
            }
        ],
    }


def _cited_by_releases(history: History, found: Lineage) -> frozenset[Digest]:
    approved = (history.state.releases[history.leaves[r.index]].approved for r in found.releases)
    return frozenset(leaf for act in approved for leaf in act.body.evaluations)


def entry(citations: Citations, index: int) -> Json:
    """Return an entry's name in a statement of another format."""
    return {"index": index, "leaf": citations.row(index).leaf}
