"""How times, and texts that others wrote, are shown to people.

Decides that times are RFC 3339 in UTC, and that no text moves a cursor or turns the direction of
writing: a member's name in a charter may hold any character. Pure.
"""

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


def visible(text: str) -> str:
    """Return a text in which every character that cannot be seen is spelt out."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\u3000" else f"\\u{ord(char):04x}" for char in text
    )
