"""What a field of an act may hold: digests, ids, short codes and buckets; never free text.

Decides the alphabet of an append-only ledger, on which a name or a sentence could never be taken back.
Pure.
"""

from fedproto.ids import is_digest, is_member_id, is_run_id

MAX_CODE = 128
MAX_BUCKET = 63


def require_digests(*digests: str) -> None:
    """Refuse what is no SHA-256 digest in lower-case hex (ValueError)."""
    if not all(is_digest(digest) for digest in digests):
        raise ValueError("a digest is not 64 hex digits")


def require_codes(*texts: str) -> None:
    """Refuse what is no short code in printable ASCII without spaces around it (ValueError)."""
    for text in texts:
        if not (text.isascii() and text.isprintable() and len(text) <= MAX_CODE):
            raise ValueError("a text is not a short code in printable ASCII")
        if text != text.strip():
            raise ValueError("a code starts or ends with a space")


def require_members(*members: str) -> None:
    """Refuse what is no member id (ValueError)."""
    if not all(is_member_id(member) for member in members):
        raise ValueError("a member id is not well formed")


def require_sorted(values: tuple[str, ...], what: str) -> None:
    """Refuse a list in another order, or with a value twice: one meaning has one spelling."""
    if list(values) != sorted(set(values)):
        raise ValueError(f"{what} are sorted and stand once")


def require_attempt(run: str, number: int, attempt: int) -> None:
    """Refuse what names no attempt at a round (ValueError)."""
    if not is_run_id(run) or number < 1 or attempt < 1:
        raise ValueError("an attempt has a run, a round and a number, counted from 1")


def require_bucket(bucket: int) -> None:
    """Refuse what is no power of two from 0 to 63: a bucket says a size without telling it."""
    if not 0 <= bucket <= MAX_BUCKET:
        raise ValueError("a size bucket is a power of two, 0 to 63")


def require_decision(proposal: str, votes: tuple[str, ...]) -> None:
    """Refuse a decision that cites no proposal, or its votes in disorder (ValueError)."""
    require_digests(proposal, *votes)
    require_sorted(votes, "the votes that a decision cites")
