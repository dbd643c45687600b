"""What stands in R1, the report of a run's rounds, and in R2, an adapter's lineage.

Decides nothing beyond audit.lineage and audit.answers: every sentence says what entries say, and names
them. Pure.
"""

from collections.abc import Iterator
from decimal import Decimal

from audit.answers.budget import curves
from audit.answers.presence import presence
from audit.answers.reason import reason
from audit.history import History
from audit.legible import moment
from audit.lineage import Lineage
from audit.reports.document import Line, Say, Section, Statement
from fedproto.governance.charter import Charter
from fedproto.ids import MemberId, RunId


def micro(value: int) -> str:
    """Return millionths as a plain decimal number."""
    return f"{Decimal(value) / 10**6:f}"


def _name(charter: Charter, member: MemberId) -> str:
    """Return a member's name beside its id, as the charter has it."""
    found = charter.member(member)
    return f"{found.name} ({member})" if found else member


def round_report(history: History, run: RunId, number: int | None, say: Say) -> tuple[Section, ...]:
    """R1: who approved a run, who was present in its rounds, what they led to, what they spent."""
    # Refuses a run or a round that is not there.
    present = presence(history.state, run=run, number=number)
    return (
        _approval(history, run, say),
        _outcomes(history, run, number, say),
        Section(
            title=say(en="Members present", ja="参加状況"),
            header=(
                say(en="round", ja="ラウンド"),
                say(en="member", ja="メンバー"),
                say(en="standing", ja="状況"),
                say(en="receipt", ja="受領証"),
                say(en="audited the sum", ja="合計の監査"),
            ),
            lines=tuple(
                Line(
                    cells=(
                        f"{item.round}.{item.attempt}",
                        _name(history.state.charter, item.member),
                        standing_text(item.standing, say)
                        + (f" ({item.reason})" if item.reason else ""),
                        "✔" if item.receipt is not None else "—",
                        "✔" if item.audited is not None else "—",
                    ),
                    cites=item.cites,
                )
                for item in present
            ),
        ),
        _spent(history, run, say),
    )


_STANDINGS = {
    "in-sum": ("in the sum", "集約に含まれています"),
    "excluded": ("excluded", "除外されました"),
    "aborted": ("the attempt was aborted", "この試行は中止されました"),
    "open": ("the attempt is open", "この試行は進行中です"),
    "absent": ("not invited", "招集されていません"),
}


def standing_text(standing: str, say: Say) -> str:
    """Return a member's standing in a round, in words."""
    en, ja = _STANDINGS[standing]
    return say(en=en, ja=ja)


def _approval(history: History, run: RunId, say: Say) -> Section:
    mandate = history.state.runs[run].mandate
    found = reason(history, mandate.index)
    asked, plan = found.asked[0], mandate.body.plan
    votes = tuple(vote.index for vote in found.votes)
    charter = history.state.charter
    named = ", ".join(_name(charter, member) for member in mandate.body.members)
    return Section(
        title=say(en="Approval", ja="承認"),
        statements=(
            Statement(
                text=say(
                    en=f"Run {run} was approved under clause {asked.action} of charter version "
                    f"{found.charter_version}: {asked.yes} yes votes, {asked.needed} needed.",
                    ja=f"実行 {run} は、憲章第 {found.charter_version} 版の条項 {asked.action} により承認"
                    f"されました。賛成 {asked.yes}、必要数 {asked.needed}。",
                ),
                cites=(
                    found.charter_index,
                    *(i for i in (found.proposal,) if i is not None),
                    *votes,
                ),
            ),
            Statement(
                text=say(
                    en=f"The mandate binds {named}; purpose {plan.purpose}, {plan.training.rounds} "
                    f"rounds, at least {plan.min_members} members a round.",
                    ja=f"委任の対象は {named}、目的 {plan.purpose}、全 {plan.training.rounds} ラウンド、"
                    f"各ラウンド最低 {plan.min_members} メンバーです。",
                ),
                cites=(mandate.index,),
            ),
        ),
        header=(
            say(en="member", ja="メンバー"),
            say(en="vote", ja="投票"),
            say(en="cast", ja="申告時刻"),
        ),
        lines=tuple(
            Line(
                cells=(
                    _name(charter, vote.member),
                    vote.choice,
                    moment(history.event(vote.index).at),
                ),
                cites=(vote.index,),
            )
            for vote in found.votes
        ),
    )


def _outcomes(history: History, run: RunId, number: int | None, say: Say) -> Section:
    lines = []
    for attempt in history.state.rounds(run):
        started, closed = attempt.started, attempt.closed
        if number not in {None, started.body.round}:
            continue
        outcome = closed.body.outcome.value if closed else say(en="open", ja="進行中")
        reason_ = f" ({closed.body.reason})" if closed and closed.body.reason else ""
        lines.append(
            Line(
                cells=(
                    f"{started.body.round}.{started.body.attempt}",
                    outcome + reason_,
                    started.body.model_in,
                    closed.body.model_out if closed else "—",
                ),
                cites=(started.index, *((closed.index,) if closed else ())),
            )
        )
    return Section(
        title=say(en="Rounds", ja="ラウンド"),
        header=(
            say(en="round", ja="ラウンド"),
            say(en="outcome", ja="結果"),
            say(en="adapter before", ja="開始時のアダプター"),
            say(en="adapter after", ja="終了時のアダプター"),
        ),
        lines=tuple(lines),
    )


