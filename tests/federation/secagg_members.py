"""Four members' halves of secure aggregation in memory, for an attempt that a test plays by hand."""

import hashlib
from dataclasses import replace

import numpy as np

from fedproto.authorisation import (
    SUITE,
    WORD_BITS,
    Authorisation,
    open_authorisation,
    recovery_threshold,
    seal_authorisation,
)
from fedproto.identity import SigningKey
from fedproto.ids import sha256_hex
from fedproto.secagg.keying_messages import EncryptedShares
from fedproto.secagg.messages import decode, encode
from member_node.secagg_client import SecAggClient

NAMES = ("honda", "nec", "softbank", "sony")
PARAMETERS = 300
DIGEST = sha256_hex(b"anything")


def signing_key(name):
    return SigningKey(hashlib.sha512(name.encode()).digest())


def entropy_of(label):
    """Return bytes that look random and repeat from run to run."""
    count = iter(range(1 << 30))
    return lambda size: hashlib.shake_256(f"{label}/{next(count)}".encode()).digest(size)


def authorise(parameters=PARAMETERS, names=NAMES, **changes):
    fields = {
        "v": 1,
        "suite": SUITE,
        "consortium": "test",
        "charter": DIGEST,
        "mandate": DIGEST,
        "prev": DIGEST,
        "run": "cd" * 16,
        "round": 1,
        "attempt": 1,
        "members": names,
        "recovery_threshold": recovery_threshold(len(names), changes.get("tolerated", 1)),
        "tolerated": 1,
        "parameters": parameters,
        "layout_sha256": DIGEST,
        "plan_sha256": DIGEST,
        "model_in": DIGEST,
        "word_bits": WORD_BITS,
        "bits": 22,
        "clip_milli": 4000,
        "not_after": 2_000_000_000_000,
        "nonce": DIGEST,
    }
    content = Authorisation(**{**fields, **changes})
    key = signing_key("coordinator")
    resolve = {key.verify_key.key_id: key.verify_key}.get
    return open_authorisation(seal_authorisation(content, key), resolve)


class Members:
    """The four, or others, each with its keys advertised."""

    def __init__(self, parameters=PARAMETERS, names=NAMES, **changes):
        self.names = names
        self.authorisation = authorise(parameters, names, **changes)
        self.roster = {name: signing_key(name).verify_key for name in names}
        self.halves = {
            name: SecAggClient(
                authorisation=self.authorisation,
                member=name,
                key=signing_key(name),
                roster=self.roster,
                entropy=entropy_of(name),
            )
            for name in names
        }
        self.advertised = {name: half.advertise() for name, half in self.halves.items()}

    def delta(self, name):
        rng = np.random.default_rng(self.names.index(name))
        parameters = self.authorisation.content.parameters
        return (rng.standard_normal(parameters) * (1.7 / parameters**0.5)).astype(np.float32)

    def mask(self, name, share_list):
        """Return the header and the chunks of a member's upload."""
        upload = self.halves[name].mask(share_list, self.delta(name), 1.0, bytes(32))
        return upload.header, list(upload.chunks)

    def lie_about_self_seed(self, name):
        """Let a member commit, under its own signature, to another self seed than it deals."""
        half = self.halves[name]
        honest = half.share_keys

        def share_keys(key_list):
            message = decode(EncryptedShares, honest(key_list), peer=name)
            header = replace(message.header, self_seed_commitment=bytes(32))
            header = header.signed_by(signing_key(name))
            half._seen.sent = header
            return encode(replace(message, header=header))

        half.share_keys = share_keys
