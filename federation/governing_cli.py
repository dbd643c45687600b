"""`renmei govern`: how the members of a consortium propose, vote, stop and change keys. Strings only."""

import argparse

from fedproto.command import Commands, Noun, SubParsers

# The actions that are put to the vote, as `fedproto.governance.charter.Action` spells them.
ACTIONS = (
    "run.approve",
    "base_model.approve",
    "charter.amend",
    "member.status",
    "key.revoke",
    "release.approve",
    "release.revoke",
    "emergency.resume",
)
_HERE = "federation.governing"
_SEAT = "federation.governing_seat"


def register(commands: Commands) -> None:
    """Declare `govern`."""
    noun = commands.noun(
        "govern",
        en="propose, vote, stop, and keep this party's seat and keys",
        ja="提案、投票、停止、議席と鍵の管理",
    )
    _proposals(noun, commands)
    _drafts(noun, commands)
    _emergencies(noun, commands)
    _seats(noun, commands)
    _keys(noun, commands)


def _verb(
    noun: Noun, commands: Commands, name: str, handler: str, *, en: str, ja: str
) -> argparse.ArgumentParser:
    parser = noun.verb(name, handler=handler, en=en, ja=ja)
    _directory(parser, commands)
    return parser


def _directory(parser: argparse.ArgumentParser, commands: Commands) -> None:
    parser.add_argument(
        "--dir",
        required=True,
        metavar="DIR",
        help=commands.say(en="the party's directory", ja="自分のディレクトリ"),
    )


def _proposals(noun: Noun, commands: Commands) -> None:
    _verb(
        noun,
        commands,
        "list",
        f"{_HERE}:list_",
        en="list every proposal, where it stands and what it waits for",
        ja="すべての提案の状況と、残りの条件を一覧表示します",
    )
    show = _verb(
        noun,
        commands,
        "show",
        f"{_HERE}:show_",
        en="show a proposal whole, and how it would change the charter",
        ja="提案の全文と、憲章との差分を表示します",
    )
    vote = _verb(noun, commands, "vote", f"{_HERE}:vote_", en="cast a ballot", ja="投票します")
    carry = _verb(
        noun,
        commands,
        "carry-out",
        f"{_HERE}:carry_out_",
        en="write down what a carried proposal leads to, where the operator does not",
        ja="可決された提案を、運営者に代わって執行します",
    )
    for parser in (show, vote, carry):
        parser.add_argument(
            "proposal",
            metavar="PROPOSAL",
            help=commands.say(en="its leaf, or the first digits", ja="提案の番号(先頭のみも可)"),
        )
    vote.add_argument("choice", choices=("yes", "no", "abstain", "veto"))
    vote.add_argument(
        "--reason",
        metavar="FILE",
        help=commands.say(
            en="a text that stays here; the ledger gets a salted commitment (a veto needs one)",
            ja="理由のテキスト。手元に残り、台帳にはソルト付きの値だけが載ります(拒否権では必須)",
        ),
    )
    propose = _verb(
        noun,
        commands,
        "propose",
        f"{_HERE}:propose_",
        en="put terms to the vote",
        ja="内容を投票にかけます",
    )
    approve = _verb(
        noun,
        commands,
        "approve-base",
        f"{_SEAT}:approve_base_",
        en="approve base weights, where the charter leaves it to this party",
        ja="基盤モデルを承認します(憲章が投票なしで委ねる場合)",
    )
    attest = _verb(
        noun,
        commands,
        "attest",
        f"{_SEAT}:attest_",
        en="put this party's figures for a base model or an adapter on record",
        ja="基盤モデルまたはアダプターの評価値を台帳に記録します",
    )
    attest.add_argument(
        "--report",
        required=True,
        metavar="FILE",
        help=commands.say(
            en="what `renmei model evaluate --out` wrote", ja="`renmei model evaluate --out` の出力"
        ),
    )
    propose.add_argument("action", choices=ACTIONS)
    for parser in (propose, approve):
        parser.add_argument(
            "--terms",
            required=True,
            metavar="FILE",
            help=commands.say(en="JSON of the terms; - is stdin", ja="内容のJSON。- は標準入力"),
        )
    propose.add_argument(
        "--closes-in",
        type=int,
        metavar="SECONDS",
        help=commands.say(
            en="how long to vote (default: a day, or the clause's term)",
            ja="投票の受付秒数(既定は1日、または条項の期限)",
        ),
    )
    propose.add_argument(
        "--dry-run",
        action="store_true",
        help=commands.say(
            en="say what it needs and its digest; send nothing",
            ja="必要な票とダイジェストを表示するだけで、送信しません",
        ),
    )


