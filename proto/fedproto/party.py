"""A party's directory: who it is, its keys (made here, never copied), and what it pinned.

A shell module, the same for coordinator, members, administrators and auditors. `party.json` holds
nothing secret; keys are files of their owner alone. Pins come from an out-of-band comparison at
enrolment and are what everything read from the network is verified against.
"""

import datetime
import os
from dataclasses import dataclass, field
from pathlib import Path

from fedproto import jcs
from fedproto.durable import make_private_directory, read_private, write_atomic
from fedproto.errors import LocalFault
from fedproto.identity import SigningKey
from fedproto.ids import Digest, MemberId, sha256_hex
from fedproto.schema import from_json, to_json
from fedproto.statements import Actor, Body, Event, Head, Trace

RECOVERY_KEY = "recovery.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The content of `party.json`; addresses are host:port, empty where there is none."""

    id: MemberId
    consortium: str
    origin: str
    coordinator: str
    gateway: str
    log_vkey: str
    genesis_sha256: str


def witness_name(consortium: str, member: MemberId) -> str:
    """Return the C2SP key name of a member's append-only witness, as the charter lists it."""
    return f"{member}.{consortium}.example/w1"


def validator_name(consortium: str, member: MemberId) -> str:
    """Return the C2SP key name of a member's validating witness, as the charter lists it."""
    return f"{member}.{consortium}.example/v1"


def utc_now() -> datetime.datetime:
    """Return the time of this machine's clock."""
    return datetime.datetime.now(datetime.UTC)


def now_ms() -> int:
    """Return milliseconds of Unix time."""
    return int(utc_now().timestamp() * 1000)


def seed_file(path: Path, length: int) -> bytes:
    """Read a hex seed file; raise RNM-KEY-0001..3, never showing its content."""
    text = read_private(path).strip()
    try:
        seed = bytes.fromhex(text.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        seed = b""
    if len(seed) != length:
        raise LocalFault(
            "RNM-KEY-0003",
            what=f"key file {path} was not used",
            why=f"it is not one line of {2 * length} hex digits; it may be cut short",
            mend="restore it from your own backup; without one, have the charter amended to a new "
            "key: a key cannot be made again",
        )
    return seed


def write_seed(path: Path, length: int) -> None:
    """Make a fresh seed file, unless it exists: a key is never overwritten."""
    if not path.exists():
        write_atomic(path, os.urandom(length).hex().encode() + b"\n", mode=0o600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A loaded party directory."""

    root: Path
    profile: Profile
    signing_key: SigningKey = field(repr=False)

    @property
    def keys(self) -> Path:
        """Where its key files are."""
        return self.root / "keys"

    @property
    def recovery_key(self) -> SigningKey:
        """The key that ends a lost acting key; it belongs off line once the seat is taken."""
        return SigningKey(seed_file(self.keys / RECOVERY_KEY, 64))

    @classmethod
    def load(cls, root: Path) -> "Party":
        """Open a party directory; raise RNM-CONF-0001 or RNM-KEY-*."""
        path = root / "party.json"
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise LocalFault(
                "RNM-CONF-0001",
                what=f"{path} cannot be read",
                why=os.strerror(error.errno or 0),
                mend="set --dir to a directory that `renmei … init` made",
            ) from None
        profile = from_json(Profile, jcs.loads(raw), "party.json")
        key = SigningKey(seed_file(root / "keys" / "acting.key", 64))
        return cls(root=root, profile=profile, signing_key=key)

    def save_profile(self, profile: Profile) -> "Party":
        """Write `party.json`."""
        write_atomic(self.root / "party.json", jcs.dumps(to_json(profile)))
        return Party(root=self.root, profile=profile, signing_key=self.signing_key)

    def event(self, body: Body, *, charter: Digest, head: Head, trace: Trace) -> Event:
        """Return an event of this party, ready to be sealed."""
        return Event(
            log=self.profile.origin,
            id=os.urandom(16).hex(),
            at=now_ms(),
            actor=Actor(member=self.profile.id, key=self.signing_key.verify_key.key_id),
            charter=charter,
            head=head,
            trace=trace,
            body=body,
        )


def create(root: Path, profile: Profile, *, extra_seeds: tuple[str, ...] = ()) -> Party:
    """Make a party directory (0700) with its own fresh keys; existing keys are kept."""
    make_private_directory(root)
    make_private_directory(root / "keys")
    write_seed(root / "keys" / "acting.key", 64)
    write_seed(root / "keys" / RECOVERY_KEY, 64)
    for name in extra_seeds:
        write_seed(root / "keys" / name, 32)
    key = SigningKey(seed_file(root / "keys" / "acting.key", 64))
    return Party(root=root, profile=profile, signing_key=key).save_profile(profile)


def runtime_socket(root: Path, name: str) -> Path:
    """Return a short socket path for a party directory: both sides compute the same.

    Unix socket paths end at 107 bytes, so the socket lives in a directory of this user's own (0700)
    under XDG_RUNTIME_DIR or /tmp, named by a digest of the party's directory.
    """
    parent = os.environ.get("XDG_RUNTIME_DIR")
    # A name in /tmp that anybody could have made: its owner and mode are checked just below.
    base = Path(parent) / "renmei" if parent else Path(f"/tmp/renmei-{os.getuid()}")  # noqa: S108
    base.mkdir(mode=0o700, exist_ok=True)
    status = base.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"{base} was not used for sockets",
            why="it belongs to another user or is open to others",
            mend=f"remove {base}, or set XDG_RUNTIME_DIR to a directory of your own",
        )
    return base / f"{sha256_hex(str(root.resolve()).encode())[:16]}-{name}.sock"
