"""An agent that was taken becomes a session: its multiplexer, its calls, and its place among the sessions."""

from __future__ import annotations

import structlog

from stub.attachment import Attachment
from stub.session import Session, info_of
from stub.sessions import Sessions
from stub.standing import Standing, renewal_methods
from tunnel.adapter import LinkConnection
from tunnel.calls import Calls
from tunnel.handshake import Hello
from tunnel.stubmux import StubMux

log = structlog.get_logger("kulvert.stub")


def make_session(
    setting: Attachment, hello: Hello, address: str, standing: Standing, epoch: int, via: str = ""
) -> Session:
    """A session of the agent that said `hello`, in this replica's holding `epoch` of its cluster."""
    mux = StubMux(
        epoch=epoch,
        max_exchanges=min(hello.exchanges, setting.limits.exchanges),
        peer_credit=hello.credit,
        clock=setting.clock,
        limits=setting.limits,
        timing=setting.timing,
        on_message=lambda message: session.on_message(message),
        on_bug=_tell_bug,
    )
    links = min(hello.links, setting.max_links)
    info = info_of(hello, address)
    methods = {**setting.methods(info), **renewal_methods(standing)}
    calls = Calls(mux.shared.message, methods, lambda error: _tell_bug(None, error))
    secret = setting.randomness(32)
    name = setting.session_id(setting.randomness)
    session: Session = Session(name, secret, info, mux, calls, standing, links, via)
    return session


def attach(sessions: Sessions, session: Session, connection: LinkConnection) -> None:
    """The connection carries the session's shared link from now on."""
    mux = session.mux

    def detached(_link: object, reason: str) -> None:
        mux.detach(mux.shared, reason)
        session.calls.close(reason)
        sessions.remove(session)
        log.info("agent detached", cluster=session.info.cluster, agent=session.info.agent, reason=reason)

    connection.attach(mux.shared, detached, session.crowded)
    sessions.add(session)
    mux.ping()
    log.info("agent attached", cluster=session.info.cluster, agent=session.info.agent, address=session.info.address)


def _tell_bug(_exchange: object, error: BaseException) -> None:
    log.error("internal error in an exchange", exc_info=error)
