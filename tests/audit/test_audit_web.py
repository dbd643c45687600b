"""A log's files and a witness over plain HTTP: what a stranger gets, and what a stranger can cost."""

import contextlib
import gzip
import hashlib
import http.client
import multiprocessing
import os
import signal
import socket
import threading
import time

import pytest
from ledger_kit import LOG_KEY, ORIGIN, seed, signed_note, witness_of
from published_log import PublishedLog

from audit import merkle, tiles, web
from audit.checkpoint import Checkpoint, TreeHead, sign
from audit.note import NoteSigner, parse, parse_lines
from audit.static_log import StaticLog, serve_log
from audit.web import Answer, Site, WebServer
from audit.witness import Witness, request_body
from audit.witness_site import MAX_BODY, serve_witness
from fedproto.errors import LocalFault

LEAVES = [b"entry %d" % i for i in range(40)]
FORK = [*LEAVES[:5], b"forged", *LEAVES[6:]]
KEY = witness_of("nec")
NOW = 1_790_000_060


def ask(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def raw(port, data, seconds=10):
    """Send bytes as they are and return everything that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(data)
        with contextlib.suppress(OSError):
            # A server without room may have answered and closed already.
            connection.shutdown(socket.SHUT_WR)
        found = b""
        while piece := connection.recv(65_536):
            found += piece
        return found


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    made = PublishedLog(tmp_path_factory.mktemp("web") / "log")
    made.publish(300)
    return made


@pytest.fixture(scope="module")
def port(log):
    with serve_log(log.root) as server:
        yield server.port


# the static log


def test_a_whole_log_is_read_over_http(log, port):
    status, headers, note = ask(port, "GET", "/checkpoint")
    assert (status, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert headers["Cache-Control"] == "no-cache"
    assert note == (log.root / "checkpoint").read_bytes()
    entries = []
    for n, width in tiles.widths(300):
        status, headers, data = ask(port, "GET", f"/{tiles.bundle_path(n, width)}")
        assert status == 200
        assert "immutable" in headers["Cache-Control"]
        entries += tiles.decode_bundle(data, first=n * 256, width=width)
    assert entries == log.entries
    for tile in tiles.hash_tiles(300):
        status, headers, data = ask(port, "GET", f"/{tile.path}")
        assert (status, data) == (200, log.tile(tile.level, tile.n)[: tile.width * 32])
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_head_request_gets_the_same_without_the_body(port):
    _, full, body = ask(port, "GET", "/checkpoint")
    status, headers, nothing = ask(port, "HEAD", "/checkpoint")
    assert (status, nothing) == (200, b"")
    assert headers["Content-Length"] == str(len(body))
    assert headers["ETag"] == full["ETag"]


def test_what_a_reader_has_is_not_sent_again(port):
    for path in ("/checkpoint", "/tile/0/000", "/tile/entries/000"):
        _, headers, _ = ask(port, "GET", path)
        known = {"If-None-Match": f'"other", {headers["ETag"]}'}
        status, again, body = ask(port, "GET", path, headers=known)
        assert (status, body, again["ETag"]) == (304, b"", headers["ETag"])
        assert ask(port, "GET", path, headers={"If-None-Match": '"other"'})[0] == 200


def test_bundles_are_compressed_for_who_takes_it_and_tiles_are_not(port):
    path = "/tile/entries/000"
    _, plain_headers, plain = ask(port, "GET", path)
    _, headers, data = ask(port, "GET", path, headers={"Accept-Encoding": "br, gzip;q=0.8"})
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(data) == plain
    assert headers["ETag"] != plain_headers["ETag"]
    assert headers["Vary"] == plain_headers["Vary"] == "Accept-Encoding"
    _, headers, _ = ask(port, "GET", path, headers={"Accept-Encoding": "gzip;q=0"})
    assert "Content-Encoding" not in headers
    _, headers, _ = ask(port, "GET", "/tile/0/000", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//checkpoint",
        "/checkpoint/",
        "/checkpoint?x=1",
        "/Checkpoint",
        "/lock",
        "/../log/checkpoint",
        "/tile/../checkpoint",
        "/tile/0/../0/000",
        "/tile/0/%2e%2e/%2e%2e/checkpoint",
        "/tile/0/%30%30%30",
        "/tile/0/000/",
        "/tile/0/000.p/0",
        "/tile/0/000.p/256",
        "/tile/0/000.p/044",
        "/tile/00/000",
        "/tile/64/000",
        "/tile/0/0000",
        "/tile/0/x000",
        "/tile/entries/٠٠٠",
        "/tile/entries/001",
        "/tile/2/000",
        "http://elsewhere.example/checkpoint",
    ],
)
def test_only_the_paths_of_a_log_are_answered(port, path):
    encoded = path.encode("utf-8").decode("latin-1")
    answer = raw(port, f"GET {encoded} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"))
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")), answer
    assert b"immutable" not in answer


def test_a_link_out_of_the_directory_is_not_followed(log, tmp_path):
    root = tmp_path / "log"
    PublishedLog(root).publish(3)
    secret = tmp_path / "secret"
    secret.write_bytes(b"the log key")
    bundle = root / "tile/entries/000.p/3"
    bundle.unlink()
    bundle.symlink_to(secret)
    with serve_log(root) as server:
        status, _, body = ask(server.port, "GET", "/tile/entries/000.p/3")
        assert status == 500
        assert b"key" not in body


def test_a_file_that_is_none_of_ours_is_not_served(tmp_path):
    root = tmp_path / "log"
    PublishedLog(root).publish(3)
    tile = root / "tile/0/000.p/3"
    tile.unlink()
    os.mkfifo(tile)
    with serve_log(root) as server:
        assert ask(server.port, "GET", "/tile/0/000.p/3")[0] == 404


def test_a_browser_of_another_origin_may_ask(port):
    status, headers, body = ask(port, "OPTIONS", "/checkpoint", headers={"Origin": "null"})
    assert (status, body) == (204, b"")
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Access-Control-Allow-Methods"] == "GET, HEAD"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PRI"])
def test_nothing_but_reading_is_allowed(port, method):
    status, headers, _ = ask(port, method, "/checkpoint", body=b"")
    assert status == 405
    assert headers["Allow"] == "GET, HEAD, OPTIONS"


def test_a_directory_that_is_no_log_is_not_served(tmp_path):
    with pytest.raises(LocalFault, match="RNM-CONF-0001"):
        serve_log(tmp_path)


def test_an_address_that_is_taken_is_refused_by_name(log, port):
    with pytest.raises(LocalFault, match="RNM-NET-0001"):
        serve_log(log.root, port=port)


def test_a_checkpoint_that_grew_is_seen_at_once(tmp_path):
    made = PublishedLog(tmp_path / "log")
    made.publish(3)
    with serve_log(made.root) as server:
        _, headers, _ = ask(server.port, "GET", "/checkpoint")
        made.publish(5)
        known = {"If-None-Match": headers["ETag"]}
        status, _, note = ask(server.port, "GET", "/checkpoint", headers=known)
        assert (status, note) == (200, (made.root / "checkpoint").read_bytes())


# what a connection may cost


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"GET /checkpoint\r\n\r\n",
        b"GET /checkpoint HTTP/2.0\r\n\r\n",
        b"GET /checkpoint HTTP/1.1 x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /checkpoint HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /checkpoint HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /checkpoint HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde",
        b"GET /checkpoint HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /checkpoint HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_plain_request_is_refused_in_words(port, data):
    answer = raw(port, data)
    assert answer[:10] in {b"HTTP/1.1 4", b"HTTP/1.1 5"}, answer[:200]
    assert b"Connection: close" in answer
    assert b"<" not in answer
    assert ask(port, "GET", "/checkpoint")[0] == 200


def test_nothing_is_smuggled_behind_a_request(port):
    one = b"GET /checkpoint HTTP/1.1\r\nHost: x\r\n\r\n"
    assert raw(port, one + one).count(b"HTTP/1.1 ") == 1


def hello(_request):
    return Answer(status=200, body=b"hello\n")


def quick(**changes):
    """A server whose limits a test can reach."""
    site = Site(answer=changes.pop("answer", hello), methods=frozenset({"GET"}))
    return WebServer("127.0.0.1", 0, site, **changes)


def test_a_request_that_trickles_is_let_go_at_the_deadline():
    with quick(request_s=0.4) as server:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as slow:
            slow.sendall(b"GET / HT")
            while time.monotonic() - began < 3:
                try:
                    slow.sendall(b"T")
                except OSError:
                    break
                time.sleep(0.05)
        assert time.monotonic() - began < 1.5


def test_silent_connections_take_only_so_many_places_and_give_them_back():
    with quick(request_s=0.5, connections=3) as server:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        deadline = time.monotonic() + 0.4
        while (
            time.monotonic() < deadline
            and raw(server.port, b"GET / HTTP/1.1\r\n\r\n")[9:12] != b"503"
        ):
            time.sleep(0.02)
        assert b" 503 " in raw(server.port, b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(0.7)
        assert ask(server.port, "GET", "/")[2] == b"hello\n"
        for connection in held:
            connection.close()


def test_a_reader_that_takes_nothing_is_let_go(monkeypatch):
    monkeypatch.setattr(web, "ANSWER_S", 0.3)
    ended = threading.Event()

    def much(_request):
        return Answer(status=200, body=b"x" * 50_000_000)

    with quick(answer=much, connections=1) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as idle:
            idle.sendall(b"GET / HTTP/1.1\r\n\r\n")
            for _ in range(100):
                time.sleep(0.05)
                if b" 503 " not in raw(server.port, b"nonsense\r\n\r\n"):
                    ended.set()
                    break
        assert ended.is_set()


def test_a_fault_of_the_operator_is_not_told_to_strangers(caplog):
    def full(_request):
        raise LocalFault("RNM-DISK-0001", what="/srv/secret/path", why="full", mend="free space")

    with quick(answer=full) as server:
        status, _, body = ask(server.port, "GET", "/")
    assert (status, body) == (500, b"internal server error\n")
    assert "RNM-DISK-0001" in caplog.text


def test_a_bug_in_a_route_costs_one_connection(caplog):
    calls = []

    def once(_request):
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        return hello(_request)

    with quick(answer=once) as server:
        assert raw(server.port, b"GET / HTTP/1.1\r\n\r\n") == b""
        assert ask(server.port, "GET", "/")[0] == 200
    assert "ZeroDivisionError" in caplog.text


# the witness


def nodes(leaves):
    grown = tiles.RightEdge().grow([merkle.leaf_hash(leaf) for leaf in leaves])
    return tiles.node_reader(lambda level, n: bytes(grown.tiles[level, n]))


def request(old, size, leaves=LEAVES, key=LOG_KEY):
    proof = merkle.prove_consistency(nodes(leaves), old, size) if old <= size else []
    return request_body(old, proof, signed_note(leaves[:size], key))


def open_witness(directory):
    return Witness(directory, KEY, {ORIGIN: LOG_KEY.verifier}, clock=lambda: NOW)


@pytest.fixture
def witness_port(tmp_path):
    with serve_witness(open_witness(tmp_path / "witness")) as server:
        yield server.port


def add(port, body):
    status, headers, answer = ask(port, "POST", "/add-checkpoint", body=body)
    return status, headers["Content-Type"], answer


def test_the_conformance_script_of_add_checkpoint(witness_port):
    port = witness_port
    other = NoteSigner("other.example/log", seed("other"))
    unknown = sign(Checkpoint("other.example/log", TreeHead(1, "00" * 32)), other)
    forged = request(0, 8, key=NoteSigner(ORIGIN, seed("forger")))
    wrong_proof = request_body(8, [bytes(32)], signed_note(LEAVES[:12]))
    script = [
        (request(0, 8), 200),
        (forged, 403),
        (request_body(0, [], unknown), 404),
        (wrong_proof, 422),
        (request_body(8, [], signed_note(FORK[:8])), 422),
        (request(8, 12), 200),
        (request(8, 12), 409),
        (request(12, 12), 200),
        (request(0, 12), 409),
        (request_body(13, [], signed_note(LEAVES[:12])), 400),
        (b"old\n\n", 400),
        (request_body(0, [bytes(32)], signed_note(LEAVES[:12])), 409),
    ]
    answers = [add(port, body) for body, _ in script]
    assert [status for status, _, _ in answers] == [status for _, status in script]
    for status, content_type, body in answers:
        if status == 409:
            assert (content_type, body) == ("text/x.tlog.size", b"12\n")
        if status == 200:
            (line,) = parse_lines(body)
            assert line.name == KEY.name


def test_a_proof_where_none_can_be_is_unprocessable(witness_port):
    body = request_body(0, [bytes(32)], signed_note(LEAVES[:12]))
    assert add(witness_port, body)[0] == 422


def test_the_last_cosigned_checkpoint_is_read_by_the_origins_digest(witness_port):
    path = f"/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint"
    assert ask(witness_port, "GET", path)[0] == 404
    _, _, line = add(witness_port, request(0, 8))
    status, headers, note = ask(witness_port, "GET", path)
    assert (status, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert parse(note).text == parse(signed_note(LEAVES[:8])).text
    assert note.endswith(line)
    for wrong in (path.upper(), path + "/", f"/{'0' * 64}/checkpoint", f"/{ORIGIN}/checkpoint"):
        assert ask(witness_port, "GET", wrong)[0] == 404


def test_methods_and_lengths_that_do_not_fit_are_refused(witness_port):
    port = witness_port
    assert ask(port, "GET", "/add-checkpoint")[0] == 405
    assert ask(port, "PUT", "/add-checkpoint", body=b"")[0] == 405
    assert ask(port, "POST", f"/{'0' * 64}/checkpoint", body=b"")[0] == 405
    assert ask(port, "POST", "/add-checkpoint/", body=b"")[0] == 404
    head = b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\n"
    assert b" 411 " in raw(port, head + b"\r\n")
    assert b" 400 " in raw(
        port, head + b"Content-Length: 9\r\nContent-Length: 9\r\n\r\nold 0\n\n\n\n"
    )
    assert b" 400 " in raw(port, head + b"Content-Length: 99\r\n\r\nold 0\n\n")
    assert b" 400 " in raw(port, head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert b" 413 " in raw(port, head + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1))
    assert ask(port, "POST", "/add-checkpoint", body=b"x" * (MAX_BODY + 1))[0] == 413
    assert ask(port, "POST", "/add-checkpoint", body=b"x" * MAX_BODY)[0] == 400


def test_of_two_histories_at_once_one_wins(witness_port):
    bodies = [request_body(0, [], signed_note(leaves[:9])) for leaves in (LEAVES, FORK)] * 6
    answers, begin = [], threading.Barrier(len(bodies))

    def offer(body):
        begin.wait()
        answers.append(add(witness_port, body)[0])

    threads = [threading.Thread(target=offer, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + [409] * 11


def killed_before_it_answers(directory, ports):
    """A witness's process that dies after it persisted, before a byte of the answer leaves."""
    witness = open_witness(directory)
    cosign = witness.add_checkpoint

    def add_checkpoint(body):
        answer = cosign(body)
        if answer[0] == 200:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    witness.add_checkpoint = add_checkpoint
    server = serve_witness(witness)
    ports.put(server.port)
    signal.pause()


def test_a_witness_killed_between_persisting_and_answering_cosigns_no_other_history(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    ports = spawn.Queue()
    process = spawn.Process(target=killed_before_it_answers, args=(tmp_path / "w", ports))
    process.start()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        add(ports.get(timeout=30), request(0, 9))
    process.join(timeout=10)
    assert process.exitcode == -signal.SIGKILL
    with serve_witness(open_witness(tmp_path / "w")) as server:
        assert add(server.port, request(0, 9, FORK))[::2] == (409, b"9\n")
        assert add(server.port, request_body(9, [], signed_note(FORK[:9])))[0] == 422
        assert add(server.port, request(9, 9))[0] == 200


def test_a_static_log_answers_what_it_is_asked_without_a_server(log):
    answer = StaticLog(log.root).answer(web.Request(method="GET", path="/checkpoint", headers={}))
    assert (answer.status, answer.body) == (200, (log.root / "checkpoint").read_bytes())
