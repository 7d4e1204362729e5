"""The chaincode's side of one peer's stream: it registers, runs what the peer asks for, and answers always.

Knows no transport: messages come in by :meth:`Stream.receive` and go out by ``send``, which any thread may
call and which puts one message behind the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from fabric_protos.peer import chaincode_pb2, proposal_response_pb2
from google.protobuf.message import DecodeError

from .conversation import Abilities, Conversation, Message
from .errors import STATUS_ERROR, BadMessage, ChaincodeError, PeerError
from .options import Options
from .response import Response
from .stub import Stub
from .workers import Workers

Chaincode = Callable[[Stub], bytes | Response | None]
"""Bytes are the payload of a success, None is an empty one. Any exception is an error with its message."""

MESSAGE_CHARACTERS_MAX = 10_000
"""So much of an exception's message is passed on."""

log = logging.getLogger("tokenmesh.chaincode")


class Stream:
    """One peer's connection."""

    def __init__(
        self, chaincode: Chaincode, options: Options, workers: Workers, send: Callable[[bytes], None]
    ) -> None:
        self._chaincode = chaincode
        self._id = options.chaincode_id
        self._workers = workers
        self._send = send
        self._open: dict[tuple[str, str], Conversation] = {}
        self._ended = False
        self._abilities = Abilities(
            message_bytes_max=options.message_bytes_max, answer_wait_s_max=options.answer_wait_s_max
        )

    def begin(self) -> None:
        """Say which chaincode this is: the first message of all."""
        name = chaincode_pb2.ChaincodeID(name=self._id)
        self._send(Message(type=Message.REGISTER, payload=name.SerializeToString()).SerializeToString())

    def receive(self, data: bytes) -> None:
        """A message of the peer. Raises :class:`BadMessage` for what is none."""
        try:
            self._receive(Message.FromString(data))
        except DecodeError as error:
            raise BadMessage(f"a message that cannot be read: {error}") from error

    def _receive(self, message: Any) -> None:
        kind = message.type
        if kind in (Message.RESPONSE, Message.ERROR):
            self._answered(message)
        elif kind in (Message.TRANSACTION, Message.INIT):
            self._invoked(message)
        elif kind == Message.KEEPALIVE:
            self._send(Message(type=Message.KEEPALIVE).SerializeToString())
        elif kind == Message.READY:
            offered = chaincode_pb2.ChaincodeAdditionalParams.FromString(message.payload)
            if offered.use_get_multiple_keys:
                self._abilities.keys_max = offered.max_size_get_multiple_keys
            if offered.use_write_batch:
                self._abilities.writes_max = offered.max_size_write_batch
        elif kind != Message.REGISTERED:
            log.warning("a peer sent a message of type %s, which this shim does not know", kind)

    def end(self) -> None:
        """The stream is gone: who waits for an answer gets none, and what waits to run is not run."""
        self._ended = True
        for talk in list(self._open.values()):
            talk.answer(None)

    def _invoked(self, message: Any) -> None:
        talk = Conversation(message.txid, message.channel_id, self._abilities, self._send)
        self._open[message.channel_id, message.txid] = talk
        if not self._workers.submit(partial(self._run, talk, message)):
            known = {"tx_id": message.txid}
            log.warning(
                "transaction %s on %s refused: too many wait", message.txid, message.channel_id, extra=known
            )
            self._refuse(talk, ChaincodeError("the chaincode is busy or ends: try again"))

    def _answered(self, message: Any) -> None:
        talk = self._open.get((message.channel_id, message.txid))
        if talk is None:
            log.debug("an answer to transaction %s came late", message.txid, extra={"tx_id": message.txid})
        elif talk.closing is None:
            talk.answer(message)
        elif message.type == Message.ERROR:
            self._refuse(talk, PeerError(message.payload.decode(errors="replace")))
        else:
            self._finish(talk, talk.closing)

    def _run(self, talk: Conversation, message: Any) -> None:
        if self._ended:
            return
        try:
            stub = Stub(talk, message.payload, message.proposal, self._workers)
            response = _response(self._chaincode(stub))
            last = _completed(talk, response, stub.event)
            writes = talk.finish()
            if writes is None or response.refused:
                self._finish(talk, last)
            else:
                talk.closing = last  # sent once the peer says that it has the writes
                talk.tell(writes)
        except BaseException as error:  # whatever it is: the peer waits for an answer
            talk.finish()
            self._refuse(talk, error)

    def _refuse(self, talk: Conversation, error: BaseException) -> None:
        self._finish(talk, _completed(talk, _refusal(talk, error)))

    def _finish(self, talk: Conversation, last: bytes) -> None:
        self._open.pop((talk.channel_id, talk.tx_id), None)
        self._send(last)


def _completed(talk: Conversation, response: Response, event: Any = None) -> bytes:
    answer = proposal_response_pb2.Response(
        status=response.status, message=response.message, payload=response.payload
    )
    message = Message(
        type=Message.COMPLETED,
        payload=answer.SerializeToString(),
        txid=talk.tx_id,
        channel_id=talk.channel_id,
        chaincode_event=None if response.refused else event,
    )
    data = bytes(message.SerializeToString())
    talk.check(data)
    return data


def _response(answer: object) -> Response:
    if isinstance(answer, Response):
        return answer
    if answer is None:
        return Response()
    if isinstance(answer, bytes):
        return Response(answer)
    raise TypeError(f"a chaincode answers with bytes, a Response or None, not with {type(answer).__name__}")


def _refusal(talk: Conversation, error: BaseException) -> Response:
    """What the client is told. What is logged says where it happened, and nothing that was passed."""
    if isinstance(error, ChaincodeError):
        known = {"tx_id": talk.tx_id}
        log.debug("transaction %s on %s refused", talk.tx_id, talk.channel_id, extra=known)
        return Response(status=error.status, message=_message(error))
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "?"
    kind = type(error).__name__
    log.warning(
        "transaction %s on %s failed: %s at %s",
        *(talk.tx_id, talk.channel_id, kind, where),
        extra={"tx_id": talk.tx_id},
    )
    return Response(status=STATUS_ERROR, message=_message(error) or kind)


def _message(error: BaseException) -> str:
    """What an exception says, in a form and length that can be sent."""
    return str(error)[:MESSAGE_CHARACTERS_MAX].encode(errors="replace").decode()
