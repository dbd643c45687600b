"""Policy files: groups of groups are counted as tlog-policy says, and nothing is passed over."""

import hashlib
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.checkpoint import Checkpoint, TreeHead, sign
from audit.note import Note, NoteSigner, parse
from audit.policy import WitnessPolicy, read_policy
from audit.quorum import MAX_GROUPS, Group, Quorum
from fedproto.errors import LocalFault

ORIGIN = "ledger.example/log"


def seed(text):
    return hashlib.sha256(text.encode()).digest()


LOG = NoteSigner(ORIGIN, seed("log"))
NAMES = ("X1", "X2", "X3", "Y1", "Y2", "Y3")
SIGNERS = {
    # Half of them sign with ML-DSA: a policy mixes both kinds.
    name: NoteSigner(
        f"w.example/{name}", seed(name), cosigner=True, post_quantum=name.startswith("Y")
    )
    for name in NAMES
}
EXAMPLE = f"""# The example of the specification.
log {LOG.vkey} https://log.example/

witness X1 {SIGNERS["X1"].vkey}
  witness\tX2 {SIGNERS["X2"].vkey} https://x2.example/submit
witness X3 {SIGNERS["X3"].vkey}\x20
group X-witnesses 2 X1 X2 X3

witness Y1 {SIGNERS["Y1"].vkey}
witness Y2 {SIGNERS["Y2"].vkey}
witness Y3 {SIGNERS["Y3"].vkey}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
  # and that is enough
quorum X-and-Y
"""
POLICY = WitnessPolicy.from_text(EXAMPLE)
CHECKPOINT = sign(Checkpoint(ORIGIN, TreeHead(1, "ab" * 32)), LOG)


def note_by(names):
    parsed = parse(CHECKPOINT)
    lines = tuple(SIGNERS[name].cosign(parsed.text, 5) for name in names)
    return Note(parsed.text, (*parsed.lines, *lines)).encode()


SUBSETS = [subset for size in range(7) for subset in combinations(NAMES, size)]


@pytest.mark.parametrize("names", SUBSETS, ids="-".join)
def test_the_nested_quorum_is_the_one_of_the_specification(names):
    enough = sum(n.startswith("X") for n in names) >= 2 and any(n.startswith("Y") for n in names)
    if enough:
        assert [c.member for c in POLICY.open(note_by(names)).cosignatures] == list(names)
        return
    with pytest.raises(LocalFault) as caught:
        POLICY.open(note_by(names))
    assert caught.value.code == "RNM-LEDGER-0006"


def test_a_policy_reads_its_own_text_as_itself():
    assert WitnessPolicy.from_text(POLICY.text) == POLICY
    assert POLICY.quorum == 3
    assert POLICY.text.splitlines()[-4:] == [
        "group X-witnesses 2 X1 X2 X3",
        "group Y-witnesses 1 Y1 Y2 Y3",
        "group X-and-Y 2 X-witnesses Y-witnesses",
        "quorum X-and-Y",
    ]


def test_a_policy_may_ask_for_one_witness_or_for_none():
    head = f"log {LOG.vkey}\nwitness X1 {SIGNERS['X1'].vkey}\nwitness X2 {SIGNERS['X2'].vkey}\n"
    one = WitnessPolicy.from_text(head + "quorum X2\n")
    assert one.open(note_by(["X2"])).cosignatures[0].member == "X2"
    with pytest.raises(LocalFault):
        one.open(note_by(["X1"]))
    nobody = WitnessPolicy.from_text(f"log {LOG.vkey}\nquorum none\n")
    assert nobody.open(CHECKPOINT).cosignatures == ()
    assert WitnessPolicy.from_text(nobody.text) == nobody


