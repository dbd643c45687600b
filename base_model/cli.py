"""`renmei base`: fetch the corpora, train the base model. Declarations only."""

from fedproto.command import Commands


def register(commands: Commands) -> None:
    """Declare the verbs of `base`."""
    base = commands.noun("base", en="make the base model", ja="基盤モデルを作ります")
    fetch = base.verb(
        "fetch",
        handler="base_model.commands:fetch",
        en="bring the corpora that corpus.lock names into a cache (the one step that uses a network)",
        ja="corpus.lock に記されたコーパスを取得します(通信を行う唯一の処理です)",
    )
    train = base.verb(
        "train",
        handler="base_model.commands:train",
        en="pretrain a base model and write it as a release, named by digest",
        ja="基盤モデルを事前学習し、ダイジェストを名前とする公開物として書き出します",
    )
    for parser in (fetch, train):
        parser.add_argument(
            "--cache",
            metavar="DIR",
            default=".cache/corpora",
            help=commands.say(en="where the corpora are kept", ja="コーパスの保管場所"),
        )
    train.add_argument(
        "--out",
        metavar="DIR",
        required=True,
        help=commands.say(
            en="where snapshots and the release are written; run again to go on from a snapshot",
            ja="途中経過と公開物の書き出し先(再実行すると続きから始まります)",
        ),
    )
    train.add_argument(
        "--recipe",
        metavar="NAME",
        default="demo",
        help=commands.say(en="demo or fast", ja="demo または fast"),
    )
    train.add_argument(
        "--seed",
        type=int,
        default=7,
        metavar="N",
        help=commands.say(en="makes the losses repeat", ja="損失を再現するための種"),
    )
    train.add_argument(
        "--no-compile",
        action="store_true",
        help=commands.say(en="do not compile the loss", ja="損失の計算をコンパイルしません"),
    )
