"""A process verifies signatures beside the loop; whatever becomes of it, what holds holds, and no more."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from loop_kit import until

from federation import signature_worker, signatures
from federation.signatures import Signatures
from fedproto.envelope import Claim
from fedproto.errors import LocalFault
from fedproto.identity import SIGNATURE_BYTES, SigningKey

KEY, OTHER = SigningKey(b"\x01" * 64), SigningKey(b"\x02" * 64)


def claim(text, key=KEY):
    message = text.encode()
    return Claim(key.verify_key, key.sign(message), message)


def forged(text, key=KEY):
    """A claim of one key, signed by another."""
    signed = claim(text, OTHER if key is KEY else KEY)
    return Claim(key.verify_key, signed.signature, signed.message)


GOOD = [claim(f"act {number}") for number in range(8)]
BAD = [forged(f"act {number}") for number in range(8)]


class Watched(Signatures):
    """Notes which processes it had."""

    def __init__(self):
        super().__init__()
        self.pids = []


@pytest.fixture
def watched(monkeypatch):
    checker = Watched()
    spawn = signatures._spawn

    def noted():
        process, line = spawn()
        checker.pids.append(process.pid)
        return process, line

    monkeypatch.setattr(signatures, "_spawn", noted)
    return checker


def play(scene, checker):
    """Run a scene in a loop, and end what it started."""

    async def all_of_it():
        try:
            return await asyncio.wait_for(scene(), 60)
        finally:
            await asyncio.to_thread(checker.close)

    return asyncio.run(all_of_it())


async def in_company(checker, claims=GOOD):
    """Verify each claim, all at once; return what became of each."""
    return await asyncio.gather(
        *(checker.verify([each]) for each in claims), return_exceptions=True
    )


async def started(checker):
    """Have company until a process is there."""
    while checker._line is None:
        assert await in_company(checker) == [None] * len(GOOD)


def in_threads(monkeypatch):
    """Note what is verified in threads."""
    seen, verify = [], signatures._verify

    def noted(claims):
        seen.extend(claims)
        verify(claims)

    monkeypatch.setattr(signatures, "_verify", noted)
    return seen


def refusals(outcomes):
    return [outcome.code if isinstance(outcome, LocalFault) else outcome for outcome in outcomes]


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_who_comes_alone_needs_no_process(watched):
    async def scene():
        for each in GOOD:
            await watched.verify([each])
        with pytest.raises(LocalFault, match="RNM-SIG-0001"):
            await watched.verify([BAD[0]])

    play(scene, watched)
    assert watched.pids == []


def test_in_company_a_process_verifies_and_a_forgery_is_refused_by_name(watched, monkeypatch):
    async def scene():
        await started(watched)
        seen = in_threads(monkeypatch)
        mixed = [each for pair in zip(GOOD, BAD, strict=True) for each in pair]
        outcomes = await in_company(watched, mixed)
        assert refusals(outcomes) == [None, "RNM-SIG-0001"] * 8
        # All that hold were verified by the process alone; what it refuses is looked at once more.
        assert set(seen) == set(BAD)

    play(scene, watched)
    (pid,) = watched.pids
    assert is_gone(pid)


def test_every_claim_of_an_act_must_hold(watched):
    async def scene():
        await started(watched)
        await watched.verify([GOOD[0], claim("act 0", OTHER), GOOD[1]])
        for claims in ([GOOD[0], BAD[1]], [BAD[1], GOOD[0]], [GOOD[0], forged("x", OTHER)]):
            with pytest.raises(LocalFault, match="RNM-SIG-0001"):
                await watched.verify(claims)
        short = Claim(KEY.verify_key, GOOD[0].signature[:-1], GOOD[0].message)
        assert len(short.signature) < SIGNATURE_BYTES
        with pytest.raises(LocalFault, match="RNM-SIG-0001"):
            await watched.verify([short])
        # Its length would have put the line out of step.
        assert await in_company(watched) == [None] * 8

    play(scene, watched)
    assert len(watched.pids) == 1


def test_a_process_that_is_killed_takes_no_act_with_it_and_another_is_started(watched, monkeypatch, caplog):  # fmt: skip
    monkeypatch.setattr(signatures, "_PAUSE_S", 0.0)

    async def scene():
        await started(watched)
        os.kill(watched.pids[0], signal.SIGSTOP)
        asked = asyncio.gather(in_company(watched), in_company(watched, BAD))
        await asyncio.sleep(0.01)
        assert not asked.done()
        os.kill(watched.pids[0], signal.SIGKILL)
        good, bad = await asked
        assert good == [None] * 8
        assert refusals(bad) == ["RNM-SIG-0001"] * 8
        await until(lambda: watched._line is None)
        await started(watched)

    with caplog.at_level(logging.WARNING):
        play(scene, watched)
    assert len(watched.pids) == 2
    assert all(map(is_gone, watched.pids))
    assert "ended; threads do it for a while" in caplog.text


def test_a_process_that_does_not_live_is_not_started_again_at_once(watched):
    async def scene():
        await started(watched)
        os.kill(watched.pids[0], signal.SIGKILL)
        await until(lambda: watched._line is None)
        for _ in range(5):
            assert await in_company(watched) == [None] * 8

    play(scene, watched)
    assert len(watched.pids) == 1


@pytest.mark.parametrize("said", [b"\x00", b"\x02", b"\xff", b"\x01" * 30])
def test_a_process_that_talks_nonsense_decides_nothing(said, monkeypatch, watched):
    # b"\x01": it answers what was not asked, too, and is dropped for it before it is asked.
    ours, theirs = socket.socketpair()

    def liar():
        with theirs, theirs.makefile("rb") as claims:
            while signature_worker._read(claims) is not None:
                theirs.sendall(said)

    def spawn():
        threading.Thread(target=liar, daemon=True).start()
        if len(said) > 1:
            theirs.sendall(said)
        return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE), ours

    monkeypatch.setattr(signatures, "_spawn", spawn)

    async def scene():
        while watched._keeping is None:
            assert await in_company(watched) == [None] * 8
        for _ in range(5):
            assert await in_company(watched) == [None] * 8
            assert refusals(await in_company(watched, BAD)) == ["RNM-SIG-0001"] * 8

    play(scene, watched)


def test_a_process_that_says_nothing_is_given_up(watched, monkeypatch):
    # Long enough for a process that is still loading.
    monkeypatch.setattr(signatures, "_SILENCE_S", 2.0)

    async def scene():
        await started(watched)
        stopped = watched.pids[-1]
        os.kill(stopped, signal.SIGSTOP)
        assert await in_company(watched) == [None] * 8
        assert refusals(await in_company(watched, BAD)) == ["RNM-SIG-0001"] * 8
        await until(lambda: is_gone(stopped))

    play(scene, watched)


def test_a_process_that_nobody_asks_may_be_silent(watched):
    async def scene():
        await started(watched)
        # It has answered, so that it was there in time, however slowly it started.
        assert await in_company(watched) == [None] * 8
        for _ in range(5):
            watched._line.look()
            await asyncio.sleep(0.01)
        assert watched._line is not None
        assert await in_company(watched) == [None] * 8

    play(scene, watched)
    assert len(watched.pids) == 1


def test_without_a_process_threads_verify(watched, monkeypatch, caplog):
    def spawn():
        raise OSError(12, "no memory")

    monkeypatch.setattr(signatures, "_spawn", spawn)

    async def scene():
        while "no memory" not in caplog.text:
            assert await in_company(watched) == [None] * 8
        assert refusals(await in_company(watched, BAD)) == ["RNM-SIG-0001"] * 8

    with caplog.at_level(logging.WARNING):
        play(scene, watched)


def test_after_the_close_none_is_started_and_acts_are_verified_all_the_same(watched):
    async def scene():
        await started(watched)
        os.kill(watched.pids[0], signal.SIGSTOP)
        asked = asyncio.ensure_future(in_company(watched))
        await asyncio.sleep(0.01)
        await asyncio.to_thread(watched.close)
        assert await asked == [None] * 8
        assert is_gone(watched.pids[0])
        assert await in_company(watched) == [None] * 8
        assert refusals(await in_company(watched, BAD)) == ["RNM-SIG-0001"] * 8

    play(scene, watched)
    assert len(watched.pids) == 1


def test_one_that_was_being_started_at_the_close_ends(watched):
    async def scene():
        while watched._keeping is None:
            await in_company(watched)
        await asyncio.to_thread(watched.close)
        assert watched._keeping is None

    play(scene, watched)
    assert all(map(is_gone, watched.pids))


def test_who_hangs_up_puts_nobody_elses_answer_out_of_step(watched):
    async def scene():
        await started(watched)
        os.kill(watched.pids[0], signal.SIGSTOP)
        tasks = [asyncio.ensure_future(watched.verify([each])) for each in (*GOOD, *BAD)]
        await asyncio.sleep(0.01)
        for task in tasks[::3]:
            task.cancel()
        os.kill(watched.pids[0], signal.SIGCONT)
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for number, outcome in enumerate(done):
            if number % 3 == 0:
                assert isinstance(outcome, asyncio.CancelledError)
            else:
                assert refusals([outcome]) == [None if number < 8 else "RNM-SIG-0001"]

    play(scene, watched)


def test_the_process_answers_in_order_and_ends_with_its_input():
    ours, theirs = socket.socketpair()
    serving = threading.Thread(target=signature_worker.serve, args=(theirs,))
    serving.start()
    with ours:
        asked = [GOOD[0], BAD[0], claim(""), forged("x"), claim("long" * 20_000)]
        ours.sendall(b"".join(map(signature_worker.encode, asked)))
        answers = b""
        while len(answers) < len(asked):
            answers += ours.recv(16)
        assert answers == b"\x01\x00\x01\x00\x01"
        # The last claim is cut short: it is no claim.
        ours.sendall(signature_worker.encode(GOOD[1])[:-1])
        ours.shutdown(socket.SHUT_WR)
        assert ours.recv(16) == b""
    serving.join(10)
    assert not serving.is_alive()


def test_the_process_ends_when_its_coordinator_is_gone():
    process, ours = signatures._spawn()
    ours.sendall(signature_worker.encode(GOOD[0]))
    assert ours.recv(1) == b"\x01"
    # As the kernel does it, whatever ended the coordinator.
    ours.close()
    assert process.wait(30) == 0
