"""`renmei audit`: what an auditor asks of an exported bundle, offline. Declarations only.

The handlers (audit.commands) trust the keys that the reader pins, never the bundle; without a pin they
say so in a warning.
"""

import argparse

from fedproto.command import Commands


def register(commands: Commands) -> None:
    """Declare the verbs of `audit`."""
    audit = commands.noun("audit", en="read and verify the ledger", ja="台帳を閲覧・検証します")
    verify = audit.verb(
        "verify",
        handler="audit.commands:verify",
        en="verify a bundle from its first entry to its last; exit 5 if anything differs",
        ja="証拠ファイルを最初の項目から最後まで検証します。相違があれば終了コード5",
    )
    log = audit.verb(
        "log",
        handler="audit.commands:log",
        en="list the entries: index, time, actor, type",
        ja="台帳項目の一覧(番号、時刻、行為者、種類)",
    )
    show = audit.verb(
        "show",
        handler="audit.commands:show",
        en="show one entry whole, with its trace",
        ja="台帳項目を一つ、トレース番号とともに表示します",
    )
    head = audit.verb(
        "head",
        handler="audit.commands:head",
        en="show the checkpoint: size, root, who cosigned",
        ja="チェックポイント(項目数、ルート、連署した証人)を表示します",
    )
    charter = audit.verb(
        "charter",
        handler="audit.commands:charter",
        en="show the charter in force",
        ja="現行の憲章を表示します",
    )
    for parser in (verify, log, show, head, charter):
        _bundle(parser, commands)
    log.add_argument("--type", metavar="TYPE", help="vote.cast, run.approved, round.closed, ...")
    log.add_argument(
        "--member",
        metavar="MEMBER",
        help=commands.say(en="only acts of this member", ja="このメンバーの行為だけ"),
    )
    show.add_argument(
        "index", type=int, metavar="INDEX", help=commands.say(en="from 0", ja="0から数えます")
    )


def _bundle(parser: argparse.ArgumentParser, commands: Commands) -> None:
    parser.add_argument(
        "bundle",
        metavar="BUNDLE",
        help=commands.say(en="an exported file", ja="書き出された証拠ファイル"),
    )
    parser.add_argument(
        "--log-key",
        metavar="VKEY",
        help=commands.say(
            en="pinned log key (vkey text, or a file that holds it)",
            ja="固定するログ鍵(vkey 文字列、またはそのファイル)",
        ),
    )
    parser.add_argument(
        "--genesis",
        metavar="SHA256",
        help=commands.say(
            en="pinned digest of the first charter", ja="固定する最初の憲章のダイジェスト"
        ),
    )
