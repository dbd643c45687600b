"""An adapter's lineage as a graph: what was made from what, and by whom, in the words of W3C PROV.

Decides nothing beyond audit.lineage. Each edge names the entries that say so. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from audit.history import History
from audit.lineage import Lineage


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A thing or an act; `id` is unique in the graph, `digest` empty where it has none."""

    id: str
    kind: str
    label: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """`subject` stands in `relation` to `object`, by these entries."""

    subject: str
    relation: str
    object: str
    entries: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Nodes and edges, in the order of the ledger."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def graph(history: History, found: Lineage) -> Graph:
    """Return the graph of a lineage."""
    return Graph(
        nodes=tuple(dict.fromkeys(_nodes(history, found))), edges=tuple(_edges(history, found))
    )


def _round(run: str, number: int, attempt: int) -> str:
    return f"round:{run}:{number}.{attempt}"


def _nodes(history: History, found: Lineage) -> Iterator[Node]:
    base = found.base
    manifest = base.manifest_sha256
    yield Node(id=f"base:{manifest}", kind="base_model", label=base.name, digest=manifest)
    for source in found.sources:
        name = f"dataset:{source.commitment}"
        yield Node(id=name, kind="dataset", label=source.member, digest=source.commitment)
    for mandate in found.mandates:
        leaf = history.leaves[mandate.index]
        yield Node(id=f"run:{mandate.run}", kind="mandate", label=mandate.run, digest=leaf)
    for step in found.steps:
        place = f"{step.round}.{step.attempt}"
        name = _round(step.run, step.round, step.attempt)
        for adapter in (step.model_in, step.model_out):
            yield Node(id=f"adapter:{adapter}", kind="adapter", label=adapter[:12], digest=adapter)
        yield Node(id=name, kind="round", label=place, digest=history.leaves[step.closed])
    for kind, items in (("evaluation", found.evaluations), ("release", found.releases)):
        for item in items:
            leaf = history.leaves[item.index]
            yield Node(id=f"{kind}:{leaf}", kind=kind, label=f"#{item.index}", digest=leaf)


def _edges(history: History, found: Lineage) -> Iterator[Edge]:
    fed = {receipt: source for source in found.sources for receipt in source.receipts}
    base = f"base:{found.base.manifest_sha256}"
    for mandate in found.mandates:
        cites = (mandate.proposal, *mandate.votes, mandate.index)
        yield Edge(subject=f"run:{mandate.run}", relation="used", object=base, entries=cites)
    for step in found.steps:
        this, run = _round(step.run, step.round, step.attempt), f"run:{step.run}"
        before, after = f"adapter:{step.model_in}", f"adapter:{step.model_out}"
        both = (step.started, step.closed)
        yield Edge(subject=this, relation="wasInformedBy", object=run, entries=(step.started,))
        yield Edge(subject=this, relation="used", object=before, entries=(step.started,))
        yield Edge(subject=after, relation="wasGeneratedBy", object=this, entries=(step.closed,))
        yield Edge(subject=after, relation="wasDerivedFrom", object=before, entries=both)
        for receipt in step.receipts:
            data = f"dataset:{fed[receipt].commitment}"
            yield Edge(subject=this, relation="used", object=data, entries=(receipt,))
    adapter = f"adapter:{found.artifact}"
    for kind, items in (("evaluation", found.evaluations), ("release", found.releases)):
        for item in items:
            name = f"{kind}:{history.leaves[item.index]}"
            yield Edge(subject=name, relation="used", object=adapter, entries=(item.index,))