X1 = f"witness X1 {SIGNERS['X1'].vkey}\n"
X2 = f"witness X2 {SIGNERS['X2'].vkey}\n"
HEAD = f"log {LOG.vkey}\n{X1}"
ALIAS = NoteSigner("other.example/w1", seed("X1"), cosigner=True).vkey
BAD = {
    "no log": f"{X1}quorum X1\n",
    "two logs": f"{HEAD}log {NoteSigner('b', bytes(32)).vkey}\nquorum X1\n",
    "no quorum": HEAD,
    "two quorums": f"{HEAD}quorum X1\nquorum X1\n",
    "an unknown word": f"{HEAD}threshold 3\nquorum X1\n",
    "a word in capitals": f"{HEAD}Quorum X1\n",
    "a cut last line": f"{HEAD}quorum X1",
    "CRLF": f"{HEAD}quorum X1\n".replace("\n", "\r\n"),
    "another space": f"{HEAD}quorum\u00a0X1\n",
    "a zero byte": f"{HEAD}quorum X1\x00\n",
    "a witness that is not there": f"{HEAD}quorum X2\n",
    "a group used before it": f"{HEAD}group a any b\ngroup b any X1\nquorum a\n",
    "a witness used before it": f"{HEAD}group a any X1 X2\n{X2}quorum a\n",
    "a quorum before its group": f"{HEAD}quorum a\ngroup a any X1\n",
    "a group in itself": f"{HEAD}group a any a\nquorum a\n",
    "a member twice": f"{HEAD}group a 2 X1 X1\nquorum a\n",
    "a witness in two groups": f"{HEAD}{X2}group a any X1\ngroup b 2 a X1\nquorum b\n",
    "a name twice": f"{HEAD}group X1 any X1\nquorum X1\n",
    "a witness named as a group": f"{HEAD}group X2 any X1\n{X2}quorum X2\n",
    "two witnesses of a name": f"{HEAD}witness X1 {SIGNERS['X2'].vkey}\nquorum X1\n",
    "one key under two names": f"{HEAD}witness X2 {ALIAS}\nquorum X1\n",
    "the log as a witness": f"{HEAD}witness L {NoteSigner('l', seed('log'), cosigner=True).vkey}\nquorum L\n",
    "a log key as a witness": f"{HEAD}witness L {NoteSigner('l', seed('l')).vkey}\nquorum L\n",
    "a witness key as the log": f"log {SIGNERS['X2'].vkey}\n{X1}quorum X1\n",
    "none as a member": f"{HEAD}group a any none\nquorum a\n",
    "none as a witness": f"{HEAD}witness none {SIGNERS['X2'].vkey}\nquorum X1\n",
    "none as a group": f"{HEAD}group none any X1\nquorum none\n",
    "an empty group": f"{HEAD}group a any\nquorum a\n",
    "a threshold of zero": f"{HEAD}group a 0 X1\nquorum a\n",
    "a threshold above the members": f"{HEAD}group a 2 X1\nquorum a\n",
    "a threshold with a zero before it": f"{HEAD}group a 01 X1\nquorum a\n",
    "a threshold with a sign": f"{HEAD}group a +1 X1\nquorum a\n",
    "a threshold in other digits": f"{HEAD}group a ١ X1\nquorum a\n",
    "a wrong key id": f"{HEAD}quorum X1\n".replace(f"+{LOG.verifier.key_id.hex()}+", "+00000000+"),
    "words after a URL": f"{HEAD}witness X2 {SIGNERS['X2'].vkey} https://a b\nquorum X1\n",
    "too long": f"{HEAD}#{'x' * 262_144}\nquorum X1\n",
    "empty": "",
}


@pytest.mark.parametrize("name", BAD)
def test_a_policy_that_is_not_understood_is_refused(name):
    with pytest.raises(LocalFault) as caught:
        read_policy(BAD[name].encode())
    assert caught.value.code == "RNM-CONF-0001"


def test_a_refusal_names_its_line():
    with pytest.raises(LocalFault) as caught:
        read_policy(BAD["a threshold of zero"].encode())
    assert caught.value.why.startswith("line 3: ")
    with pytest.raises(LocalFault) as caught:
        read_policy(EXAMPLE.encode() + b"\xff\n")
    assert "UTF-8" in caught.value.why


