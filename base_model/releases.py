"""What stands beside the weights of a release: recipe, data manifest and code, each by digest.

Decides what a release must hold to be put before its approvers: weights in safetensors, a stock
architecture without code of its own, and where it came from. The digest of the release's manifest covers
all of it; the pretrainer's signature is its `base_model.approve` in the ledger, which names that digest.
"""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from base_model import manifest, weights
from base_model.engine.recipe import Recipe
from base_model.fetch import file_sha256
from fedproto import jcs
from fedproto.errors import LocalFault
from fedproto.ids import Digest, is_digest, sha256_hex

RECIPE, CODE = "recipe.json", "code.json"
ARCHITECTURES = ("qwen3", "qwen3_moe")
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
# A release is data: a suffix that is not here could be code to some reader.
_SUFFIXES = (".json", ".safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release that was verified."""

    manifest: Digest
    recipe: Digest
    corpus: Digest
    code: Digest
    architecture: str
    parameters: int
    bytes: int
    licences: tuple[str, ...]


def origin(recipe: Recipe, data_manifest: bytes) -> dict[str, bytes]:
    """Return the files of a release that say where it came from."""
    return {RECIPE: recipe.to_bytes(), manifest.FILE: data_manifest, CODE: code()}


def code() -> bytes:
    """Return what trained, in one form: the digest of each source file here, and libraries' versions."""
    root = Path(__file__).parent
    files: dict[str, jcs.Json] = {
        path.relative_to(root).as_posix(): file_sha256(path) for path in sorted(root.rglob("*.py"))
    }
    libraries: dict[str, jcs.Json] = {name: version(name) for name in _LIBRARIES}
    return jcs.dumps({"v": 1, "base_model": files, "libraries": libraries})


def open_release(directory: Path, expected: Digest | None = None) -> Release:
    """Verify a release and say what it is; without `expected` it must be the one that it is named by.

    Raises:
        LocalFault: RNM-MODEL-0003 there is none; RNM-MODEL-0001 something in it differs, or it holds
            what a release doesn't.
    """
    digest = expected or Digest(directory.resolve().name)
    listed = weights.verify(directory, digest)
    names = {entry.name for entry in listed.files}
    for name in sorted(names):
        if not name.endswith(_SUFFIXES):
            raise _refused(directory, f"it holds {name}, which is neither weights nor data")
    missing = {RECIPE, manifest.FILE, CODE, "config.json"} - names
    if missing:
        raise _refused(directory, f"it lacks {sorted(missing)[0]}")
    config = _json(directory / "config.json")
    if config.get("model_type") not in ARCHITECTURES or "auto_map" in config:
        raise _refused(directory, "its architecture is not a stock one, or brings code")
    made = manifest.read_manifest((directory / manifest.FILE).read_bytes())
    return Release(
        manifest=digest,
        recipe=sha256_hex((directory / RECIPE).read_bytes()),
        corpus=made.digest,
        code=sha256_hex((directory / CODE).read_bytes()),
        architecture=str(config["model_type"]),
        parameters=_parameters(directory),
        bytes=sum(entry.bytes for entry in listed.files),
        licences=made.licences,
    )


def named(text: str) -> Digest | None:
    """Read the digest of a command line; none was given where it is empty (RNM-CONF-0001)."""
    if not text:
        return None
    if not is_digest(text):
        raise LocalFault(
            "RNM-CONF-0001",
            what="the release was not opened",
            why="--digest is not 64 hexadecimal digits",
            mend="give the digest that the ledger names: renmei audit log --type base_model.approved",
        )
    return Digest(text)


def _parameters(directory: Path) -> int:
    """Count the values of all weights without loading one."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def recipe_of(directory: Path) -> dict[str, Any]:
    """Return the meaning of the recipe that a verified release was made by."""
    value = jcs.loads((directory / RECIPE).read_bytes())
    if not isinstance(value, list) or len(value) != 2 or value[0] != "recipe/1":
        raise _refused(directory, f"its {RECIPE} is not one")
    found: dict[str, Any] = value[1]  # type: ignore[assignment]
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _refused(path.parent, f"{path.name} is not a JSON object")
    return value


def _refused(directory: Path, why: str) -> LocalFault:
    return LocalFault(
        "RNM-MODEL-0001",
        what=f"the release in {directory} was refused",
        why=why,
        mend="release it again with `renmei model pretrain`",
    )
