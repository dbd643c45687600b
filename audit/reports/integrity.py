"""R10, the integrity report: what was verified, who vouches for it, and what is not proven.

Decides nothing beyond audit.answers.integrity. Pure.
"""

from collections.abc import Iterator

from audit.answers.integrity import Integrity
from audit.history import History
from audit.legible import moment
from audit.policy import Cosignature
from audit.reports.document import Line, Say, Section, Statement


def integrity_report(
    history: History,
    found: Integrity,
    *,
    cosigned: tuple[Cosignature, ...],
    validated: tuple[Cosignature, ...],
    witnessed: int,
    unpinned: tuple[str, ...],
    say: Say,
) -> tuple[Section, ...]:
    """Return the sections of a log that was replayed whole without a violation."""
    return (
        Section(
            title=say(en="Findings", ja="検証結果"),
            statements=tuple(_findings(history, found, witnessed, say)),
        ),
        Section(
            title=say(en="What is not proven", ja="証明されないこと"),
            statements=tuple(_limits(unpinned, say)),
        ),
        _witnesses(cosigned, validated, say),
        _vouched(found, say),
        _clock(history, found, say),
    )


def _findings(history: History, found: Integrity, witnessed: int, say: Say) -> Iterator[Statement]:
    yield Statement(
        text=say(
            en=f"All {found.size} entries hash to the signed root, and each follows from those before "
            "it under the charter in force.",
            ja=f"{found.size} 項目すべてが署名されたルートと一致し、各項目はその時点の憲章の規則に適合します。",
        )
    )
    yield Statement(
        text=say(
            en=f"{found.signatures} signatures verify with keys that were in force at their entry; "
            f"{found.heads} acts name a checkpoint that their signer had seen, all of this history.",
            ja=f"{found.signatures} 個の署名が、その時点で有効な鍵と一致します。{found.heads} 件の行為が示す"
            "チェックポイントは、すべてこの履歴のものです。",
        )
    )
    if witnessed < found.size:
        waiting = found.size - witnessed
        yield Statement(
            text=say(
                en=f"The last {waiting} entries wait for their witnesses' quorum.",
                ja=f"末尾の {waiting} 項目は、証人の連署を待っています。",
            ),
            alarm=True,
        )
    yield Statement(
        text=say(
            en=f"State of governance: {found.state_sha256}.",
            ja=f"統治状態のダイジェスト: {found.state_sha256}。",
        )
    )
    if found.snapshots:
        text = say(
            en="Digests of the state that stand in the log agree with this replay.",
            ja="ログ内の状態ダイジェストは、この再適用の結果と一致します。",
        )
        yield Statement(text=text, cites=found.snapshots)
    for index in found.keys_changed:
        body = history.event(index)
        text = say(
            en=f"A key of {body.actor.member} changed.",
            ja=f"{body.actor.member} の鍵が変更されました。",
        )
        yield Statement(text=text, cites=(index,))
    for kept in found.kept:
        yield Statement(
            text=say(
                en=f"The kept checkpoint of size {kept.size} ({kept.root[:16]}…): {kept.verdict}.",
                ja=f"保管されていたチェックポイント(項目数 {kept.size}、{kept.root[:16]}…): {kept.verdict}。",
            ),
            alarm=kept.verdict == "contradicts",
        )


def _limits(unpinned: tuple[str, ...], say: Say) -> Iterator[Statement]:
    if unpinned:
        yield Statement(
            text=say(
                en=f"Not pinned: {', '.join(unpinned)}. Whose history this is, is not proven.",
                ja=f"固定されていない値: {', '.join(unpinned)}。誰の履歴であるかは証明されていません。",
            ),
            alarm=True,
        )
    yield Statement(
        text=say(
            en="That a witness is honest: the quorum holds unless more of them than the charter "
            "tolerates sign against the rules.",
            ja="証人の誠実さ: 憲章の想定を超える数の証人が規則に反して署名しない限り成り立ちます。",
        )
    )
    yield Statement(
        text=say(
            en="When an act was signed: its time is its signer's claim; only the bracket between two "
            "witnessed checkpoints is proven.",
            ja="行為の時刻: 申告であり、証明されるのは二つの連署済みチェックポイントの間という範囲だけです。",
        )
    )


def _witnesses(
    cosigned: tuple[Cosignature, ...], validated: tuple[Cosignature, ...], say: Say
) -> Section:
    kinds = (
        (say(en="extends the log", ja="追記のみを確認"), cosigned),
        (say(en="replayed under the charter", ja="憲章に基づき再適用"), validated),
    )
    return Section(
        title=say(en="Who cosigned the checkpoint", ja="チェックポイントの連署"),
        header=(
            say(en="member", ja="メンバー"),
            say(en="says", ja="内容"),
            say(en="at", ja="時刻"),
        ),
        lines=tuple(
            Line(cells=(item.member, says, moment(item.timestamp * 1000)))
            for says, items in kinds
            for item in items
        ),
    )


def _vouched(found: Integrity, say: Say) -> Section:
    return Section(
        title=say(en="Up to where each member vouches", ja="各メンバーが確認した範囲"),
        header=(
            say(en="member", ja="メンバー"),
            say(en="had verified up to", ja="確認済みの項目数"),
            say(en="acts", ja="行為"),
        ),
        lines=tuple(
            Line(cells=(item.member, str(item.size), str(item.acts)), cites=(item.index,))
            for item in found.vouched
        ),
    )


def _clock(history: History, found: Integrity, say: Say) -> Section:
    return Section(
        title=say(en="The log's own clock", ja="ログの時計"),
        header=(
            say(en="entries before", ja="対象の項目数"),
            say(en="witnessed at", ja="連署の時刻"),
        ),
        lines=tuple(
            Line(
                cells=(str(anchor.size), moment(anchor.time_s * 1000)),
                cites=(anchor.index,),
            )
            for anchor in history.state.anchors
            if anchor.index in found.anchors
        ),
    )
