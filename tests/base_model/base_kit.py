"""Small things that behave like the large ones: packages, documents, a tokenizer, a model."""

import io
import tarfile
import zipfile
from collections.abc import Mapping

from base_model.lockfile import Index, Lock, Source
from base_model.model import Size
from base_model.recipes import Recipe
from base_model.sources import Document
from base_model.train import Schedule
from fedproto.ids import sha256_hex

TINY = Size(
    vocabulary=300, hidden=32, layers=1, feed_forward=64, heads=2, key_value_heads=1, head_dim=16
)


def make_zip(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def make_tar(files: Mapping[str, bytes], mode: str = "w:xz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_deb(files: Mapping[str, bytes]) -> bytes:
    def member(name: str, data: bytes) -> bytes:
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        return head + data + b"\n" * (len(data) % 2)

    return (
        b"!<arch>\n"
        + member("debian-binary", b"2.0\n")
        + member("control.tar.xz", make_tar({}))
        + member("data.tar.xz", make_tar(files))
    )


def make_source(data: bytes, **changes: object) -> Source:
    fields: dict[str, object] = {
        "name": "tiny",
        "version": "1.0",
        "filename": "tiny-1.0-py3-none-any.whl",
        "bytes": len(data),
        "sha256": sha256_hex(data),
        "index": Index.PIP,
        "licence": "MIT",
        "domain": "honda",
        "reader": "dbc",
        "globs": ("*.dbc",),
    }
    return Source(**{**fields, **changes})  # type: ignore[arg-type]


def make_lock(*sources: Source) -> Lock:
    return Lock(sources=sources, digest=sha256_hex(repr(sources).encode()))


def some_documents() -> tuple[Document, ...]:
    lines = [
        "信号の値は車速です。\n" * (1 + number % 3) + f"BO_ {number} MSG{number * 7919 % 1009}: 8"
        for number in range(240)
    ]
    return tuple(Document(f"group {n % 40}", line) for n, line in enumerate(lines))


def tiny_recipe(steps: int = 6, snapshot_every: int = 2) -> Recipe:
    return Recipe(
        name="tiny",
        size=TINY,
        schedule=Schedule(steps=steps, batch=4, warm_up=2, snapshot_every=snapshot_every),
        sequence=32,
    )
