"""Extractors: a package's file to documents of text, one small function a format.

Decides which text is worth training on and what belongs to one group: a group never straddles train
and test, so near-duplicates do not leak. Runs no code of the packages that it reads. Pure.
"""

import ast
import gzip
import html
import json
import lzma
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

MAX_DOCUMENT = 4096
MIN_DOCUMENT = 64


@dataclass(frozen=True, slots=True)
class Document:
    """A text and the group that it belongs to."""

    group: str
    text: str


Reader = Callable[[str, bytes], Iterator[Document]]

_TAG = re.compile(r"<(script|style|head|nav)\b[^>]*>.*?</\1>|<[^>]+>", re.DOTALL | re.IGNORECASE)
# An address of a person has no place in a corpus; the dot after the @ leaves decorators alone.
_ADDRESS = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_SAME_MAKER = {"acura": "honda", "cadillac": "gm", "opel": "gm", "fca": "chrysler"}
_ROFF_TEXT = frozenset("SH SS TP B I BR RB IR RI BI IB IP TH".split())


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "ignore").replace("\r\n", "\n")


def _stem(name: str) -> str:
    return PurePosixPath(name).name


def numbering(name: str, data: bytes) -> Iterator[Document]:
    """Yield the numbering plan of a region; each is a group of its own."""
    yield Document(_stem(name), _decode(data))


def textfsm(name: str, data: bytes) -> Iterator[Document]:
    """Yield a parser of a device command; its group is the command, whoever made the device."""
    words = _stem(name).removesuffix(".textfsm").split("_")
    yield Document(" ".join(words[2:]) or _stem(name), _decode(data))


def definitions(name: str, data: bytes) -> Iterator[Document]:
    """Yield the class blocks of a Python file of message definitions, licence header left out."""
    blocks = re.split(r"\n(?=#-{10,}#?\n|class )", _decode(data))
    for block in blocks[1:]:
        yield Document(f"{_stem(name)}/{block[:80]}", block)


def dbc(name: str, data: bytes) -> Iterator[Document]:
    """Yield a CAN database; all of one car maker are one group, since they share messages."""
    path = PurePosixPath(name.lower())
    # Below generator/, files are named by part ("_comma.dbc") and folders by maker.
    maker = path.parent.name if "generator" in path.parts else re.split(r"[_.]", path.name)[0]
    yield Document(_SAME_MAKER.get(maker, maker), _decode(data))


def prowler(_: str, data: bytes) -> Iterator[Document]:
    """Yield a cloud security check as prose: what, why it matters, how to mend it."""
    check: dict[str, Any] = json.loads(data)
    remedy: dict[str, Any] = check.get("Remediation") or {}
    code: dict[str, Any] = remedy.get("Code") or {}
    lines = [
        f"# {check.get('CheckTitle', '')}",
        (
            f"Provider: {check.get('Provider', '')}  Service: {check.get('ServiceName', '')}  "
            f"Severity: {check.get('Severity', '')}"
        ),
        str(check.get("Description", "")),
        f"Risk: {check.get('Risk', '')}",
        f"Remediation: {(remedy.get('Recommendation') or {}).get('Text', '')}",
        *(f"{kind}:\n{text}" for kind, text in code.items() if text),
    ]
    yield Document(f"{check.get('Provider')}/{check.get('ServiceName')}", "\n".join(lines))


def stix(_: str, data: bytes) -> Iterator[Document]:
    """Yield the descriptions in a STIX bundle, grouped by the name of what they describe."""
    stack: list[Any] = [json.loads(data)]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            text = item.get("description")
            if isinstance(text, str):
                title = str(item.get("name") or "")
                yield Document(title[:40] or text[:40], f"{title}\n{text}")
            stack.extend(reversed(list(item.values())))
        elif isinstance(item, list):
            stack.extend(reversed(item))


def abc(name: str, data: bytes) -> Iterator[Document]:
    """Yield the tunes of an ABC file; variants of one title are one group.

    Z: fields are left out: they hold names and addresses of the people who transcribed.
    """
    text = re.sub(r"^Z:.*\n?", "", _decode(data), flags=re.MULTILINE)
    for tune in re.split(r"\n(?=X: ?\d)", text):
        title = re.search(r"^T: ?(.*)$", tune, re.MULTILINE)
        yield Document(re.sub(r"\W", "", title[1].lower()) if title else _stem(name), tune)


