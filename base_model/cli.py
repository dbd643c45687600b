"""`renmei base`: fetch the corpora, train the base model. Declarations only."""

from fedproto.command import Commands, Noun


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
    _register_data(commands)


def _register_data(commands: Commands) -> None:
    """Declare the verbs of `model` that make and describe the data."""
    model = commands.noun(
        "model", en="the base model's data and parts", ja="基盤モデルのデータと部品を扱います"
    )
    data = model.verb(
        "data",
        handler="base_model.data_commands:data",
        en="build the data of a base model: deduplicated, split, packed, with a manifest by digest",
        ja="基盤モデルのデータを作ります(重複除去、分割、トークン化、ダイジェスト付きの目録)",
    )
    data.add_argument(
        "--cache",
        metavar="DIR",
        default=".cache/corpora",
        help=commands.say(en="where the corpora are kept", ja="コーパスの保管場所"),
    )
    data.add_argument(
        "--out",
        metavar="DIR",
        required=True,
        help=commands.say(en="where the data is written", ja="データの書き出し先"),
    )
    data.add_argument(
        "--vocabulary",
        type=int,
        default=4096,
        metavar="N",
        help=commands.say(en="how many tokens there are in all", ja="語彙の総数"),
    )
    data.add_argument(
        "--bins",
        type=int,
        default=0,
        metavar="N",
        help=commands.say(
            en="add synthetic CAN series, each value in one of N bins (256 is usual)",
            ja="合成した CAN 時系列を加え、値を N 階級に分けます(通常は 256)",
        ),
    )
    _register_pretrain(model, commands)
    _register_plan(model, commands)
    _register_release(model, commands)
    words = model.verb(
        "tokenizer",
        handler="base_model.data_commands:tokenizer",
        en="say what a tokenizer is and what it costs",
        ja="トークナイザーの内容と効率を示します",
    )
    words.add_argument(
        "--data",
        metavar="DIR",
        required=True,
        help=commands.say(en="a build of `renmei model data`", ja="`renmei model data` の出力先"),
    )
    words.add_argument(
        "--report",
        action="store_true",
        help=commands.say(
            en="measure fertility on held-out text beside published figures",
            ja="評価用の文書で効率を測り、公表値と並べて示します",
        ),
    )


def _register_pretrain(model: Noun, commands: Commands) -> None:
    train = model.verb(
        "pretrain",
        handler="base_model.pretrain_commands:pretrain",
        en="pretrain by a recipe file, over one process or several; run again to go on",
        ja="レシピファイルに従って事前学習します(複数プロセス可、再実行すると続きから)",
    )
    train.add_argument(
        "recipe", metavar="RECIPE.toml", help=commands.say(en="the recipe", ja="レシピ")
    )
    train.add_argument(
        "--data",
        metavar="DIR",
        required=True,
        help=commands.say(en="a build of `renmei model data`", ja="`renmei model data` の出力先"),
    )
    train.add_argument(
        "--out",
        metavar="DIR",
        required=True,
        help=commands.say(
            en="where snapshots, figures and the model are written",
            ja="途中経過、記録、モデルの書き出し先",
        ),
    )
    train.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help=commands.say(
            en="how many processes on this machine share each batch",
            ja="この計算機で一つのバッチを分担するプロセス数",
        ),
    )
    for name, en, ja in (
        (
            "tensor",
            "of them, how many cut matrices and experts between them",
            "そのうち、行列とエキスパートを分割し合うプロセス数",
        ),
        (
            "replicas",
            "how many sets of shards repeat (HSDP)",
            "シャードの組を複製する数(HSDP)",
        ),
    ):
        train.add_argument(
            f"--{name}", type=int, default=1, metavar="N", help=commands.say(en=en, ja=ja)
        )
    train.add_argument(
        "--watts",
        type=float,
        default=0.0,
        metavar="W",
        help=commands.say(
            en="what the machine draws, for the energy estimate",
            ja="消費電力量の見積りに使う消費電力",
        ),
    )


