"""Places for large frames: so many at once, and nobody is held up by one that is never read."""

import threading
import time

import pytest
from secagg_members import NAMES

from federation.exchange import Hub
from federation.leases import Leases
from fedproto.outbox import SESSION_BYTES
from fedproto.v1.exchange_pb2 import CoordinatorFrame, Hello


def test_there_are_so_many_places_and_no_more():
    leases, inside, most = Leases(places=3, term_s=60), [], []
    lock = threading.Lock()

    def work():
        with leases.place():
            with lock:
                inside.append(1)
                most.append(len(inside))
            time.sleep(0.005)
            with lock:
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 3
    assert len(most) == 24


def test_a_place_that_is_never_given_back_is_free_again_after_its_term():
    leases = Leases(places=1, term_s=0.2)
    stalled = leases.place()
    stalled.__enter__()
    began = time.monotonic()
    with leases.place():
        assert time.monotonic() - began >= 0.15
    stalled.__exit__(None, None, None)
    with leases.place():
        pass


def test_a_place_is_given_back_when_the_work_fails():
    leases = Leases(places=1, term_s=60)
    with pytest.raises(RuntimeError), leases.place():
        raise RuntimeError
    with leases.place():
        pass


def test_members_that_do_not_read_hold_up_nobody():
    lobby = Hub().open(b"c", NAMES)
    lobby.leases = Leases(places=2, term_s=0.1)
    streams = {}
    for name in NAMES:
        streams[name] = lobby.join(name, Hello(ctx=b"c", session=bytes(SESSION_BYTES))).frames()
        assert next(streams[name])().WhichOneof("frame") == "welcome"
        for _ in range(3):
            lobby.send(name, CoordinatorFrame(key_list=b"k"))
    # Two take a frame and never ask for the next one.
    for name in ("honda", "nec"):
        next(streams[name])
    assert [next(streams["sony"])().key_list for _ in range(3)] == [b"k"] * 3
    for name in ("honda", "nec", "softbank"):
        streams[name].close()
