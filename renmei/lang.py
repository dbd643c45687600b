"""Which language a person reads: `--lang`, else the locale, else English. Pure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedproto.command import Lang


def choose(option: str | None, environ: Mapping[str, str]) -> "Lang":
    """Return the language; an option that is given wins over LC_ALL, LC_MESSAGES and LANG."""
    if option is not None:
        return "ja" if option == "ja" else "en"
    # POSIX order: the first variable that is set and not empty decides.
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        locale = environ.get(name, "")
        if locale:
            return "ja" if locale.split(".")[0].split("_")[0] == "ja" else "en"
    return "en"
