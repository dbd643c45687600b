"""A report as one HTML file: no script, no image, no font and no address outside of itself.

Decides the form only. Every text is escaped: a name in a charter is its member's own choice. The
content security policy in the file forbids everything but its one style sheet, named by hash. Pure.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from html import escape

from audit.citation import Citation
from audit.legible import instant, moment, visible
from audit.reports.document import Line, Report, Say, Section, Statement
from fedproto.ids import is_digest

_STYLE = """
:root { --ink: #14213d; --soft: #5b6579; --rule: #cfd6e2; --mark: #0b5cad; --alarm: #a01818; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2.5rem 2rem 4rem; color: var(--ink);
  background: #fff; font: 16px/1.65 system-ui, "Hiragino Sans", "Noto Sans CJK JP", sans-serif; }
header { border-bottom: 3px solid var(--ink); padding-bottom: 1rem; margin-bottom: 2rem; }
h1 { font-size: 1.9rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .7rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--rule); }
.code { color: var(--soft); letter-spacing: .06em; font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 1rem 0 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code, .hash { font: .86em/1.5 ui-monospace, "SFMono-Regular", Menlo, "Noto Sans Mono CJK JP", monospace; }
ul { padding-left: 1.2rem; margin: .4rem 0; } li { margin: .25rem 0; }
.alarm { color: var(--alarm); font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; margin: .6rem 0; }
th, td { text-align: left; vertical-align: top; padding: .38rem .6rem .38rem 0;
  border-bottom: 1px solid var(--rule); overflow-wrap: break-word; }
td.hash { word-break: break-all; min-width: 13rem; }
td.fixed { white-space: nowrap; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
a { color: var(--mark); text-decoration: none; } a:hover { text-decoration: underline; }
.cite { white-space: nowrap; font-size: .82rem; margin-left: .35rem; }
.entries td { font-size: .82rem; } .entries tr:target { background: #fff6d6; }
pre { font: .78rem/1.45 ui-monospace, Menlo, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; background: #f5f7fa; padding: .8rem 1rem; border-radius: 4px; }
.pending { color: var(--alarm); }
@media print { body { max-width: none; padding: 0; font-size: 10.5pt; } h2 { break-after: avoid; }
  tr, li { break-inside: avoid; } a { color: inherit; } pre { background: none; padding: 0; } }
@page { margin: 18mm 16mm; }
"""


def page(report: Report, say: Say) -> str:
    """Return the file."""
    policy = f"default-src 'none'; style-src 'sha256-{_hash(_STYLE)}'; base-uri 'none'; form-action 'none'"
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="{report.language}">',
        '<head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_text(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>{_text(report.title)}</title><style>{_STYLE}</style></head>",
        "<body><header>",
        f'<div class="code">{_text(report.code)} · {_text(report.consortium)}</div>',
        f"<h1>{_text(report.title)}</h1>",
        _facts(report, say),
        "</header><main>",
        *(_section(section, say) for section in report.sections),
        _appendix(report, say),
        "</main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _hash(style: str) -> str:
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")


def _text(text: str) -> str:
    return escape(visible(text), quote=True)


def _facts(report: Report, say: Say) -> str:
    facts = (
        (say(en="log", ja="ログ"), report.origin),
        (say(en="entries", ja="項目数"), str(report.size)),
        (say(en="root", ja="ルート"), report.root),
    )
    rows = (f"<dt>{_text(name)}</dt><dd><code>{_text(value)}</code></dd>" for name, value in facts)
    return f"<dl>{''.join(rows)}</dl>"


def _section(section: Section, say: Say) -> str:
    parts = [f"<section><h2>{_text(section.title)}</h2>"]
    if section.statements:
        parts.append(f"<ul>{''.join(map(_statement, section.statements))}</ul>")
    if section.header:
        head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in section.header)
        body = "".join(map(_line, section.lines))
        head += f'<th scope="col">{_text(say(en="entries", ja="根拠"))}</th>'
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    return "\n".join([*parts, "</section>"])


def _statement(item: Statement) -> str:
    mark = ' class="alarm"' if item.alarm else ""
    return f"<li{mark}>{_text(item.text)}{_cites(item.cites)}</li>"


def _line(line: Line) -> str:
    return f"<tr>{''.join(map(_cell, line.cells))}<td>{_cites(line.cites)}</td></tr>"


def _cell(text: str) -> str:
    mark = ' class="hash"' if is_digest(text) else ""
    return f"<td{mark}>{_text(text)}</td>"


def _cites(cites: Iterable[int]) -> str:
    links = " ".join(f'<a href="#entry-{index}">#{index}</a>' for index in cites)
    return f'<span class="cite">{links}</span>' if links else ""


def _appendix(report: Report, say: Say) -> str:
    title = say(en="Entries that this rests on", ja="根拠となる台帳項目")
    head = (
        ("#", "#"),
        ("type, member", "種類・メンバー"),
        ("leaf hash", "葉ハッシュ"),
        ("claimed / witnessed", "申告時刻 / 裏付け"),
        ("state", "状態"),
    )
    cells = "".join(f'<th scope="col">{_text(say(en=en, ja=ja))}</th>' for en, ja in head)
    rows = "".join(_entry(item, say) for item in report.entries)
    note = say(en="Checkpoint", ja="チェックポイント")
    how = say(
        en="Each entry is checked alone: renmei audit prove LOG INDEX -o FILE, then "
        "renmei audit verify FILE --entry FILE.entry --policy POLICY. The inclusion proofs of this "
        "page are in its JSON form.",
        ja="各項目は単独で検証できます: renmei audit prove LOG INDEX -o FILE の後、"
        "renmei audit verify FILE --entry FILE.entry --policy POLICY。包含証明は JSON 形式に含まれます。",
    )
    return (
        f'<section class="entries"><h2>{_text(title)}</h2><p>{_text(how)}</p>'
        f"<table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></section>"
        f"<section><h2>{_text(note)}</h2><pre>{_text(report.note)}</pre></section>"
    )


def _entry(item: Citation, say: Say) -> str:
    row = item.row
    state = say(en="verified", ja="検証済み") if row.witnessed else say(en="pending", ja="連署待ち")
    mark = "fixed" if row.witnessed else "fixed pending"
    times = "<br>".join(map(_text, _times(item)))
    return (
        f'<tr id="entry-{row.index}"><td class="fixed">{row.index}</td>'
        f"<td>{_text(row.type)}<br>{_text(row.member)}</td>"
        f'<td class="hash">{_text(row.leaf)}</td><td>{times}</td><td class="{mark}">{_text(state)}</td></tr>'
    )


def _times(item: Citation) -> Iterator[str]:
    row = item.row
    yield moment(row.at)
    yield f"{instant(row.not_before_s) or '…'} – {instant(row.not_after_s) or '…'}"
