"""A party's directory: private, keys made once and never overwritten, damage named."""

import dataclasses
import os
from pathlib import Path

import pytest

from fedproto.errors import LocalFault
from fedproto.ids import MemberId
from fedproto.party import Party, Profile, create, runtime_socket

PROFILE = Profile(
    id=MemberId("nec"),
    consortium="demo",
    origin="ledger.example/demo",
    coordinator="127.0.0.1:1",
    gateway="",
    log_vkey="",
    genesis_sha256="",
)


def code_of(root: Path) -> str:
    with pytest.raises(LocalFault) as caught:
        Party.load(root)
    return caught.value.code


def test_a_new_party_is_private_to_its_owner(tmp_path: Path) -> None:
    party = create(tmp_path / "nec", PROFILE, extra_seeds=("witness.key",))
    assert party.root.stat().st_mode & 0o777 == 0o700
    assert party.keys.stat().st_mode & 0o777 == 0o700
    for path in party.keys.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert len((party.keys / "witness.key").read_text().strip()) == 64


def test_a_party_loads_as_it_was_made(tmp_path: Path) -> None:
    party = create(tmp_path / "nec", PROFILE)
    assert Party.load(party.root) == party


def test_making_a_party_again_keeps_its_keys(tmp_path: Path) -> None:
    first = create(tmp_path / "nec", PROFILE)
    second = create(tmp_path / "nec", dataclasses.replace(PROFILE, coordinator="127.0.0.1:2"))
    assert second.signing_key == first.signing_key


def test_two_parties_have_different_keys(tmp_path: Path) -> None:
    assert (
        create(tmp_path / "a", PROFILE).signing_key != create(tmp_path / "b", PROFILE).signing_key
    )


def test_no_key_stands_in_a_partys_repr_or_public_file(tmp_path: Path) -> None:
    party = create(tmp_path / "nec", PROFILE)
    seed = (party.keys / "acting.key").read_text().strip()
    assert seed not in repr(party)
    assert seed not in (party.root / "party.json").read_text()


@pytest.mark.parametrize(
    "content", [b"", b"00", b"zz" * 64, b"00" * 63, b"00" * 65, b"\xff" * 128], ids=len
)
def test_a_damaged_key_is_named_and_not_shown(tmp_path: Path, content: bytes) -> None:
    party = create(tmp_path / "nec", PROFILE)
    (party.keys / "acting.key").write_bytes(content)
    with pytest.raises(LocalFault) as caught:
        Party.load(party.root)
    assert caught.value.code == "RNM-KEY-0003"
    assert content.decode("latin-1") not in str(caught.value) or len(content) < 3


def test_a_missing_key_and_an_open_key_are_named(tmp_path: Path) -> None:
    party = create(tmp_path / "nec", PROFILE)
    (party.keys / "acting.key").chmod(0o644)
    assert code_of(party.root) == "RNM-KEY-0002"
    (party.keys / "acting.key").unlink()
    assert code_of(party.root) == "RNM-KEY-0001"


def test_a_directory_of_no_party_is_named(tmp_path: Path) -> None:
    assert code_of(tmp_path) == "RNM-CONF-0001"


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"{", "RNM-FORM-0001"), (b"{}", "RNM-FORM-0002"), (b'{"id":"nec" }', "RNM-FORM-0001")],
)
def test_a_damaged_profile_is_named(tmp_path: Path, content: bytes, code: str) -> None:
    party = create(tmp_path / "nec", PROFILE)
    (party.root / "party.json").write_bytes(content)
    assert code_of(party.root) == code


def test_a_socket_path_is_short_however_deep_the_party_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    deep = tmp_path.joinpath(*["d" * 40] * 5)
    deep.mkdir(parents=True)
    path = runtime_socket(deep, "trainer")
    assert path.name.endswith("-trainer.sock")
    assert path == runtime_socket(deep, "trainer")
    assert path != runtime_socket(tmp_path, "trainer")
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_socket_directory_that_others_may_enter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "renmei").mkdir()
    (tmp_path / "renmei").chmod(0o755)
    with pytest.raises(LocalFault) as caught:
        runtime_socket(tmp_path, "trainer")
    assert caught.value.code == "RNM-CONF-0001"


def test_a_socket_directory_that_is_a_planted_link_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    os.symlink(tmp_path / "elsewhere", tmp_path / "renmei")
    with pytest.raises(LocalFault):
        runtime_socket(tmp_path, "trainer")