def _drafts(noun: Noun, commands: Commands) -> None:
    draft = noun.verb(
        "draft",
        handler=f"{_SEAT}:draft_charter_",
        en="write what is to be proposed, to edit",
        ja="提案の下書きを書き出します",
    )
    kinds: SubParsers = draft.add_subparsers(dest="kind", metavar="KIND", required=True)
    charter = _draft(
        kinds,
        "charter",
        f"{_SEAT}:draft_charter_",
        commands.say(en="the charter in force as the next version", ja="現行の憲章の次の版"),
    )
    _directory(charter, commands)
    charter.add_argument(
        "--member",
        action="append",
        default=[],
        metavar="FILE",
        help=commands.say(
            en="an entry of `draft member` to add or to put in its place",
            ja="`draft member` の項目(追加または置き換え)",
        ),
    )
    charter.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="NAME",
        help=commands.say(en="a member to take out", ja="名簿から外すメンバー"),
    )
    member = _draft(
        kinds,
        "member",
        f"{_SEAT}:draft_member_",
        commands.say(en="a newcomer's entry, from its public keys", ja="新しいメンバーの項目"),
    )
    member.add_argument("name", metavar="NAME")
    member.add_argument(
        "--key",
        required=True,
        metavar="FILE",
        help=commands.say(en="what `govern keys` printed there", ja="先方の `govern keys` の出力"),
    )
    member.add_argument("--roles", default="trainer,witness", metavar="ROLE,ROLE")
    member.add_argument("--title", metavar="TEXT", help=commands.say(en="full name", ja="正式名"))
    keys = _verb(
        noun,
        commands,
        "keys",
        f"{_SEAT}:keys_",
        en="show this party's public keys, to hand to whoever drafts the charter",
        ja="自分の公開鍵を表示します(憲章の起草者に渡します)",
    )
    _recovery(keys, commands)
    for parser in (charter, member, keys):
        parser.add_argument(
            "-o",
            "--output",
            metavar="FILE",
            help=commands.say(en="write it to a file", ja="ファイルに書き出します"),
        )


def _draft(kinds: SubParsers, name: str, handler: str, text: str) -> argparse.ArgumentParser:
    parser = kinds.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(handler=handler, command=f"govern draft {name}")
    return parser


