"""The commands of `renmei` itself: demo, consortium, explain, version. Strings only."""

from fedproto.command import Commands


def register(commands: Commands) -> None:
    """Declare the commands."""
    _demo(commands)
    _consortium(commands)
    explain = commands.plain(
        "explain",
        handler="renmei.explain:explain",
        en="say what an error code means and how to mend it",
        ja="エラーコードの意味と対処を説明します",
    )
    explain.add_argument(
        "code",
        nargs="?",
        metavar="CODE",
        help=commands.say(en="for example RNM-LEDGER-0003", ja="例: RNM-LEDGER-0003"),
    )
    commands.plain(
        "version",
        handler="renmei.version:version",
        en="show the versions of Renmei and of its parts",
        ja="Renmei と部品の版を表示します",
    )


def _consortium(commands: Commands) -> None:
    consortium = commands.noun("consortium", en="found a consortium", ja="連盟を設立します")
    init = consortium.verb(
        "init",
        handler="renmei.founding:init",
        en="make the root, the parties' directories with their keys, and the first charter",
        ja="ルート、各参加者のディレクトリーと鍵、最初の憲章を作成します",
    )
    init.add_argument(
        "--dir",
        metavar="DIR",
        required=True,
        help=commands.say(
            en="new directory; each party takes its own sub-directory away",
            ja="新しいディレクトリー。各参加者が自分の分を持ち帰ります",
        ),
    )
    init.add_argument("--name", metavar="NAME", default="renmei")
    for option, en, ja in (
        ("--coordinator", "address of the gRPC services", "gRPC サービスの接続先"),
        ("--gateway", "address of the gateway to Flower", "Flower への中継の接続先"),
    ):
        init.add_argument(
            option, metavar="HOST:PORT", required=True, help=commands.say(en=en, ja=ja)
        )


def _demo(commands: Commands) -> None:
    demo = commands.plain(
        "demo",
        handler="renmei.demo.command:demo",
        en="run a whole federation of four members on this machine",
        ja="このコンピューター上で4社の連合学習を通しで実行します",
    )
    demo.add_argument(
        "--fast",
        action="store_true",
        help=commands.say(en="smaller model, fewer rounds", ja="小さなモデル、少ないラウンド"),
    )
    demo.add_argument(
        "--keep",
        metavar="DIR",
        help=commands.say(
            en="leave every party's files in DIR", ja="各参加者のファイルを DIR に残します"
        ),
    )
    demo.add_argument(
        "--seed",
        type=int,
        default=7,
        metavar="N",
        help=commands.say(en="make the losses repeat", ja="損失を再現するための種"),
    )
    demo.add_argument(
        "--cache",
        metavar="DIR",
        default=".cache/corpora",
        help=commands.say(
            en="the corpora that `renmei base fetch` brought",
            ja="`renmei base fetch` で取得したコーパス",
        ),
    )
