"""Published weights: immutable, in Hugging Face format with safetensors, named by digest.

Decides what a release of the base model is: a manifest of files with their SHA-256; its own digest is
what the ledger, the mandate and every member name. Nothing is loaded before each file was verified.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from tokenizers import Tokenizer

from base_model import offline  # noqa: F401  # switches the hub off
from base_model import tokenizer as tokenizers
from base_model.fetch import file_sha256
from fedproto import jcs
from fedproto.durable import disk_fault, sync_directory
from fedproto.errors import LocalFault
from fedproto.ids import Digest, sha256_hex
from fedproto.schema import from_json, to_json

MANIFEST = "manifest.json"
# A damaged file costs its reader no more than this to bring again.
SHARD = "1GB"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of a release."""

    name: str
    sha256: Digest
    bytes: int

    def __post_init__(self) -> None:
        if "/" in self.name or self.name.startswith(".") or self.name == MANIFEST:
            raise ValueError(f"{self.name!r} is not a plain file name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The files of a release, sorted by name."""

    v: int
    files: tuple[FileEntry, ...]

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.files]
        if self.v != 1 or names != sorted(set(names)):
            raise ValueError("a manifest lists its files once, sorted")


def publish(
    model: Any,
    tokenizer: Tokenizer,
    parent: Path,
    *,
    beside: Mapping[str, bytes] | None = None,
    shard: str = SHARD,
) -> Path:
    """Write a release below `parent` in a directory named by its digest; return that directory.

    `beside` are further files of it, by name; `shard` is how large a file of weights may be.
    """

    def write(directory: Path) -> None:
        model.save_pretrained(directory, safe_serialization=True, max_shard_size=shard)
        tokenizers.save(tokenizer, directory)
        for name, content in (beside or {}).items():
            (directory / name).write_bytes(content)

    return publish_files(parent, write)


def publish_files(parent: Path, write: Callable[[Path], None]) -> Path:
    """Have files written, list them in a manifest, and name their directory by its digest.

    The directory is there whole or not at all, whenever this is killed.

    Raises:
        LocalFault: RNM-DISK-0001 there is no room; RNM-CONF-0001 `parent` cannot be written.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=".publish-"))
    except OSError as error:
        raise disk_fault(parent, error) from None
    try:
        write(temporary)
        manifest = jcs.dumps(to_json(_describe(temporary)))
        (temporary / MANIFEST).write_bytes(manifest)
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        target = parent / sha256_hex(manifest)
        if not target.exists():
            sync_directory(temporary)
            temporary.rename(target)
            sync_directory(parent)
    except OSError as error:
        raise disk_fault(parent, error) from None
    except SafetensorError as error:
        # safetensors reports a full disk in its own words.
        raise LocalFault(
            "RNM-DISK-0001",
            what=f"no release was written to {parent}",
            why=str(error)[:200],
            mend="free space there, then run it again",
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _describe(directory: Path) -> Manifest:
    entries = [
        FileEntry(name=path.name, sha256=Digest(file_sha256(path)), bytes=path.stat().st_size)
        for path in sorted(directory.iterdir())
        if path.name != MANIFEST
    ]
    return Manifest(v=1, files=tuple(entries))


def verify(directory: Path, expected: Digest) -> Manifest:
    """Check every file of a release against the digest of its manifest.

    Raises:
        LocalFault: RNM-MODEL-0003 there is none; RNM-MODEL-0001 something in it differs.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise LocalFault(
            "RNM-MODEL-0003",
            what=f"no base model in {directory}",
            why=f"{MANIFEST} is missing",
            mend="the node fetches it when a run starts; or copy the release there yourself",
        )
    raw = path.read_bytes()
    if sha256_hex(raw) != expected:
        raise _wrong(directory, f"its manifest has digest {sha256_hex(raw)}, not {expected}")
    manifest = from_json(Manifest, jcs.loads(raw), MANIFEST)
    present = {p.name for p in directory.iterdir()} - {MANIFEST}
    if present != {entry.name for entry in manifest.files}:
        raise _wrong(directory, "it holds other files than its manifest lists")
    for entry in manifest.files:
        if file_sha256(directory / entry.name) != entry.sha256:
            raise _wrong(directory, f"{entry.name} is not the file that its manifest lists")
    return manifest


def _wrong(directory: Path, why: str) -> LocalFault:
    return LocalFault(
        "RNM-MODEL-0001",
        what=f"the base model in {directory} was not loaded",
        why=why,
        mend="remove that directory; the released model is fetched again by its digest",
    )


def load_base(directory: Path, expected: Digest) -> Any:
    """Verify a release, then load it in float32; no code that lies in it is run."""
    verify(directory, expected)
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        directory,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        attn_implementation="sdpa",
        dtype=torch.float32,
    )
