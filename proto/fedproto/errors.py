"""The one family of errors that crosses a trust boundary: named, explained, with a way to mend.

Decides: which code an error carries and which exit status it maps to. Trusts nothing; never holds a
secret: `what`, `why` and `mend` are shown to people and sent over the wire.
"""

from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses of the `renmei` command; documented in README and tested one by one."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONNECT = 3
    REFUSED = 4
    VERIFY = 5
    POLICY = 6
    TIMEOUT = 7
    CONFLICT = 8
    BUG = 70


@dataclass(frozen=True, slots=True)
class Code:
    """One catalogue line: the exit status and the title in both languages."""

    exit: Exit
    en: str
    ja: str


# Order: by area, then number. A code is never reused for another meaning.
CODES: dict[str, Code] = {
    # transport and identity
    "RNM-TLS-0001": Code(Exit.CONNECT, "the other side cannot be reached", "相手に接続できません"),
    "RNM-TLS-0002": Code(
        Exit.CONNECT, "the certificate is not accepted", "証明書が受け入れられません"
    ),
    "RNM-TLS-0003": Code(
        Exit.CONNECT, "the certificate has expired", "証明書の有効期限が切れています"
    ),
    "RNM-NET-0001": Code(Exit.CONFLICT, "the port is in use", "ポートは使用中です"),
    "RNM-NET-0002": Code(
        Exit.CONFLICT, "too many calls are open at once", "同時に開いている呼び出しが多すぎます"
    ),
    "RNM-AUTH-0001": Code(
        Exit.REFUSED, "the role does not allow this", "この役割では許可されていません"
    ),
    "RNM-KEY-0001": Code(Exit.FAILED, "the key file is missing", "鍵ファイルがありません"),
    "RNM-KEY-0002": Code(
        Exit.FAILED, "the key file is open to others", "鍵ファイルの権限が広すぎます"
    ),
    "RNM-KEY-0003": Code(Exit.FAILED, "the key file is damaged", "鍵ファイルが壊れています"),
    # bytes that do not say what they should
    "RNM-FORM-0001": Code(
        Exit.VERIFY, "the bytes are not in canonical form", "正規形ではありません"
    ),
    "RNM-FORM-0002": Code(
        Exit.VERIFY, "the statement does not fit its schema", "文書が形式に合いません"
    ),
    "RNM-SIG-0001": Code(Exit.VERIFY, "the signature does not verify", "署名を検証できません"),
    "RNM-SIG-0002": Code(Exit.VERIFY, "the signer is not known", "署名者が登録されていません"),
    # governance
    "RNM-GOV-0001": Code(
        Exit.POLICY, "the charter does not allow this", "憲章により許可されていません"
    ),
    "RNM-GOV-0002": Code(Exit.POLICY, "the quorum is not reached", "定足数に達していません"),
    "RNM-GOV-0003": Code(Exit.CONFLICT, "this act was made before", "すでに行われた行為です"),
    "RNM-GOV-0004": Code(Exit.POLICY, "work is stopped", "作業は停止されています"),
    "RNM-GOV-0005": Code(
        Exit.POLICY, "the privacy budget is spent", "プライバシー予算を使い切りました"
    ),
    "RNM-CONSENT-0001": Code(
        Exit.POLICY, "no mandate covers this", "この実行を認める委任がありません"
    ),
    "RNM-CONSENT-0002": Code(Exit.POLICY, "the mandate has expired", "委任の期限が切れています"),
    "RNM-CONSENT-0003": Code(
        Exit.POLICY, "the round was seen before", "このラウンドは処理済みです"
    ),
    "RNM-CONSENT-0004": Code(
        Exit.POLICY, "the site's own policy refuses", "拠点の方針により拒否されました"
    ),
    "RNM-CONSENT-0005": Code(
        Exit.VERIFY, "the authorisation is not genuine", "ラウンド承認が真正ではありません"
    ),
    "RNM-CONSENT-0006": Code(
        Exit.VERIFY, "the model or layout is another one", "モデルまたは構成が一致しません"
    ),
    "RNM-CONSENT-0007": Code(
        Exit.POLICY,
        "the sum of the round before was not audited",
        "前のラウンドの合計が監査されていません",
    ),
    # ledger
    "RNM-LEDGER-0001": Code(Exit.VERIFY, "the ledger does not verify", "台帳を検証できません"),
    "RNM-LEDGER-0002": Code(Exit.FAILED, "the ledger cannot be written", "台帳に書き込めません"),
    "RNM-LEDGER-0003": Code(Exit.VERIFY, "the entry was changed", "台帳項目が改変されています"),
    "RNM-LEDGER-0004": Code(
        Exit.VERIFY, "the ledger shows two histories", "台帳が二つの履歴を示しています"
    ),
    "RNM-LEDGER-0005": Code(
        Exit.CONFLICT, "another process writes this ledger", "別のプロセスが台帳を使用中です"
    ),
    "RNM-LEDGER-0006": Code(
        Exit.POLICY, "too few witnesses have cosigned", "証人の連署が足りません"
    ),
    "RNM-LEDGER-0007": Code(Exit.FAILED, "the entry is too large", "台帳項目が大きすぎます"),
    "RNM-LEDGER-0008": Code(
        Exit.TIMEOUT, "the ledger waits for its witnesses", "台帳は証人の確認を待っています"
    ),
    "RNM-LEDGER-0009": Code(
        Exit.VERIFY,
        "the ledger is older than its witnesses know",
        "台帳が証人の記録より古くなっています",
    ),
    # rounds and secure aggregation
    "RNM-ROUND-0001": Code(Exit.FAILED, "the round was aborted", "ラウンドは中止されました"),
    "RNM-ROUND-0002": Code(Exit.TIMEOUT, "the phase ran out of time", "段階が時間切れです"),
    "RNM-ROUND-0003": Code(Exit.CONFLICT, "the run is already under way", "実行はすでに進行中です"),
    "RNM-SECAGG-0001": Code(
        Exit.VERIFY,
        "a secure aggregation message is not genuine",
        "秘匿集約の電文が真正ではありません",
    ),
    "RNM-SECAGG-0002": Code(Exit.POLICY, "too few members are left", "残りのメンバーが足りません"),
    "RNM-SECAGG-0003": Code(
        Exit.VERIFY,
        "the coordinator asked for what it must not have",
        "調整サーバーの要求は規約違反です",
    ),
    "RNM-SECAGG-0004": Code(Exit.VERIFY, "a value is out of range", "値が範囲外です"),
    "RNM-SECAGG-0005": Code(Exit.TIMEOUT, "the phase is closed", "この段階は終了しています"),
    "RNM-SECAGG-0006": Code(
        Exit.VERIFY,
        "what a member dealt cannot be used",
        "メンバーが配布したシェアは使用できません",
    ),
    "RNM-SECAGG-0007": Code(
        Exit.VERIFY,
        "the published sum is not that of the uploads",
        "公開された合計がアップロードの合計と一致しません",
    ),
    # what leaves a silo, and what a node remembers
    "RNM-EGRESS-0001": Code(
        Exit.POLICY, "this must not leave the premises", "この電文は拠点外に送信できません"
    ),
    "RNM-EGRESS-0002": Code(
        Exit.VERIFY, "the egress journal does not verify", "送信記録を検証できません"
    ),
    "RNM-STATE-0001": Code(
        Exit.VERIFY, "the node's own record is damaged", "ノードの記録が壊れています"
    ),
    # data and models
    "RNM-DATA-0001": Code(Exit.FAILED, "the corpus is missing", "コーパスがありません"),
    "RNM-DATA-0002": Code(Exit.FAILED, "the corpus cannot be read", "コーパスを読み取れません"),
    "RNM-DATA-0003": Code(Exit.FAILED, "the corpus is empty", "コーパスが空です"),
    "RNM-DATA-0004": Code(
        Exit.FAILED, "a series of readings is malformed", "時系列データの形式が正しくありません"
    ),
    "RNM-DATA-0005": Code(
        Exit.CONFLICT, "the position is of other data", "データの位置情報が別のデータのものです"
    ),
    "RNM-MODEL-0001": Code(
        Exit.VERIFY, "the base model has another digest", "基盤モデルのダイジェストが違います"
    ),
    "RNM-MODEL-0002": Code(
        Exit.VERIFY, "the adapter has another layout", "アダプターの構成が違います"
    ),
    "RNM-MODEL-0003": Code(Exit.FAILED, "the model is missing", "モデルがありません"),
    # the command
    "RNM-CONF-0001": Code(
        Exit.USAGE,
        "the command or its configuration is wrong",
        "コマンドまたは設定に誤りがあります",
    ),
    "RNM-CONF-0002": Code(
        Exit.FAILED, "a part of Renmei is not installed", "必要な部品が導入されていません"
    ),
    "RNM-DISK-0001": Code(Exit.FAILED, "the disk is full", "ディスクの空きがありません"),
    "RNM-PROC-0001": Code(Exit.FAILED, "a process did not start", "プロセスを起動できません"),
    "RNM-PROC-0002": Code(Exit.FAILED, "a process ended early", "プロセスが途中で終了しました"),
    "RNM-PROC-0003": Code(
        Exit.CONFLICT, "another process uses this directory", "別のプロセスが使用中です"
    ),
    "RNM-BUG-0001": Code(Exit.BUG, "this is a bug in Renmei", "Renmei の不具合です"),
}


class FederationError(Exception):
    """An error with a code, what happened, why, and how to mend it."""

    def __init__(self, code: str, *, what: str, why: str, mend: str) -> None:
        if code not in CODES:
            raise KeyError(f"{code} is not in the catalogue")
        super().__init__(f"{code}: {what}: {why}")
        self.code = code
        self.what = what
        self.why = why
        self.mend = mend

    @property
    def exit(self) -> Exit:
        """The exit status that a command ends with."""
        return CODES[self.code].exit


class LocalFault(FederationError):
    """We are wrong: our input, our disk, our configuration."""


class PeerFault(FederationError):
    """They are wrong: `peer` sent what the protocol forbids. Goes to the ledger."""

    def __init__(self, code: str, *, peer: str, what: str, why: str, mend: str) -> None:
        super().__init__(code, what=what, why=why, mend=mend)
        self.peer = peer
