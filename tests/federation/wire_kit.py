"""One attempt over gRPC on loopback: the real runner and lobby, and a real session for each member."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import grpc
from secagg_members import NAMES, Members, signing_key

from federation import exchange
from federation.exchange import ExchangeService, Hub
from federation.journal import RunJournal
from federation.rounds.attempt import AttemptRunner
from federation.rounds.spool import Spool
from federation.serving import Server
from fedproto.errors import FederationError
from fedproto.secagg.keying_messages import EncryptedShares
from fedproto.secagg.messages import decode, encode
from fedproto.v1.exchange_pb2 import MemberFrame
from member_node.egress import EgressJournal
from member_node.gate import gated
from member_node.session import ExchangeSession, TrainedDelta

PATIENCE_S = 30.0


class Wire:
    """Plays one attempt; `outcomes` has each member's result or error, and `total` the sum."""

    def __init__(
        self,
        root,
        *,
        timeout_s=10.0,
        barred=frozenset(),
        members=None,
        resume_s=5.0,
        between=None,
        least_groups=1,
        session_s=PATIENCE_S,
        options=((), ()),
    ):
        """Prepare; `between(name, port)` may put something on the line and return its port."""
        self.root = root
        self.session_s = session_s
        # gRPC's, of the coordinator and of a member.
        self.options = options
        self.between = between or (lambda _, port: port)
        self.members = members or Members()
        self.hub = Hub(resume_s)
        self.lobby = self.hub.open(self.members.authorisation.ctx, self.members.names)
        self.journal = RunJournal()
        self.frames = {name: [] for name in self.members.names}
        self.patience_s = resume_s
        self.spool = Spool(root / "spool")
        self.runner = AttemptRunner(
            authorisation=self.members.authorisation,
            roster=self.members.roster,
            cohort=3,
            phase_timeout_s=timeout_s,
            lobby=self.lobby,
            journal=self.journal,
            stopping=lambda: False,
            spool=self.spool,
            barred=barred,
            least_groups=least_groups,
            key=signing_key("coordinator"),
        )
        for name, half in self.members.halves.items():
            half.advertise = partial(self.members.advertised.get, name)
        self.outcomes, self.error, self.total = {}, None, None
        self.receipts, self.findings, self.opened = {}, {}, {}

    def play(self, after=lambda wire: None):
        """Run members and coordinator to the end; `after` does what follows the sum."""
        names = self.members.names
        with ThreadPoolExecutor(len(names)) as pool:
            playing = {name: pool.submit(self._member, name) for name in names}
            try:
                self.totals = self.runner.run()
                self.total = self.totals[0]
                after(self)
            except FederationError as error:
                self.error = error
                for name in names:
                    self.lobby.dismiss(name, error)
            finally:
                self.lobby.close()
            for name, future in playing.items():
                self.outcomes[name] = future.exception(self.session_s) or future.result()
        self.spool.close()
        return self

    def words(self, state):
        return [event for event in self.journal._events if event.state == state]

    def _member(self, name):
        server, port = self._serve(name)
        (self.root / name).mkdir()
        journal = EgressJournal(self.root / name, lambda: 1)
        trained = Future()
        trained.set_result(TrainedDelta(delta=self.members.delta(name), weight=1.0))
        to = f"127.0.0.1:{self.between(name, port)}"
        try:
            plain = grpc.local_channel_credentials()
            with grpc.secure_channel(to, plain, self.options[1]) as channel:
                return self.session(name, gated(channel, journal, to), trained).run()
        finally:
            server.stop()

    def session(self, name, channel, trained):
        return ExchangeSession(
            channel=channel,
            authorisation=self.members.authorisation,
            half=self.members.halves[name],
            trained=trained,
            rounding_seed=bytes(32),
            me=name,
            sign_audit=lambda finding: self.findings.setdefault(name, finding),
            note_opened=lambda survivors: self.opened.setdefault(name, survivors),
            sign_receipt=lambda upload: self.receipts.setdefault(name, upload),
            timeout_s=self.session_s,
            patience_s=self.patience_s,
        )

    def _serve(self, name):
        # Who calls is told by the port: certificates have tests of their own.
        service = ExchangeService(self.hub)

        def session(requests, call):
            return service.Session(self._kept(name, requests), call)

        server = Server(lambda *_: name, self.options[0])
        handler = grpc.stream_stream_rpc_method_handler(
            session, MemberFrame.FromString, exchange.write
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("fedproto.v1.Exchange", {"Session": handler}),)
        )
        port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
        server.start()
        return server, port

    def _kept(self, name, requests):
        for frame in requests:
            self.frames[name].append(frame)
            yield frame


def deals_badly(members, dealer, holder, **changes):
    """Let a dealer sign for one holder an entry that cannot be used."""
    half = members.halves[dealer]
    honest = half.share_keys

    def share_keys(key_list):
        message = decode(EncryptedShares, honest(key_list), peer=dealer)
        entries = list(message.entries)
        place = NAMES.index(holder)
        entries[place] = replace(entries[place], **changes)
        digests = tuple(entry.digest for entry in entries)
        header = replace(message.header, entry_digests=digests).signed_by(signing_key(dealer))
        half._seen.sent = header
        return encode(EncryptedShares(header=header, entries=tuple(entries)))

    half.share_keys = share_keys