def _emergencies(noun: Noun, commands: Commands) -> None:
    stop = _verb(
        noun,
        commands,
        "stop",
        f"{_SEAT}:stop_",
        en="stop work at once; only a vote resumes it",
        ja="作業を直ちに停止します。再開には投票が必要です",
    )
    stop.add_argument(
        "--run",
        metavar="RUN",
        help=commands.say(
            en="this run alone; without it, everything", ja="この実行のみ。省略時は全体"
        ),
    )
    _reason(stop, commands)
    incident = _verb(
        noun,
        commands,
        "report-incident",
        f"{_SEAT}:report_incident_",
        en="put an incident on record; the report stays here, behind a commitment",
        ja="インシデントを記録します。報告書は手元に残ります",
    )
    incident.add_argument("--category", required=True, metavar="CODE")
    incident.add_argument("--severity", required=True, type=int, choices=(1, 2, 3, 4))
    incident.add_argument("--report", required=True, metavar="FILE")
    shown = _verb(
        noun,
        commands,
        "open",
        "federation.erasing:open_",
        en="show what opens a commitment of this party; nothing is sent",
        ja="自分のコミットメントを開く値を表示します(送信しません)",
    )
    erased = _verb(
        noun,
        commands,
        "erase",
        "federation.erasing:erase_",
        en="erase what opens a commitment, for good, and say so in the ledger",
        ja="コミットメントのソルトと内容を完全に消去し、台帳に記録します",
    )
    for parser in (shown, erased):
        parser.add_argument(
            "commitment",
            metavar="COMMITMENT",
            help=commands.say(en="or its first digits", ja="先頭の数桁でも可"),
        )
    erased.add_argument(
        "--authority",
        required=True,
        choices=("retention", "data-subject", "court", "contract"),
        help=commands.say(en="why it is erased", ja="消去の根拠"),
    )
    _yes(erased, "DIGITS", commands)
    dataset = _verb(
        noun,
        commands,
        "withdraw-dataset",
        f"{_SEAT}:withdraw_dataset_",
        en="take a dataset of this party out of use, for good",
        ja="自分のデータセットを恒久的に使用停止します",
    )
    dataset.add_argument(
        "dataset",
        metavar="COMMITMENT",
        help=commands.say(en="or its first digits", ja="先頭の数桁でも可"),
    )
    dataset.add_argument("--remedy", choices=("none-made", "to-be-voted"), default="to-be-voted")
    _reason(dataset, commands)
    _yes(dataset, "DIGITS", commands)


def _seats(noun: Noun, commands: Commands) -> None:
    seat = _verb(
        noun,
        commands,
        "seat",
        f"{_SEAT}:seat_",
        en="take the seat that the charter names: a newcomer, or after a revoked key",
        ja="憲章が指名した議席に着きます(新規、または鍵の失効後)",
    )
    _recovery(seat, commands)
    withdraw = _verb(
        noun,
        commands,
        "withdraw",
        f"{_SEAT}:withdraw_",
        en="leave the consortium: this party's acts and votes no longer count",
        ja="連盟を脱退します",
    )
    _yes(withdraw, "NAME", commands)


def _keys(noun: Noun, commands: Commands) -> None:
    rotate = _verb(
        noun,
        commands,
        "rotate-key",
        f"{_SEAT}:rotate_key_",
        en="replace a key; run it again after an interruption and it finishes",
        ja="鍵を更新します。中断しても、再実行すれば完了します",
    )
    rotate.add_argument(
        "--recovery",
        action="store_true",
        help=commands.say(en="the recovery key instead", ja="署名鍵でなく復旧鍵を更新"),
    )
    revoke = _verb(
        noun,
        commands,
        "revoke-key",
        f"{_SEAT}:revoke_key_",
        en="end a lost or stolen acting key by the recovery key",
        ja="紛失・盗難にあった署名鍵を、復旧鍵で失効させます",
    )
    _reason(revoke, commands)
    _yes(revoke, "NAME", commands)
    for parser in (rotate, revoke):
        _recovery(parser, commands)


def _recovery(parser: argparse.ArgumentParser, commands: Commands) -> None:
    parser.add_argument(
        "--recovery-key",
        metavar="FILE",
        help=commands.say(
            en="where the recovery key is (default: keys/recovery.key)",
            ja="復旧鍵の場所(既定は keys/recovery.key)",
        ),
    )


def _reason(parser: argparse.ArgumentParser, commands: Commands) -> None:
    parser.add_argument(
        "--reason",
        required=True,
        metavar="CODE",
        help=commands.say(
            en="a short code for the ledger, never a name or a sentence",
            ja="台帳に載る短い符号(氏名や文章は不可)",
        ),
    )


def _yes(parser: argparse.ArgumentParser, metavar: str, commands: Commands) -> None:
    parser.add_argument(
        "--yes",
        metavar=metavar,
        help=commands.say(
            en="typed beforehand what the command would ask for",
            ja="確認で入力する文字列を、あらかじめ指定します",
        ),
    )
