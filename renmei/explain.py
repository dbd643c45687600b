"""`renmei explain CODE`: what an error means, from a catalogue that is shipped in the wheel.

The catalogue is data (`explanations.toml`), both languages side by side; a test asks that every code
has one. Reads no other file and no network.
"""

import argparse
import difflib
import tomllib
from functools import cache
from importlib import resources

from fedproto.command import Console, Reply
from fedproto.errors import CODES
from renmei.fault import usage

_FIELDS = {"en": ("cause_en", "mend_en"), "ja": ("cause_ja", "mend_ja")}


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """Return the explanations by code."""
    text = resources.files("renmei").joinpath("explanations.toml").read_text("utf-8")
    return tomllib.loads(text)


def explain(args: argparse.Namespace, console: Console) -> Reply:
    """Return the paragraphs of one code, or the list of all."""
    if args.code is None:
        return _list(console)
    code = args.code.upper()
    if code not in CODES:
        near = difflib.get_close_matches(code, CODES, n=1)
        raise usage(
            f"there is no error code {args.code}",
            f"did you mean: renmei explain {near[0]}" if near else "run: renmei explain",
        )
    line, entry = CODES[code], catalogue()[code]
    cause, mend = (entry[name].strip() for name in _FIELDS[console.lang])
    title = console.say(en=line.en, ja=line.ja)
    status = console.say(en="exit status", ja="終了コード")
    todo = console.say(en="How to mend it", ja="対処")
    text = f"{code}  {title}\n{status} {int(line.exit)}\n\n{cause}\n\n{todo}\n{mend}"
    data = {"code": code, "exit": int(line.exit), "en": line.en, "ja": line.ja, **entry}
    return Reply(data=data, text=text)


def _list(console: Console) -> Reply:
    rows = [
        f"{code:<17} {int(line.exit):>3}  {console.say(en=line.en, ja=line.ja)}"
        for code, line in CODES.items()
    ]
    data = [
        {"code": code, "exit": int(line.exit), "en": line.en, "ja": line.ja}
        for code, line in CODES.items()
    ]
    return Reply(data=data, text="\n".join(rows), next=("renmei explain CODE",))
