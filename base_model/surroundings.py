"""The Python packages around us: where they lie and under which licence, without importing them.

Decides nothing. Their docstrings are the English part of the base corpus.
"""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An installed package: its modules, named relative to `root`, its tests left out."""

    name: str
    version: str
    licence: str
    root: Path
    modules: tuple[str, ...]


def installed(name: str) -> Package | None:
    """Return an installed package, or None where it is not."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    try:
        about = metadata(name)
    except PackageNotFoundError:
        return None
    stated = about.get_all("License-Expression") or about.get_all("License") or [""]
    classifiers = [
        line.rsplit(" :: ", 1)[-1]
        for line in about.get_all("Classifier") or []
        if line.startswith("License :: ")
    ]
    root = Path(next(iter(spec.submodule_search_locations)))
    names = (path.relative_to(root) for path in root.rglob("*.py"))
    return Package(
        name=name,
        version=about["Version"],
        licence=str(stated[0]).split("\n")[0] or ", ".join(classifiers) or "see the package",
        root=root,
        modules=tuple(sorted(str(n) for n in names if not any("test" in p for p in n.parts))),
    )
