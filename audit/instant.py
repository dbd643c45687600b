"""Times as text: RFC 3339, UTC, to the second. Pure."""

from datetime import UTC, datetime


def moment(milliseconds: int) -> str:
    """Return RFC 3339 UTC; a signer's time may be any number."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return f"{milliseconds} ms"


def instant(seconds: int | None) -> str | None:
    """Return a witnessed time, or nothing where no anchor bounds it."""
    return None if seconds is None else moment(seconds * 1000)