def _spent(history: History, run: RunId, say: Say) -> Section:
    lines = tuple(
        Line(
            cells=(
                f"{curve.dataset[:16]}… {curve.member}",
                str(point.round),
                micro(point.epsilon_micro),
                f"{micro(point.total_epsilon_micro)} / {micro(curve.limit_micro)}",
            ),
            cites=(point.index,),
        )
        for curve in curves(history.state)
        for point in curve.points
        if point.run == run
    )
    title = say(en="Privacy budget", ja="プライバシー予算")
    if not lines:
        none = say(
            en="No expense of ε is recorded for this run.",
            ja="この実行の ε の消費記録はありません。",
        )
        return Section(title=title, statements=(Statement(text=none),))
    return Section(
        title=title,
        header=(
            say(en="dataset", ja="データセット"),
            say(en="round", ja="ラウンド"),
            "ε",
            say(en="total / limit", ja="累計 / 上限"),
        ),
        lines=lines,
    )


def lineage_report(history: History, found: Lineage, say: Say) -> tuple[Section, ...]:
    """R2: what an adapter was made of, from its releases down to the declarations of its datasets."""
    return (
        Section(
            title=say(en="Adapter", ja="アダプター"),
            statements=tuple(_about_adapter(found, say)),
        ),
        _datasets(history, found, say),
        _steps(found, say),
        Section(
            title=say(en="Evaluations", ja="評価"),
            header=(
                say(en="member", ja="メンバー"),
                say(en="figures", ja="値"),
                say(en="suite", ja="評価スイート"),
            ),
            lines=tuple(
                Line(
                    cells=(
                        _name(history.state.charter, item.member),
                        ", ".join(
                            f"{name} {value}" for name, value in sorted(item.metrics.items())
                        ),
                        item.suite_sha256,
                    ),
                    cites=(item.index,),
                )
                for item in found.evaluations
            ),
        ),
    )


def _about_adapter(found: Lineage, say: Say) -> Iterator[Statement]:
    yield Statement(text=f"{found.artifact}", cites=(found.steps[-1].closed,))
    for source in found.withdrawn:
        assert source.withdrawn is not None  # noqa: S101  # these are the withdrawn ones
        yield Statement(
            text=say(
                en=f"It was fed by dataset {source.commitment[:16]}… of {source.member}, which was "
                "withdrawn later.",
                ja=f"後に撤回された {source.member} のデータセット {source.commitment[:16]}… が使われて"
                "います。",
            ),
            cites=(source.withdrawn,),
            alarm=True,
        )
    for index in found.remedies:
        yield Statement(
            text=say(en="A remedy is recorded.", ja="対処が記録されています。"), cites=(index,)
        )
    for release in found.releases:
        channels = ", ".join(release.channels)
        yield Statement(
            text=say(en=f"Released to: {channels}.", ja=f"公開先: {channels}。"),
            cites=(release.index,),
        )
        if release.revoked is not None:
            revoked = say(en="The release was revoked.", ja="公開は失効しました。")
            yield Statement(text=revoked, cites=(release.revoked,), alarm=True)
    if not found.releases:
        yield Statement(text=say(en="It is not released.", ja="公開されていません。"))
    base = found.base
    yield Statement(
        text=say(
            en=f"Base model {base.name}, {base.parameters} parameters, {base.licence}, manifest "
            f"{base.manifest_sha256}.",
            ja=f"基盤モデル {base.name}(パラメーター数 {base.parameters}、{base.licence})、マニフェスト "
            f"{base.manifest_sha256}。",
        ),
        cites=(base.approved,),
    )
    for mandate in found.mandates:
        yield Statement(
            text=say(
                en=f"Run {mandate.run} was approved by {len(mandate.votes)} votes.",
                ja=f"実行 {mandate.run} は {len(mandate.votes)} 票で承認されました。",
            ),
            cites=(mandate.index, mandate.proposal, *mandate.votes),
        )


def _datasets(history: History, found: Lineage, say: Say) -> Section:
    return Section(
        title=say(en="Datasets, by commitment", ja="データセット(コミットメント)"),
        header=(
            say(en="member", ja="メンバー"),
            say(en="commitment", ja="コミットメント"),
            say(en="legal basis, purpose, place", ja="法的根拠・目的・所在"),
            "ε",
            say(en="in use", ja="利用"),
        ),
        lines=tuple(
            Line(
                cells=(
                    _name(history.state.charter, source.member),
                    source.commitment,
                    f"{source.legal_basis}, {source.purpose}, {source.residency}, {source.licence}",
                    micro(source.epsilon_micro),
                    say(en="withdrawn", ja="撤回")
                    if source.withdrawn is not None
                    else say(en="yes", ja="利用中"),
                ),
                cites=(source.declared, *source.receipts),
            )
            for source in found.sources
        ),
    )


def _steps(found: Lineage, say: Say) -> Section:
    silent = tuple(
        Statement(
            text=say(
                en=f"{member} is in the sum of round {step.round} and has signed no receipt.",
                ja=f"{member} はラウンド {step.round} の集約に含まれますが、受領証がありません。",
            ),
            cites=(step.closed,),
            alarm=True,
        )
        for step in found.steps
        for member in step.silent
    )
    return Section(
        title=say(en="Rounds that led to it", ja="経たラウンド"),
        statements=silent,
        header=(
            say(en="round", ja="ラウンド"),
            say(en="adapter before", ja="開始時のアダプター"),
            say(en="adapter after", ja="終了時のアダプター"),
            say(en="members", ja="メンバー"),
        ),
        lines=tuple(
            Line(
                cells=(
                    f"{step.round}.{step.attempt}",
                    step.model_in,
                    step.model_out,
                    ", ".join(step.included),
                ),
                cites=(step.started, step.closed, *step.receipts),
            )
            for step in found.steps
        ),
    )
