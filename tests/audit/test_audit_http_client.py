"""Following a log by its URL, and asking a witness by its own: bounded, and believed only as verified."""

import socket
import threading

import pytest
from ledger_kit import (
    LOG_KEY,
    ORIGIN,
    charter_of,
    copy_of,
    cosigned_note,
    full_story,
    signed_note,
    witness_of,
)

from audit import publication, tiles
from audit.http_client import MAX_ANSWER, HttpWitness, Remote, RemoteLog, follow
from audit.merkle import leaf_hash
from audit.mirror import Mirror
from audit.static_log import serve_log
from audit.witness import Witness, request_body
from audit.witness_site import serve_witness
from fedproto.errors import LocalFault

STORY = full_story()


def publish(root, leaves):
    grown = tiles.RightEdge().grow([leaf_hash(leaf) for leaf in leaves])
    content = publication.Content(
        size=len(leaves),
        note=cosigned_note(leaves),
        entries=lambda start, end: leaves[start:end],
        tile=lambda level, n: bytes(grown.tiles[level, n]),
    )
    publication.publish(root, content, after=0)


@pytest.fixture
def served(tmp_path):
    publish(tmp_path / "public", STORY.leaves[:20])
    server = serve_log(tmp_path / "public")
    yield tmp_path / "public", RemoteLog(Remote(f"http://127.0.0.1:{server.port}"))
    server.close()


@pytest.fixture
def mirror(tmp_path):
    return Mirror(
        tmp_path / "mirror",
        log_vkey=LOG_KEY.vkey,
        origin=ORIGIN,
        genesis_sha256=charter_of().digest,
    )


def test_a_mirror_follows_a_log_by_its_url_as_it_grows(served, mirror):
    root, log = served
    assert follow(mirror, log).size == 20
    assert follow(mirror, log).size == 20
    publish(root, STORY.leaves)
    assert follow(mirror, log).size == len(STORY.leaves)
    assert mirror.entries(0, len(STORY.leaves)) == list(STORY.leaves)


def test_a_partial_bundle_that_a_full_one_replaced_is_read_from_that(tmp_path):
    leaves = [b"entry %d" % i for i in range(300)]
    publish(tmp_path / "public", leaves)
    server = serve_log(tmp_path / "public")
    log = RemoteLog(Remote(f"http://127.0.0.1:{server.port}"))
    assert list(log.entries(3, 200)) == leaves[3:200]
    assert list(log.entries(0, 300)) == leaves
    server.close()


# In an entry; in the root, which the log's signature covers.
@pytest.mark.parametrize(
    ("name", "place"), [("tile/entries/000.p/20", 5_000), ("checkpoint", len(ORIGIN) + 10)]
)
def test_a_changed_file_is_refused_by_the_mirror(served, mirror, name, place):
    root, log = served
    path = root / name
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(LocalFault) as caught:
        follow(mirror, log)
    assert caught.value.code in {"RNM-LEDGER-0001", "RNM-LEDGER-0003"}
    assert mirror.head.size == 0


def test_a_log_that_publishes_nothing_or_lacks_a_bundle_is_named(served, mirror):
    root, log = served
    (root / "tile/entries/000.p/20").unlink()
    with pytest.raises(LocalFault) as caught:
        follow(mirror, log)
    assert caught.value.code == "RNM-TLS-0001"
    (root / "checkpoint").unlink()
    with pytest.raises(LocalFault) as caught:
        follow(mirror, log)
    assert caught.value.code == "RNM-LEDGER-0006"


def test_an_older_log_is_refused_after_a_newer_one(served, mirror):
    root, log = served
    follow(mirror, log)
    publish(root, STORY.leaves[:15])
    with pytest.raises(LocalFault) as caught:
        follow(mirror, log)
    assert "goes back" in caught.value.why


@pytest.mark.parametrize(
    "url",
    [
        "http://ledger.example/log",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http://127.0.0.1/?q=1",
        "",
    ],
)
def test_a_url_without_tls_to_another_machine_is_refused(url):
    with pytest.raises(LocalFault) as caught:
        Remote(url)
    assert caught.value.code == "RNM-CONF-0001"


@pytest.fixture
def canned():
    """A server that sends what a test tells it to, whatever it is asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def answer(data):
        def serve():
            connection, _ = listener.accept()
            connection.recv(65_536)
            connection.sendall(data)
            connection.close()

        threading.Thread(target=serve, daemon=True).start()
        return Remote(f"http://127.0.0.1:{listener.getsockname()[1]}")

    yield answer
    listener.close()


def test_a_redirect_is_not_followed(canned):
    remote = canned(
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    )
    with pytest.raises(LocalFault, match="redirect"):
        RemoteLog(remote).checkpoint()


def test_an_answer_without_end_is_cut(canned):
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    with pytest.raises(LocalFault, match="more than"):
        HttpWitness(canned(head + b"x" * (4 * MAX_ANSWER))).add_checkpoint(b"")


@pytest.mark.parametrize(
    "noise", [b"", b"noise\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"]
)
def test_noise_instead_of_http_is_named(canned, noise):
    with pytest.raises(LocalFault) as caught:
        RemoteLog(canned(noise)).checkpoint()
    assert caught.value.code == "RNM-TLS-0001"


def test_no_proxy_of_the_environment_is_used(served, mirror, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert follow(mirror, served[1]).size == 20


def test_a_witness_is_asked_by_its_url_and_shows_what_it_cosigned(tmp_path):
    story = copy_of(STORY)
    witness = Witness(tmp_path / "w", witness_of("nec"), {ORIGIN: LOG_KEY.verifier})
    server = serve_witness(witness)
    asked = HttpWitness(Remote(f"http://127.0.0.1:{server.port}"))
    assert asked.latest(ORIGIN) is None
    body = request_body(0, [], signed_note(story.leaves))
    status, line = asked.add_checkpoint(body)
    assert status == 200
    assert line in asked.latest(ORIGIN)
    assert asked.add_checkpoint(body) == (409, b"%d\n" % len(story.leaves))
    server.close()
