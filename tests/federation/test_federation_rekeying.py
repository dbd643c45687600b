"""Keys that change hands: rotation and revocation, killed after each durable step and run again."""

import stat

import pytest
from governing_kit import TRAINERS, Governed, renmei

from federation import rekeying
from federation.client import CoordinatorClient
from fedproto import envelope
from fedproto.errors import LocalFault
from fedproto.identity import SigningKey
from fedproto.party import Party, seed_file


class Killed(BaseException):
    """The process ended here."""


@pytest.fixture
def governed(tmp_path):
    made = Governed(tmp_path / "c")
    yield made
    made.close()


def key_in(governed, name, file="acting.key"):
    return SigningKey(seed_file(governed.dir(name) / "keys" / file, 64)).verify_key


def dies_after(step):
    """Return a step that is done durably, and then kills."""

    def killed(*arguments):
        step(*arguments)
        raise Killed

    return killed


def dies_before(_step):
    def killed(*_):
        raise Killed

    return killed


def kill(governed, step, dies, *words):
    """Run a verb as nec, and have the process die at a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rekeying, step, dies(getattr(rekeying, step)))
        with pytest.raises(Killed):
            governed.run("nec", *words)


def test_a_rotation_replaces_the_key_file_and_the_old_key_no_longer_signs(governed):
    old = Party.load(governed.dir("nec"))
    said = governed.ok("nec", "rotate-key")
    new = key_in(governed, "nec")
    assert (said["ended"], said["key"]) == (old.signing_key.verify_key.key_id, new.key_id)
    assert governed.state.acting_key("nec") == new
    assert governed.state.keys[said["ended"]].until == said["index"]
    path = governed.dir("nec") / "keys" / "acting.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not rekeying.beside(path).exists()
    proposal = governed.propose("member.status", {"member": "sony", "standing": "suspended"})
    governed.vote(proposal, "nec")


def test_a_rotation_of_the_recovery_key_leaves_the_acting_key(governed):
    acting, old = key_in(governed, "nec"), key_in(governed, "nec", "recovery.key")
    governed.ok("nec", "rotate-key", "--recovery")
    new = key_in(governed, "nec", "recovery.key")
    assert new != old
    assert governed.state.seats["nec"].recovery == new.key_id
    assert governed.state.acting_key("nec") == acting


# each step of a rotation in turn: what is durable when the process dies, and whether it had acted
STEPS = [
    ("_make_next", dies_before, 0),
    ("_make_next", dies_after, 0),
    ("_submit", dies_before, 0),
    ("_submit", dies_after, 1),
    ("_install", dies_before, 1),
    ("_install", dies_after, 1),
]


@pytest.mark.parametrize(("step", "dies", "acted"), STEPS)
@pytest.mark.parametrize("file", ["acting.key", "recovery.key"])
def test_a_rotation_that_was_killed_is_finished_by_the_next_run(governed, step, dies, acted, file):
    first = key_in(governed, "nec", file)
    words = ["--recovery"] if file == "recovery.key" else []
    kill(governed, step, dies, "rotate-key", *words)
    size = governed.state.size
    assert (governed.state.keys[first.key_id].until is not None) is bool(acted)
    if (step, dies) == ("_install", dies_after):
        # Nothing was left to do: the file in place is the one in force.
        assert key_in(governed, "nec", file) != first
        assert governed.state.key(key_in(governed, "nec", file).key_id) is not None
        return
    said = governed.ok("nec", "rotate-key", *words)
    assert said["ended"] == first.key_id
    assert said["finished_earlier_attempt"] is bool(acted)
    assert governed.state.key(key_in(governed, "nec", file).key_id) is not None
    assert types(governed, size).count("key.changed") == 1 - acted
    governed.ok("nec", "rotate-key", *words)


def types(governed, start):
    leaves = governed.coordinator.ledger.entries(start, governed.state.size)
    return [envelope.peek(leaf, envelope.EVENT_TYPE)["type"] for leaf in leaves]


def test_a_rotation_whose_entry_was_not_cosigned_when_the_rerun_looked_is_finished(
    governed, monkeypatch
):
    """The rerun's first look shows the old key in force; the ledger holds the new one already."""
    stale = governed.state
    kill(governed, "_submit", dies_after, "rotate-key")
    sync, looks = CoordinatorClient.sync, []

    def late(client, **words):
        looks.append(words)
        now = sync(client, **words)
        return stale if len(looks) == 1 else now

    monkeypatch.setattr(CoordinatorClient, "sync", late)
    said = governed.ok("nec", "rotate-key")
    assert len(looks) > 1
    assert said["finished_earlier_attempt"] is True
    assert governed.state.acting_key("nec") == key_in(governed, "nec")


