"""The verbs of `renmei audit` that serve others. Declarations only."""

from fedproto.command import Commands, Noun


def declare(audit: Noun, commands: Commands) -> None:
    """Declare `serve` and `witness`."""
    serve = audit.verb(
        "serve",
        handler="audit.commands.serving:serve",
        en="serve a published log or a mirror as static files (C2SP tlog-tiles)",
        ja="公開ログまたは複製を静的ファイルとして配信します(C2SP tlog-tiles)",
    )
    witness = audit.verb(
        "witness",
        handler="audit.commands.serving:witness",
        en="serve a witness (C2SP tlog-witness) that cosigns the logs you name",
        ja="指定したログに連署する証人を稼働します(C2SP tlog-witness)",
    )
    for parser, en, ja in (
        (serve, "`ledger/public` of a coordinator, or a mirror", "公開ログまたは複製"),
        (witness, "the witness's own directory", "証人のディレクトリー"),
    ):
        parser.add_argument("directory", metavar="DIR", help=commands.say(en=en, ja=ja))
        parser.add_argument(
            "--listen",
            metavar="HOST:PORT",
            default="127.0.0.1:0",
            help=commands.say(
                en="default: this machine only, a free port; TLS belongs to a proxy before it",
                ja="既定はこの計算機のみ、空きポート。TLS は前段のプロキシで終端します",
            ),
        )
    witness.add_argument(
        "--name",
        metavar="NAME",
        required=True,
        help=commands.say(en="the witness's name in its key", ja="鍵に記す証人の名前"),
    )
    witness.add_argument(
        "--log-key",
        metavar="VKEY",
        required=True,
        action="append",
        help=commands.say(en="a log to cosign; may be repeated", ja="連署するログの鍵(複数可)"),
    )
    witness.add_argument(
        "--key",
        metavar="FILE",
        help=commands.say(
            en="its seed; default: DIR/witness.key, made at the first start",
            ja="鍵の種。既定は DIR/witness.key(初回に作成)",
        ),
    )
