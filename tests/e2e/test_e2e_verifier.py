"""The verifier page that each bundle brings: in a real browser, from file://, with the network off."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "audit"))

from ledger_kit import (
    LOG_KEY,
    TRAINERS,
    Story,
    charter_of,
    copy_of,
    cosigned_note,
    full_story,
    key_of,
    witness_of,
)

from audit import archive, bundle
from audit.bundle import Pinned
from audit.note import NoteSigner, parse
from audit.policy import policy_of
from audit.verifier.page import fingerprint, is_known, page
from fedproto.errors import LocalFault

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
STORY = full_story()
GENESIS = charter_of().digest
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        if os.environ.get("RENMEI_REQUIRE_CHROMIUM") == "1":
            pytest.fail("chromium is missing, and RENMEI_REQUIRE_CHROMIUM asks for it")
        pytest.skip("chromium is not installed (Debian's package of this name)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


class Page:
    """The page as a person uses it; whatever it asks of a network is noted."""

    def __init__(self, browser, folder, locale="en-US"):
        self.folder, self.noise = folder, []
        context = browser.new_context(locale=locale)
        context.set_offline(True)
        self.page = context.new_page()
        self.page.on("console", lambda message: self.noise.append(message.text))
        self.page.on("pageerror", lambda error: self.noise.append(str(error)))
        self.page.on("dialog", lambda dialog: self.noise.append(dialog.message))
        self.page.on("request", self._asked)
        (folder / "verify.html").write_bytes(page())
        self.page.goto((folder / "verify.html").as_uri())

    def _asked(self, request):
        if not request.url.startswith(("file:", "blob:")):
            self.noise.append(request.url)

    def verify(self, data, *, vkey=LOG_KEY.vkey, genesis=GENESIS):
        """Choose a bundle and return the verdict and what the checks say."""
        path = self.folder / "bundle.zip"
        path.write_bytes(data)
        # A page of its own each time, so that no earlier verdict is taken for this one's.
        self.page.reload()
        self.page.fill("#vkey", vkey)
        self.page.fill("#genesis", genesis)
        self.page.set_input_files("#file", str(path))
        self.page.wait_for_selector("#verdict", state="visible", timeout=60_000)
        verdict = self.page.get_attribute("#verdict", "class").removeprefix("verdict ")
        return verdict, self.page.inner_text("#checkList")


@pytest.fixture
def shown(browser, tmp_path):
    made = Page(browser, tmp_path)
    yield made
    assert made.noise == []
    made.page.context.close()


def pack(tmp_path, story=STORY, note=None):
    path = tmp_path / "made.zip"
    policy = policy_of(story.state.charter)
    note = note or cosigned_note(story.leaves)
    bundle.write(path, note=note, entries=story.leaves, policy=policy)
    return path.read_bytes()


def flipped(data, needle, offset=0):
    """Change one bit at a place, and put nothing else right."""
    at = data.index(needle) + offset
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def repacked(data, **changes):
    """Change files of a bundle and put its list of digests and its zip structure right."""
    members = archive.unpack(data)
    members.update(changes)
    members["SHA256SUMS"] = bundle._sums({k: v for k, v in members.items() if k != "SHA256SUMS"})
    return archive.pack(members)


def test_an_untouched_bundle_is_verified_offline(shown, tmp_path):
    verdict, checks = shown.verify(pack(tmp_path))
    assert verdict == "ok"
    assert "31 acts, both signatures of each key verified" in checks
    assert "4 of 4 witnesses cosigned, 3 needed" in checks
    assert shown.page.locator("#rows tr.ok").count() == len(STORY.leaves)


def test_without_pins_it_says_that_nothing_is_proven_of_whose_history_it_is(shown, tmp_path):
    verdict, _ = shown.verify(pack(tmp_path), vkey="", genesis="")
    assert verdict == "open"
    assert "agrees with itself" in shown.page.inner_text("#verdict")


@pytest.mark.parametrize(("vkey", "genesis"), [(witness_of("nec").vkey, None), (None, "ab" * 32)])
def test_another_pin_fails(shown, tmp_path, vkey, genesis):
    verdict, _ = shown.verify(
        pack(tmp_path), vkey=vkey or LOG_KEY.vkey, genesis=genesis or charter_of().digest
    )
    assert verdict == "bad"


@pytest.mark.parametrize("index", [0, 5, 18, 30])
def test_a_changed_entry_is_named_as_the_command_names_it(shown, tmp_path, index):
    data = flipped(pack(tmp_path), STORY.leaves[index], 40)
    (tmp_path / "bad.zip").write_bytes(data)
    with pytest.raises(LocalFault, match=f"entry {index} was changed"):
        bundle.verify(tmp_path / "bad.zip", pinned=Pinned())
    verdict, checks = shown.verify(data)
    assert verdict == "bad"
    assert f"entry {index} was changed" in checks
    shown.page.check("#onlyBad")
    assert shown.page.locator("#rows tr").first.inner_text().startswith(str(index))


def test_a_changed_cosignature_tile_or_stray_byte_fails(shown, tmp_path):
    data = pack(tmp_path)
    note = archive.unpack(data)["checkpoint"]
    for changed in (
        flipped(data, note, len(note) - 20),
        flipped(data, archive.unpack(data)["tile/0/000.p/31"], 5),
        data + b"\0",
        data[:-1],
        flipped(data, b"PK\x03\x04", 6),
    ):
        assert shown.verify(changed)[0] == "bad"


def test_a_forged_act_under_a_log_that_signed_it_is_found_by_both_schemes(shown, tmp_path):
    """The log key and the witnesses sign whatever they are given: the members' signatures decide."""
    for half in (0, 70):
        story = copy_of(STORY)
        leaf = json.loads(story.leaves[14])
        signature = leaf["signatures"][0]["sig"]
        place = half * 4 // 3 + 10
        other = "A" if signature[place] != "A" else "B"
        leaf["signatures"][0]["sig"] = signature[:place] + other + signature[place + 1 :]
        forged = json.dumps(leaf, sort_keys=True, separators=(",", ":")).encode()
        story.leaves[14] = forged
        verdict, checks = shown.verify(pack(tmp_path, story))
        assert verdict == "bad"
        scheme = "Ed25519" if half == 0 else "ML-DSA"
        assert f"first entry 14: the {scheme} half of the signature" in checks