def _register_plan(model: Noun, commands: Commands) -> None:
    say = commands.say
    plan = model.verb(
        "plan",
        handler="base_model.plan_commands:plan",
        en="say what a pretraining would take: memory, time, energy, cost",
        ja="事前学習に要するメモリー、時間、電力量、費用を見積もります",
    )
    # What they may be stands in base_model/planner; argparse names the choices in its error.
    shapes = (
        "llama-3.1-8b",
        "llama-3.1-405b",
        "qwen3-30b-a3b",
        "qwen3-235b-a22b",
        "deepseek-v3",
        "kimi-k2",
    )
    plan.add_argument(
        "--params",
        metavar="N",
        help=say(en="how many parameters, such as 1T or 7.5B", ja="パラメーター数(例 1T、7.5B)"),
    )
    plan.add_argument(
        "--like",
        choices=shapes,
        help=say(en="whose proportions it has", ja="比率の手本とするモデル"),
    )
    plan.add_argument(
        "--recipe",
        metavar="RECIPE.toml",
        help=say(en="plan for a recipe instead", ja="レシピから見積もります"),
    )
    plan.add_argument(
        "--vocabulary",
        type=int,
        default=4096,
        metavar="N",
        help=say(en="tokens of the recipe's data", ja="レシピのデータの語彙数"),
    )
    plan.add_argument(
        "--tokens",
        metavar="N",
        help=say(
            en="how many tokens, such as 15T (400 for each active parameter)",
            ja="学習トークン数(例 15T、省略時は有効パラメーターの 400 倍)",
        ),
    )
    plan.add_argument(
        "--cards", type=int, default=2048, metavar="N", help=say(en="how many", ja="枚数")
    )
    plan.add_argument(
        "--card",
        choices=("h800", "h100", "h200", "b200", "gb200"),
        default="h200",
        help=say(en="which accelerator", ja="アクセラレーターの種類"),
    )
    for name, value, en, ja in (
        ("mfu", 35.0, "share of the peak that is reached, percent", "ピーク性能に対する実効率(%%)"),
        ("availability", 90.0, "share of the time that trains, percent", "稼働率(%%)"),
        ("pue", 1.2, "the data centre's power over its machines'", "データセンターの PUE"),
        ("price", 0.0, "of a card for an hour", "1 枚 1 時間の料金"),
    ):
        plan.add_argument(
            f"--{name}", type=float, default=value, metavar="X", help=say(en=en, ja=ja)
        )
    plan.add_argument(
        "--sequence",
        type=int,
        default=4096,
        metavar="N",
        help=say(en="tokens of a sequence", ja="系列のトークン数"),
    )


def _register_release(model: Noun, commands: Commands) -> None:
    say = commands.say
    release = model.verb(
        "release",
        handler="base_model.release_commands:release",
        en="verify a release: every file, where it came from, that it brings no code",
        ja="公開物を検証します(全ファイル、由来、コードを含まないこと)",
    )
    evaluate = model.verb(
        "evaluate",
        handler="base_model.release_commands:evaluate",
        en="examine a release on held-out data: bits per byte, cloze, series, planted canaries",
        ja="評価用データで公開物を調べます(バイト当たりビット数、穴埋め、時系列、記憶の検査)",
    )
    edge = model.verb(
        "edge",
        handler="base_model.edge_commands:edge",
        en="export a release with its adapters for devices: ONNX in float32 and int8, measured",
        ja="公開物をアダプターと統合し、機器向けに変換します(ONNX、int8、損失と速度を実測)",
    )
    edge.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="DIR",
        help=say(en="an adapter to merge; may be repeated", ja="統合するアダプター(複数可)"),
    )
    edge.add_argument("--out", required=True, metavar="DIR", help=say(en="where to", ja="出力先"))
    for parser in (release, evaluate, edge):
        parser.add_argument(
            "release",
            metavar="DIR",
            help=say(en="the release's directory", ja="公開物のディレクトリ"),
        )
        parser.add_argument(
            "--digest",
            default="",
            metavar="SHA256",
            help=say(
                en="what it must be (its directory's name)", ja="あるべきダイジェスト(省略時は名前)"
            ),
        )
    release.add_argument(
        "--terms",
        metavar="FILE",
        help=say(en="write the terms of its approval", ja="承認の内容を書き出す"),
    )
    release.add_argument("--name", metavar="NAME", help=say(en="the model's name", ja="モデル名"))
    release.add_argument("--licence", metavar="ID", help=say(en="its licence", ja="ライセンス"))
    for parser in (evaluate, edge):
        parser.add_argument(
            "--data",
            metavar="DIR",
            required=True,
            help=say(en="a build of `renmei model data`", ja="`renmei model data` の出力先"),
        )
        parser.add_argument(
            "--documents",
            type=int,
            default=200,
            metavar="N",
            help=say(
                en="held-out documents of each source, at most", ja="出典ごとの評価文書数の上限"
            ),
        )
    evaluate.add_argument(
        "--out", metavar="FILE", help=say(en="write the report", ja="報告を書き出す")
    )
