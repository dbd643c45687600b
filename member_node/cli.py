"""`renmei node`: what a member does at its own premises. Declarations only; no handler is imported."""

import argparse

from fedproto.command import Commands


def register(commands: Commands) -> None:
    """Declare the verbs of `node`."""
    node = commands.noun("node", en="run a member's node", ja="メンバーのノードを運用します")
    verbs = (
        (
            "init",
            "make the node's own files in a member's directory",
            "ノードのファイルを作成します",
        ),
        (
            "run",
            "run the agent: outbound connections only",
            "エージェントを起動します(外向き接続のみ)",
        ),
        ("status", "show what the running agent knows", "稼働中のエージェントの状態を表示します"),
        ("vote", "vote on a proposal by hand", "提案に手動で投票します"),
        ("policy", "show the site's policy in force", "拠点の方針を表示します"),
        (
            "egress",
            "show what left this site, verified",
            "拠点外に送信されたものを検証して表示します",
        ),
    )
    for name, en, ja in verbs:
        parser = node.verb(name, handler=f"member_node.commands:{name}_", en=en, ja=ja)
        _directory(parser, commands)
        if name == "run":
            parser.add_argument(
                "--no-compile",
                action="store_true",
                help=commands.say(
                    en="train without torch.compile: starts sooner, runs slower",
                    ja="torch.compile を使わずに学習します(起動は速く、実行は遅い)",
                ),
            )
        if name == "vote":
            _ballot(parser, commands)
        if name == "egress":
            parser.add_argument(
                "--all",
                action="store_true",
                help=commands.say(en="every message, not the sums", ja="合計でなく全件"),
            )


def _directory(parser: argparse.ArgumentParser, commands: Commands) -> None:
    parser.add_argument(
        "--dir",
        default=".",
        metavar="DIR",
        help=commands.say(en="the member's directory", ja="メンバーのディレクトリ"),
    )


def _ballot(parser: argparse.ArgumentParser, commands: Commands) -> None:
    parser.add_argument(
        "proposal",
        metavar="PROPOSAL",
        help=commands.say(
            en="its digest as `renmei node status` shows it, or the first digits",
            ja="`renmei node status` が示すダイジェスト(先頭の数桁でも可)",
        ),
    )
    parser.add_argument("choice", choices=("yes", "no", "abstain"))