def test_a_rotation_without_the_key_in_force_is_refused_and_changes_nothing(governed):
    path = governed.dir("nec") / "keys" / "acting.key"
    path.write_text("00" * 64 + "\n")
    assert governed.fails("nec", "rotate-key")[0] == 1
    assert path.read_text() == "00" * 64 + "\n"


def test_two_rotations_at_once_do_not_meet(governed):
    keys = governed.dir("nec") / "keys"
    with rekeying._alone(keys / "acting.key"):
        assert governed.fails("nec", "rotate-key") == (8, "RNM-PROC-0003")


def test_a_revoked_key_ends_and_a_new_charter_seats_the_next(governed):
    stolen = key_in(governed, "nec")
    words = ("--reason", "laptop-stolen")
    assert governed.fails("nec", "revoke-key", *words) == (2, "RNM-CONF-0001")
    said = governed.ok("nec", "revoke-key", *words, "--yes", "nec")
    assert said["ended"] == stolen.key_id
    assert governed.state.acting_key("nec") is None
    fresh = key_in(governed, "nec")
    assert (fresh != stolen, said["key_sha256"]) == (True, fresh.digest)
    assert governed.fails("nec", "stop", "--reason", "drill") == (6, "RNM-GOV-0001")
    assert governed.fails("nec", "seat") == (6, "RNM-GOV-0001")
    seat_by_charter(governed)
    assert governed.state.acting_key("nec") == fresh
    governed.ok("nec", "stop", "--reason", "drill")
    again = governed.fails("nec", "seat")
    assert again == (8, "RNM-GOV-0003")


def seat_by_charter(governed):
    """Hand the new public keys to the secretariat, have them adopted by the others, take the seat."""
    keys, entry = governed.root / "nec.keys.json", governed.root / "nec.member.json"
    governed.ok("nec", "keys", "-o", keys)
    drafted = renmei("govern", "draft", "member", "nec", "--key", str(keys), "-o", str(entry))
    assert drafted.exit == 0, drafted.err
    terms = governed.ok("secretariat", "draft charter", "--member", entry)
    governed.vote(governed.propose("charter.amend", terms), "honda", "softbank", "sony")
    governed.ok("nec", "seat")


@pytest.mark.parametrize("step", ["_submit", "_install"])
@pytest.mark.parametrize("dies", [dies_before, dies_after])
def test_a_revocation_that_was_killed_is_finished_by_the_next_run(governed, step, dies):
    stolen = key_in(governed, "nec")
    words = ("--reason", "laptop-stolen", "--yes", "nec")
    kill(governed, step, dies, "revoke-key", *words)
    if (step, dies) == ("_install", dies_after):
        assert governed.fails("nec", "revoke-key", *words) == (8, "RNM-GOV-0003")
    else:
        assert governed.ok("nec", "revoke-key", *words)["ended"] == stolen.key_id
    assert key_in(governed, "nec") != stolen
    seat_by_charter(governed)


def test_a_key_whose_file_is_lost_is_ended_all_the_same(governed):
    lost = key_in(governed, "nec")
    (governed.dir("nec") / "keys" / "acting.key").unlink()
    said = governed.ok("nec", "revoke-key", "--reason", "disk-lost", "--yes", "nec")
    assert said["ended"] == lost.key_id
    assert key_in(governed, "nec").digest == said["key_sha256"]
    seat_by_charter(governed)


def test_a_revocation_never_installs_a_key_that_an_interrupted_rotation_left(governed):
    kill(governed, "_install", dies_before, "rotate-key")
    governed.ok("nec", "revoke-key", "--reason", "laptop-stolen", "--yes", "nec")
    assert key_in(governed, "nec").key_id not in governed.state.keys
    seat_by_charter(governed)


def test_a_revocation_by_another_key_than_recovery_is_refused(governed):
    other = governed.dir("sony") / "keys" / "recovery.key"
    words = ("--reason", "x", "--yes", "nec", "--recovery-key", other)
    status, _code = governed.fails("nec", "revoke-key", *words)
    assert status in (5, 6)
    assert governed.state.acting_key("nec") == key_in(governed, "nec")


def test_the_others_end_a_members_key_by_vote(governed):
    key = key_in(governed, "nec").key_id
    terms = {"member": "nec", "key": key, "reason": "stolen"}
    proposal = governed.propose("key.revoke", terms)
    told = governed.vote(proposal, *(name for name in TRAINERS if name != "nec"))
    assert told["outcome"] == "key.changed"
    assert governed.state.acting_key("nec") is None


def test_a_damaged_next_key_is_named_and_never_used(governed):
    path = governed.dir("nec") / "keys" / "acting.key.next"
    path.write_text("00")
    path.chmod(0o600)
    assert governed.fails("nec", "rotate-key") == (1, "RNM-KEY-0003")
    with pytest.raises(LocalFault):
        seed_file(path, 64)
