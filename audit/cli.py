"""`renmei audit`: what an auditor asks of a log, offline. Declarations only.

The handlers (audit.commands) trust the keys that the reader pins, never the log; without a pin they
say so in a warning.
"""

import argparse

from audit import serving_cli
from fedproto.command import Commands, Noun


def register(commands: Commands) -> None:
    """Declare the verbs of `audit`."""
    audit = commands.noun("audit", en="read and verify the ledger", ja="台帳を閲覧・検証します")
    _whole(audit, commands)
    _entries(audit, commands)
    _questions(audit, commands)
    _exports(audit, commands)
    _evidence(audit, commands)
    serving_cli.declare(audit, commands)


def _whole(audit: Noun, commands: Commands) -> None:
    verify = audit.verb(
        "verify",
        handler="audit.commands.whole:verify",
        en="verify a log from its first entry to its last; exit 5 if anything differs",
        ja="ログを最初の項目から最後まで検証します。相違があれば終了コード5",
    )
    _log(verify, commands)
    _files(
        verify,
        commands,
        ("--entry", "with a proof file: the entry", "証明ファイルの場合: その項目"),
        ("--policy", "with a proof file: the pinned policy", "証明ファイルの場合: 固定した方針"),
    )
    replay = audit.verb(
        "replay",
        handler="audit.commands.whole:replay",
        en="apply every entry again: list violations, and say if the log was ever rewritten",
        ja="全項目を再適用し、違反と書き換えの有無を示します",
    )
    _answer(replay, commands)
    replay.add_argument(
        "--checkpoint",
        metavar="FILE",
        action="append",
        help=commands.say(
            en="a checkpoint that you kept, or a witness's directory; may be repeated",
            ja="保管しているチェックポイント、または証人のディレクトリー(複数可)",
        ),
    )
    head = audit.verb(
        "head",
        handler="audit.commands.whole:head",
        en="show the checkpoint: size, root, who cosigned",
        ja="チェックポイント(項目数、ルート、連署した証人)を表示します",
    )
    charter = audit.verb(
        "charter",
        handler="audit.commands.whole:charter",
        en="show the charter in force",
        ja="現行の憲章を表示します",
    )
    for parser in (head, charter):
        _log(parser, commands)
    state = audit.verb(
        "state",
        handler="audit.commands.whole:state",
        en="show the state of governance at a size, and its digest",
        ja="指定した項目数の時点の統治状態とそのダイジェストを表示します",
    )
    _log(state, commands)
    state.add_argument(
        "--at", metavar="SIZE", type=int, help=commands.say(en="default: all", ja="既定は全項目")
    )
    diff = audit.verb(
        "diff",
        handler="audit.commands.whole:diff",
        en="say what changed between two sizes",
        ja="二つの項目数の間の変更を示します",
    )
    _answer(diff, commands)
    for name in ("old", "new"):
        diff.add_argument(name, metavar=name.upper(), type=int)


def _entries(audit: Noun, commands: Commands) -> None:
    log = audit.verb(
        "log",
        handler="audit.commands.entries:log",
        en="list the entries: index, state, leaf, times, actor, type",
        ja="台帳項目の一覧(番号、状態、葉ハッシュ、時刻、行為者、種類)",
    )
    _answer(log, commands)
    _filters(log, commands)
    show = audit.verb(
        "show",
        handler="audit.commands.entries:show",
        en="show one entry whole, with its trace",
        ja="台帳項目を一つ、トレース番号とともに表示します",
    )
    _answer(show, commands)
    show.add_argument(
        "index", type=int, metavar="INDEX", help=commands.say(en="from 0", ja="0から数えます")
    )
    show.add_argument(
        "--why",
        action="store_true",
        help=commands.say(en="also what allowed it", ja="許可の根拠も表示します"),
    )
    why = audit.verb(
        "why",
        handler="audit.commands.entries:why",
        en="say who approved an entry, a run or a round, and under which clause",
        ja="項目・実行・ラウンドを誰がどの条項で承認したかを示します",
    )
    _answer(why, commands)
    why.add_argument("entry", metavar="INDEX|LEAF", nargs="?")
    _run(why, commands)
    prove = audit.verb(
        "prove",
        handler="audit.commands.entries:prove",
        en="write an entry's tlog-proof, which verifies alone",
        ja="項目の包含証明(tlog-proof)を書き出します",
    )
    _log(prove, commands)
    prove.add_argument("entry", metavar="INDEX|LEAF")
    _output(prove, commands)


def _questions(audit: Noun, commands: Commands) -> None:
    lineage = audit.verb(
        "lineage",
        handler="audit.commands.questions:lineage",
        en="say what an adapter was made of, or which adapters a dataset fed",
        ja="アダプターの系譜、またはデータセットの利用先を示します",
    )
    _answer(lineage, commands)
    lineage.add_argument("digest", metavar="DIGEST")
    present = audit.verb(
        "present",
        handler="audit.commands.questions:present",
        en="say whether a member was present in a round, or who was",
        ja="メンバーがラウンドに参加していたかを示します",
    )
    _answer(present, commands)
    _run(present, commands)
    present.add_argument("--member", metavar="MEMBER")
    budget = audit.verb(
        "budget",
        handler="audit.commands.questions:budget",
        en="say what privacy budget is spent on a dataset, expense by expense",
        ja="データセットのプライバシー予算の消費を順に示します",
    )
    _answer(budget, commands)
    budget.add_argument("dataset", metavar="DATASET", nargs="?")
    weights = audit.verb(
        "weights",
        handler="audit.commands.questions:weights",
        en="say who got weights, content or bundles",
        ja="重み・内容・証拠ファイルを誰が受け取ったかを示します",
    )
    _answer(weights, commands)
    weights.add_argument("--artifact", metavar="DIGEST")
    refusals = audit.verb(
        "refusals",
        handler="audit.commands.questions:refusals",
        en="list everything that was refused, stopped or left out",
        ja="拒否・停止・除外の一覧",
    )
    _answer(refusals, commands)


