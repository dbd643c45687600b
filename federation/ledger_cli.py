"""`renmei ledger`: the ledger as the coordinator serves it to a party. Declarations only."""

import argparse

from fedproto.command import Commands


def register(commands: Commands) -> None:
    """Declare the verbs of `ledger`."""
    ledger = commands.noun(
        "ledger", en="fetch the ledger, verified", ja="台帳を検証しながら取得します"
    )
    sync = ledger.verb(
        "sync",
        handler="federation.ledger_commands:sync_",
        en="bring this party's mirror up to the newest cosigned checkpoint",
        ja="手元の複製を最新の連署済みチェックポイントまで更新します",
    )
    sync.add_argument(
        "--from",
        dest="source",
        metavar="URL",
        help=commands.say(
            en="a static copy of the log (https, or this machine) instead of the coordinator",
            ja="調整サーバーの代わりに使う公開ログの URL(https または同一計算機)",
        ),
    )
    export = ledger.verb(
        "export",
        handler="federation.ledger_commands:export_",
        en="fetch a bundle for offline verification, and verify it",
        ja="オフライン検証用の証拠ファイルを取得し、検証します",
    )
    receipt = ledger.verb(
        "receipt",
        handler="federation.ledger_commands:receipt_",
        en="fetch a COSE receipt (RFC 9942) of an entry, and verify it",
        ja="項目の COSE レシート(RFC 9942)を取得し、検証します",
    )
    receipt.add_argument(
        "index", type=int, metavar="INDEX", help=commands.say(en="of the entry", ja="項目の番号")
    )
    for parser in (export, receipt):
        parser.add_argument(
            "-o",
            "--output",
            required=True,
            metavar="FILE",
            help=commands.say(en="file to write", ja="書き出すファイル"),
        )
    for parser in (sync, export, receipt):
        _directory(parser, commands)


def _directory(parser: argparse.ArgumentParser, commands: Commands) -> None:
    parser.add_argument(
        "--dir",
        required=True,
        metavar="DIR",
        help=commands.say(en="the party's directory", ja="自分のディレクトリ"),
    )
