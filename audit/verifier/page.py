"""The one-file verifier that each bundle brings: put together from its parts, and known by its fingerprint.

Decides which page may stand in a bundle: just the pages that a release of this program wrote, for another
page in its place could say anything to whoever opens it. Trusts the files that are installed beside it.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from fedproto.ids import Digest, sha256_hex

# What each depends on stands before it.
_PARTS = (
    "words",
    "bytes",
    "canonical",
    "shake",
    "mldsa",
    "tree",
    "note",
    "envelope",
    "history",
    "zip",
    "check",
    "page",
)
_SLOT = '<meta name="renmei-page" content="{}">'
_BLANK = "0" * 64
# Of earlier releases, whose bundles stay good; this one's is computed.
_RELEASED: frozenset[Digest] = frozenset()


@cache
def page() -> bytes:
    """Return the page, its own fingerprint filled in."""
    script = "\n" + "".join(_part(f"{name}.js") for name in _PARTS)
    style = "\n" + _part("page.css")
    blank = (
        _part("page.html")
        .replace("@SCRIPT@", _source_hash(script))
        .replace("@STYLE@", _source_hash(style))
        .replace("@CSS@", style)
        .replace("@JS@", script)
    )
    return blank.replace(_SLOT.format(_BLANK), _SLOT.format(sha256_hex(blank.encode()))).encode()


def fingerprint(data: bytes) -> Digest | None:
    """Return the fingerprint that a page carries, if it is its own; else nothing."""
    text = data.decode("utf-8", "replace")
    start = text.find(_SLOT.split("{}", maxsplit=1)[0])
    claimed = text[start:].removeprefix(_SLOT.split("{}", maxsplit=1)[0])[:64]
    blank = text.replace(_SLOT.format(claimed), _SLOT.format(_BLANK))
    own = sha256_hex(blank.encode())
    return own if start >= 0 and own == claimed else None


def is_known(data: bytes) -> bool:
    """Say whether a page is this version's, or one of an earlier release."""
    return data == page() or fingerprint(data) in _RELEASED


def _part(name: str) -> str:
    return files("audit.verifier").joinpath("parts", name).read_text("utf-8")


def _source_hash(source: str) -> str:
    """Return what a content security policy calls an inline source by."""
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode("ascii")