def _exports(audit: Noun, commands: Commands) -> None:
    export = audit.verb(
        "export",
        handler="audit.commands.exporting:export",
        en="write entries or statements in formats that other tools read",
        ja="項目や来歴を、他のツールが読める形式で書き出します",
    )
    _log(export, commands)
    _filters(export, commands)
    export.add_argument("--format", required=True, choices=("jsonl", "csv", "in-toto", "cyclonedx"))
    export.add_argument(
        "--bom",
        action="store_true",
        help=commands.say(en="csv: a mark for Excel", ja="csv: Excel 用の BOM を付けます"),
    )
    export.add_argument(
        "--identity",
        metavar="DIR",
        help=commands.say(
            en="in-toto: sign as the party of this directory",
            ja="in-toto: このディレクトリーの当事者として署名します",
        ),
    )
    _output(export, commands)
    report = audit.verb(
        "report",
        handler="audit.commands.exporting:report",
        en="write a report whose every statement names its entries",
        ja="すべての記述に根拠の項目を付した報告書を作成します",
    )
    _log(report, commands)
    report.add_argument("--template", required=True, choices=("round", "lineage", "integrity"))
    report.add_argument("--format", default="html", choices=("html", "json", "text"))
    report.add_argument("--artifact", metavar="DIGEST")
    _run(report, commands)
    _output(report, commands)


def _evidence(audit: Noun, commands: Commands) -> None:
    evidence = audit.verb(
        "evidence",
        handler="audit.commands.accusing:evidence",
        en="verify, or pack, the proof that a key signed two histories; exit 5 if it did",
        ja="一つの鍵が二つの履歴に署名した証拠を検証または作成します。署名していれば終了コード5",
    )
    evidence.add_argument(
        "file",
        metavar="FILE",
        help=commands.say(
            en="evidence to verify, or a signed checkpoint",
            ja="検証する証拠、または署名済みチェックポイント",
        ),
    )
    evidence.add_argument(
        "second",
        metavar="CHECKPOINT",
        nargs="?",
        help=commands.say(
            en="another, that contradicts it", ja="矛盾するもう一つのチェックポイント"
        ),
    )
    evidence.add_argument(
        "--key",
        metavar="VKEY",
        help=commands.say(
            en="the witness accused, if not the log", ja="ログでなく証人を対象とする場合の鍵"
        ),
    )
    evidence.add_argument("--log-key", metavar="VKEY")
    evidence.add_argument("--genesis", metavar="SHA256")
    evidence.add_argument(
        "--log",
        metavar="LOG",
        help=commands.say(
            en="a bundle or mirror of the larger checkpoint",
            ja="大きい方のチェックポイントの証拠またはミラー",
        ),
    )
    _output(evidence, commands)


def _log(parser: argparse.ArgumentParser, commands: Commands) -> None:
    parser.add_argument(
        "bundle",
        metavar="LOG",
        help=commands.say(
            en="an exported bundle, a directory with a log's files (a mirror's), or its URL",
            ja="書き出された証拠ファイル、ログのディレクトリー(ミラー)、またはその URL",
        ),
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


def _answer(parser: argparse.ArgumentParser, commands: Commands) -> None:
    _log(parser, commands)
    parser.add_argument(
        "--proofs",
        metavar="DIR",
        help=commands.say(
            en="write each cited entry with its tlog-proof",
            ja="根拠となる項目と包含証明を書き出します",
        ),
    )


def _filters(parser: argparse.ArgumentParser, commands: Commands) -> None:
    parser.add_argument("--type", metavar="TYPE", help="vote.cast, run.approved, round.closed, ...")
    parser.add_argument(
        "--member",
        metavar="MEMBER",
        help=commands.say(en="only acts of this member", ja="このメンバーの行為だけ"),
    )
    _run(parser, commands)
    parser.add_argument(
        "--artifact",
        metavar="DIGEST",
        help=commands.say(
            en="entries that name this digest (or its first digits)",
            ja="このダイジェスト(または先頭部分)に触れる項目",
        ),
    )
    parser.add_argument(
        "--outcome",
        metavar="OUTCOME",
        help="aggregated, aborted, yes, no, veto, rejected, expired, refused, ...",
    )
    for option in ("--since", "--until"):
        parser.add_argument(
            option,
            metavar="TIME",
            help=commands.say(
                en="witnessed time: a date (UTC) or RFC 3339",
                ja="証人が裏付ける時刻: 日付(UTC)または RFC 3339",
            ),
        )


def _run(parser: argparse.ArgumentParser, commands: Commands) -> None:
    parser.add_argument(
        "--run",
        metavar="RUN",
        help=commands.say(
            en="a run's id or its first digits; may be left out where there is one run",
            ja="実行の識別子(先頭部分も可、実行が一つなら省略可)",
        ),
    )
    parser.add_argument("--round", metavar="N", type=int)


def _files(
    parser: argparse.ArgumentParser, commands: Commands, *options: tuple[str, str, str]
) -> None:
    for name, en, ja in options:
        parser.add_argument(name, metavar="FILE", help=commands.say(en=en, ja=ja))


def _output(parser: argparse.ArgumentParser, commands: Commands) -> None:
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=commands.say(en="default: standard output", ja="既定は標準出力"),
    )
