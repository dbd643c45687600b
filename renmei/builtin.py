"""The commands of `renmei` itself: demo, explain, version. Strings only."""

from fedproto.command import Commands


def register(commands: Commands) -> None:
    """Declare the commands."""
    _demo(commands)
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