def test_too_few_witnesses_fail_and_one_witness_twice_is_one(shown, tmp_path):
    assert shown.verify(pack(tmp_path, note=cosigned_note(STORY.leaves, TRAINERS[:2])))[0] == "bad"
    assert shown.verify(pack(tmp_path, note=cosigned_note(STORY.leaves, TRAINERS[:3])))[0] == "ok"


def test_a_post_quantum_witness_is_verified(shown, tmp_path):
    """ML-DSA-44 cosignatures, by our own verifier in the page."""
    seed = bytes(range(32))
    lattice = NoteSigner("witness.nec.example/w2", seed, cosigner=True, post_quantum=True)
    members = tuple(
        replace(m, witness=lattice.vkey) if m.id == "nec" else m for m in charter_of().members
    )
    story = Story()
    story.genesis(replace(charter_of(), members=members))
    note = cosigned_note(story.leaves, ("honda", "sony"))
    note += lattice.cosign(parse(note).text, 1_790_000_000).encode()
    genesis = story.state.charter.digest
    assert shown.verify(pack(tmp_path, story, note), genesis=genesis)[0] == "ok"
    broken = bytearray(note)
    broken[-100] = ord("A") if broken[-100] != ord("A") else ord("B")
    assert shown.verify(pack(tmp_path, story, bytes(broken)), genesis=genesis)[0] == "bad"


def test_a_rotated_key_is_followed_and_the_old_one_refused(shown, tmp_path):
    from fedproto.events.governance import KeyChanged, KeyOperation, KeyUse, PublicKey
    from fedproto.statements import Actor

    story = copy_of(STORY)
    body = KeyChanged(
        op=KeyOperation.ROTATE,
        use=KeyUse.ACT,
        key=key_of("meti").verify_key.key_id,
        new=PublicKey.of(key_of("meti:2").verify_key),
        reason="routine",
        proposal="",
        votes=(),
    )
    story.act("meti", body, signers=("meti", "meti:2"))
    from fedproto.events.oversight import IncidentReported

    incident = IncidentReported(category="drill", severity=1, report=charter_of().digest)
    actor = Actor(member="meti", key=key_of("meti:2").verify_key.key_id)
    story.act("meti", incident, actor=actor, signers=("meti:2",))
    assert shown.verify(pack(tmp_path, story))[0] == "ok"
    story.leaves.append(story.leaf("meti", incident))
    verdict, checks = shown.verify(pack(tmp_path, story))
    assert verdict == "bad"
    assert "is not in force here" in checks


def test_a_hostile_name_is_text(shown, tmp_path):
    members = tuple(replace(m, name=HOSTILE) if m.id == "sony" else m for m in charter_of().members)
    story = Story()
    story.genesis(replace(charter_of(), members=members))
    genesis = story.state.charter.digest
    assert shown.verify(pack(tmp_path, story), genesis=genesis)[0] == "ok"
    assert HOSTILE in shown.page.inner_text("#factList")
    assert shown.page.locator("#factList img, #factList script").count() == 0
    shown.page.locator("#rows button").first.click()
    assert HOSTILE in shown.page.inner_text("#entryJson")


def test_it_speaks_japanese(browser, tmp_path):
    made = Page(browser, tmp_path, locale="ja-JP")
    assert made.verify(pack(tmp_path))[0] == "ok"
    assert "検証に成功しました" in made.page.inner_text("#verdict")
    made.page.click("#language")
    assert "Verified" in made.page.inner_text("#verdict")
    assert made.noise == []
    made.page.context.close()


def test_noise_instead_of_a_bundle_is_refused(shown):
    for noise in (b"", b"noise", b"PK\x03\x04" + bytes(40), os.urandom(5000)):
        assert shown.verify(noise)[0] == "bad"


def test_another_page_in_a_bundle_is_refused_by_the_page_and_by_the_command(shown, tmp_path):
    evil = page().replace(b"Verify a Renmei ledger", b"Everything is fine here")
    data = repacked(pack(tmp_path), **{"verify.html": evil})
    (tmp_path / "evil.zip").write_bytes(data)
    with pytest.raises(LocalFault, match="not a verifier page"):
        bundle.verify(tmp_path / "evil.zip", pinned=Pinned())
    verdict, checks = shown.verify(data)
    assert verdict == "bad"
    assert "another page than this one" in checks


def test_a_page_is_known_by_a_fingerprint_of_its_own():
    assert fingerprint(page()) is not None
    assert is_known(page())
    assert fingerprint(page().replace(b"Renmei", b"Renmai")) is None
    assert not is_known(b"<html></html>")
    assert len(page()) < 120_000