def docstrings(name: str, data: bytes) -> Iterator[Document]:
    """Yield the docstrings of a Python module as one document."""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError):
        return
    parts = []
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop(0)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and len(text) > 120:
                parts.append(f"{getattr(node, 'name', '')}\n{text}".strip())
            nodes.extend(node.body)
    if parts:
        yield Document(name, "\n\n".join(parts))


def web(name: str, data: bytes) -> Iterator[Document]:
    """Yield the sections of an HTML page as text; each is a group of its own."""
    for number, section in enumerate(re.split(r"(?=<h[23]\b)", _decode(data))):
        text = html.unescape(_TAG.sub(" ", section))
        text = re.sub(r"[ \t\xa0]+", " ", text)
        yield Document(f"{name}#{number}", re.sub(r"\s*\n\s*", "\n", text))


def man(name: str, data: bytes) -> Iterator[Document]:
    """Yield a manual page as text, its roff requests resolved or dropped."""
    lines = []
    for line in _decode(gzip.decompress(data)).split("\n"):
        if line.startswith(('.\\"', "'\\\"")):
            continue
        request = re.match(r"^[.'](\w+)\s*(.*)$", line)
        kept = line
        if request:
            kept = request[2].replace('"', "") if request[1] in _ROFF_TEXT else ""
        kept = re.sub(r"\\f[BIRP]|\\f\(..", "", kept)
        lines.append(kept.replace("\\-", "-").replace("\\&", "").replace("\\e", "\\"))
    yield Document(name, "\n".join(lines))


def jmdict(_: str, data: bytes) -> Iterator[Document]:
    """Yield the JMdict lexicon, forty entries a document, from the package's SQLite file."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(lzma.decompress(data))
        yield from _lexicon(connection)
    finally:
        connection.close()


def _lexicon(connection: sqlite3.Connection) -> Iterator[Document]:
    query = """
        SELECT r.idseq, group_concat(DISTINCT k.text), group_concat(DISTINCT r.text),
               (SELECT group_concat(g.text, '; ') FROM Sense s JOIN SenseGloss g ON g.sid = s.ID
                WHERE s.idseq = r.idseq)
        FROM Kana r LEFT JOIN Kanji k ON k.idseq = r.idseq
        WHERE r.idseq % 4 = 0 GROUP BY r.idseq ORDER BY r.idseq"""
    lines: list[str] = []
    for entry, kanji, kana, gloss in connection.execute(query):
        head = f"{kanji}【{kana}】" if kanji else str(kana)
        lines.append(f"{head} {gloss}")
        if len(lines) == 40:
            yield Document(f"jmdict/{entry}", "\n".join(lines))
            lines = []


READERS: dict[str, Reader] = {
    "numbering": numbering,
    "textfsm": textfsm,
    "definitions": definitions,
    "dbc": dbc,
    "prowler": prowler,
    "stix": stix,
    "abc": abc,
    "docstrings": docstrings,
    "html": web,
    "man": man,
    "jmdict": jmdict,
}


def pieces(document: Document) -> Iterator[Document]:
    """Cut a document at line ends into pieces of at most 4 KiB; drop those that say too little.

    E-mail addresses are replaced here, in whatever was read.
    """
    piece: list[str] = []
    size = 0
    text = _ADDRESS.sub("[address]", document.text.strip())
    for line in re.sub(r"\n{3,}", "\n\n", text).split("\n"):
        length = len(line.encode()) + 1
        if size + length > MAX_DOCUMENT and piece:
            yield from _kept(document.group, piece)
            piece, size = [], 0
        if length <= MAX_DOCUMENT:
            piece.append(line)
            size += length
    yield from _kept(document.group, piece)


def _kept(group: str, lines: list[str]) -> Iterator[Document]:
    text = "\n".join(lines).strip()
    if len(text.encode()) >= MIN_DOCUMENT:
        yield Document(group, text)
