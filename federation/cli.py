"""The commands of the coordinator and of those who run a federation. Strings only."""

import argparse

from fedproto.command import Commands


def register(commands: Commands) -> None:
    """Declare `coordinator` and `run`."""
    coordinator = commands.noun(
        "coordinator", en="run the coordinator", ja="調整サーバーを運用します"
    )
    init = coordinator.verb(
        "init",
        handler="federation.commands:init_",
        en="check a coordinator's directory and say what it lacks",
        ja="調整サーバーのディレクトリを点検し、不足を示します",
    )
    serve = coordinator.verb(
        "serve",
        handler="federation.commands:serve_",
        en="serve the consortium until told to stop",
        ja="停止の指示があるまで稼働します",
    )
    serve.add_argument(
        "--witness",
        metavar="MEMBER=URL",
        action="append",
        help=commands.say(
            en="a witness to ask over HTTP; may be repeated (others attend by themselves)",
            ja="HTTP で連署を求める証人(複数可)。他の証人は自ら接続します",
        ),
    )
    recover = coordinator.verb(
        "recover",
        handler="federation.commands:recover_",
        en="bring a ledger restored from a backup up to a member's mirror",
        ja="バックアップから復元した台帳に、メンバーの複製から続きを取り込みます",
    )
    recover.add_argument(
        "--mirror",
        required=True,
        metavar="DIR",
        help=commands.say(en="a copy of a member's mirror", ja="メンバーの台帳複製のコピー"),
    )
    run = commands.noun("run", en="propose, start and follow runs", ja="実行の提案・開始・監視")
    propose = run.verb(
        "propose",
        handler="federation.commands:propose_",
        en="put a plan to the vote",
        ja="実行計画を投票にかけます",
    )
    propose.add_argument(
        "--plan",
        required=True,
        metavar="FILE",
        help=commands.say(en="canonical JSON of the plan", ja="実行計画の正規形JSON"),
    )
    propose.add_argument(
        "--closes-in",
        type=int,
        default=86_400,
        metavar="SECONDS",
        help=commands.say(en="how long members may vote", ja="投票の受付秒数"),
    )
    propose.add_argument(
        "--dry-run",
        action="store_true",
        help=commands.say(en="show the plan and its hash only", ja="計画とハッシュの表示のみ"),
    )
    start = run.verb(
        "start",
        handler="federation.commands:start_",
        en="start a run that a mandate covers",
        ja="委任のある実行を開始します",
    )
    stop = run.verb(
        "stop",
        handler="federation.commands:stop_",
        en="stop a run after the round in progress",
        ja="進行中のラウンドの後で実行を止めます",
    )
    watch = run.verb(
        "watch",
        handler="federation.commands:watch_",
        en="follow a run to its end",
        ja="実行を最後まで監視します",
    )
    listing = run.verb(
        "list",
        handler="federation.commands:list_",
        en="list proposals and runs, as the verified ledger has them",
        ja="検証済みの台帳にある提案と実行の一覧",
    )
    for parser in (start, stop, watch):
        parser.add_argument(
            "run",
            metavar="RUN",
            help=commands.say(en="its id, or the first digits", ja="実行の番号(先頭のみも可)"),
        )
    for parser in (init, serve, recover, propose, start, stop, watch, listing):
        _directory(parser, commands)


def _directory(parser: argparse.ArgumentParser, commands: Commands) -> None:
    parser.add_argument(
        "--dir",
        required=True,
        metavar="DIR",
        help=commands.say(en="the party's directory", ja="自分のディレクトリ"),
    )
