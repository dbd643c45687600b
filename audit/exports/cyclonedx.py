"""An adapter's bill of materials: the model, its base, its datasets by commitment, their evidence.

Decides nothing beyond audit.lineage. Only what is a plain SHA-256 stands under `hashes`; adapters and
commitments stand in properties. The same log gives the same bytes. Implements CycloneDX 1.6. Pure.
"""

from audit.citation import Citations
from audit.history import History
from audit.legible import instant
from audit.lineage import Base, Evaluation, Lineage, Source
from fedproto.ids import sha256_hex
from fedproto.jcs import Json

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"


def bill(history: History, citations: Citations, found: Lineage) -> Json:
    """Return the ML-BOM of an adapter."""
    adapter = f"adapter:{found.artifact}"
    base = f"base:{found.base.manifest_sha256}"
    datasets = [f"dataset:{source.commitment}" for source in found.sources]
    seen = instant(history.state.clock_s or None)
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": _serial(history, found),
        "version": 1,
        "metadata": {
            **({"timestamp": seen} if seen else {}),
            "component": _adapter(citations, found, adapter, datasets),
            "properties": [
                _property("log", history.state.charter.origin),
                _property("size", str(history.state.size)),
                _property("root", history.state.root),
            ],
        },
        "components": [
            _base(citations, found.base, base),
            *(_dataset(citations, source) for source in found.sources),
        ],
        "dependencies": [
            {"ref": adapter, "dependsOn": [base, *datasets]},
            *map(_leaf, (base, *datasets)),
        ],
    }


def _serial(history: History, found: Lineage) -> str:
    text = f"renmei/v1/ml-bom\n{history.state.root}\n{found.artifact}\n"
    digits = sha256_hex(text.encode())
    groups = (digits[:8], digits[8:12], f"8{digits[13:16]}", f"8{digits[17:20]}", digits[20:32])
    return f"urn:uuid:{'-'.join(groups)}"


def _adapter(citations: Citations, found: Lineage, ref: str, datasets: list[str]) -> Json:
    last = found.steps[-1]
    entries = (*(item.index for item in found.mandates), *(step.closed for step in found.steps))
    flags = [_property("withdrawn-dataset", source.commitment) for source in found.withdrawn]
    flags += [
        _property("release", f"entry {r.index}" + (" revoked" if r.revoked is not None else ""))
        for r in found.releases
    ]
    return {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": "federated adapter",
        "version": f"{last.run}/{last.round}",
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "self-supervised"},
                "task": "text-generation",
                "architectureFamily": "LoRA adapter",
                "datasets": [{"ref": dataset} for dataset in datasets],
            },
            **_figures(found.evaluations),
        },
        "externalReferences": [_reference(citations, index) for index in entries],
        "properties": [_property("adapter-digest", found.artifact), *flags],
    }


def _figures(evaluations: tuple[Evaluation, ...]) -> dict[str, Json]:
    metrics: list[Json] = [
        {"type": name, "value": value, "slice": f"hold-out of {item.member}, entry {item.index}"}
        for item in evaluations
        for name, value in sorted(item.metrics.items())
    ]
    return {"quantitativeAnalysis": {"performanceMetrics": metrics}} if metrics else {}


def _base(citations: Citations, base: Base, ref: str) -> Json:
    return {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": base.name,
        "licenses": [{"license": {"name": base.licence}}],
        "externalReferences": [_reference(citations, base.approved)],
        "properties": [
            _property("manifest-sha256", base.manifest_sha256),
            _property("corpus-sha256", base.corpus_sha256),
            _property("parameters", str(base.parameters)),
        ],
    }


def _dataset(citations: Citations, source: Source) -> Json:
    ends = () if source.withdrawn is None else (source.withdrawn,)
    return {
        "type": "data",
        "bom-ref": f"dataset:{source.commitment}",
        "name": f"dataset of {source.member}",
        "licenses": [{"license": {"name": source.licence}}],
        "data": [
            {
                "type": "dataset",
                "name": source.commitment,
                "classification": source.legal_basis,
                "governance": {"owners": [{"organization": {"name": source.member}}]},
            }
        ],
        "externalReferences": [
            _reference(citations, index) for index in (source.declared, *source.receipts, *ends)
        ],
        "properties": [
            _property("commitment", source.commitment),
            _property("purpose", source.purpose),
            _property("residency", source.residency),
            _property("epsilon-micro", str(source.epsilon_micro)),
            *(_property("withdrawn", f"entry {index}") for index in ends),
        ],
    }


def _reference(citations: Citations, index: int) -> Json:
    row = citations.row(index)
    return {
        "type": "evidence",
        "url": f"urn:renmei:entry:{row.leaf}",
        "comment": f"entry {index}, {row.type} by {row.member}",
    }


def _leaf(ref: str) -> Json:
    return {"ref": ref}


def _property(name: str, value: str) -> Json:
    return {"name": f"renmei:{name}", "value": value}