def test_a_policy_is_bounded():
    witnesses = [
        f"witness w{i} {NoteSigner(f'w{i}', seed(f'w{i}'), cosigner=True).vkey}\n"
        for i in range(65)
    ]
    head = f"log {LOG.vkey}\n"
    assert len(WitnessPolicy.from_text(head + "".join(witnesses[:64]) + "quorum w0\n").text)
    with pytest.raises(ValueError, match="64 witnesses"):
        WitnessPolicy.from_text(head + "".join(witnesses) + "quorum w0\n")
    chain = [Group(name="g0", threshold=1, members=("w",))]
    chain += [
        Group(name=f"g{i}", threshold=1, members=(f"g{i - 1}",)) for i in range(1, MAX_GROUPS)
    ]
    assert Quorum(witnesses=("w",), groups=tuple(chain), top="g63").is_met({"w"})
    with pytest.raises(ValueError, match="64 groups"):
        Quorum(
            witnesses=("w",),
            groups=(*chain, Group(name="x", threshold=1, members=("g63",))),
            top="x",
        )


@st.composite
def quorums(draw):
    """A random tree of groups over seven witnesses."""
    free = [f"w{i}" for i in range(7)]
    groups = []
    for number in range(draw(st.integers(1, 4))):
        count = draw(st.integers(1, len(free)))
        members, free = free[:count], free[count:]
        threshold = draw(st.integers(1, count))
        groups.append(Group(name=f"g{number}", threshold=threshold, members=tuple(members)))
        free = draw(st.permutations([*free, f"g{number}"]))
    return Quorum(
        witnesses=tuple(f"w{i}" for i in range(7)), groups=tuple(groups), top=groups[-1].name
    )


def oracle(rule, name, cosigned):
    group = next((group for group in rule.groups if group.name == name), None)
    if group is None:
        return name in cosigned
    return sum(oracle(rule, member, cosigned) for member in group.members) >= group.threshold


@given(quorums(), st.sets(st.sampled_from([f"w{i}" for i in range(7)])))
def test_a_tree_of_groups_is_counted_as_a_recursive_oracle_counts_it(rule, cosigned):
    assert rule.is_met(cosigned) == oracle(rule, rule.top, cosigned)
    if len(cosigned) < rule.size:
        assert not rule.is_met(cosigned)
    assert not rule.is_met(set())
    assert rule.is_met(set(rule.witnesses))


@given(quorums())
def test_the_size_of_a_quorum_is_that_of_its_smallest_set(rule):
    smallest = min(
        size
        for size in range(8)
        for chosen in combinations(rule.witnesses, size)
        if oracle(rule, rule.top, set(chosen))
    )
    assert rule.size == smallest


def test_a_stranger_in_the_tally_counts_nowhere():
    rule = Quorum(
        witnesses=("a", "b"), groups=(Group(name="g", threshold=2, members=("a", "b")),), top="g"
    )
    assert not rule.is_met({"a", "c"})
    # Nor does somebody who calls himself a group.
    assert not rule.is_met({"g"})


@pytest.mark.parametrize(
    ("groups", "top", "why"),
    [
        ((), "b", "not defined"),
        ((Group(name="g", threshold=1, members=("b",)),), "g", "not defined"),
        ((Group(name="a", threshold=1, members=("a",)),), "a", "given twice"),
        ((Group(name="none", threshold=1, members=("a",)),), "none", "given twice"),
    ],
)
def test_a_quorum_over_names_that_are_not_there_is_none(groups, top, why):
    with pytest.raises(ValueError, match=why):
        Quorum(witnesses=("a",), groups=groups, top=top)


def test_a_witness_is_not_called_none():
    with pytest.raises(ValueError, match="none"):
        Quorum(witnesses=("none",), top="none")
