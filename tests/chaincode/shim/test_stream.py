"""The chaincode's side of the protocol, against a peer that says what a test tells it to say."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest
from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2

from support.scripted_peer import Message, ScriptedPeer, scripted_peer
from support.shim_chaincode import chaincode
from tokenmesh_chaincode.shim import Options, PeerError, Response, Server, StreamEnded, Stub


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(chaincode, Options("label:hash"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def peer(server: Server) -> Iterator[ScriptedPeer]:
    with scripted_peer(server.address) as peer:
        peer.welcome()
        yield peer


def test_it_registers_under_the_packages_id(server: Server) -> None:
    """The first message of all."""
    with scripted_peer(server.address) as peer:
        message = peer.asked()
        assert message.type == Message.REGISTER
        assert chaincode_pb2.ChaincodeID.FromString(message.payload).name == "label:hash"


def test_reads_go_in_one_message_and_so_do_writes(peer: ScriptedPeer) -> None:
    """Three reads and three writes: one question, one batch, and the end only after the batch was taken."""
    peer.invoke("tx", "work", "k")
    question = peer.asked()
    assert question.type == Message.GET_STATE_MULTIPLE
    assert (question.txid, question.channel_id) == ("tx", "mesh")
    peer.answer(
        question, chaincode_shim_pb2.GetStateMultipleResult(values=[b"1", b"", b"7"]).SerializeToString()
    )
    batch = peer.asked()
    assert batch.type == Message.WRITE_BATCH_STATE
    records = chaincode_shim_pb2.WriteBatchState.FromString(batch.payload).rec
    assert [(record.key, record.value) for record in records] == [("k-0", b"2"), ("k-1", b"1"), ("k-2", b"8")]
    peer.answer(batch)
    assert (peer.completed().status, peer.call.is_active()) == (200, True)


def test_a_peer_that_offers_nothing_is_asked_one_by_one(server: Server) -> None:
    """Fabric 2.5 says nothing in its READY."""
    with scripted_peer(server.address) as peer:
        peer.welcome(None)
        peer.invoke("tx", "work", "k")
        for expected in [Message.GET_STATE] * 3 + [Message.PUT_STATE] * 3:
            question = peer.asked()
            assert question.type == expected
            peer.answer(question)
        assert peer.completed().payload == b"k"


def test_what_the_peer_refuses_to_write_fails_the_transaction(peer: ScriptedPeer) -> None:
    """The batch is sent when the chaincode has returned; its refusal is the answer all the same."""
    peer.invoke("tx", "put", "key", "value")
    peer.answer(peer.asked(), b"no write after a query", Message.ERROR)
    response = peer.completed()
    assert (response.status, response.message) == (500, "no write after a query")


def test_an_error_of_the_peer_is_not_taken_for_a_value(peer: ScriptedPeer) -> None:
    peer.invoke("tx", "get", "key")
    peer.answer(peer.asked(), b"the database is gone", Message.ERROR)
    response = peer.completed()
    assert (response.status, response.payload, response.message) == (500, b"", "the database is gone")


def test_many_invocations_are_open_at_once_and_answered_in_any_order(peer: ScriptedPeer) -> None:
    """Twenty that wait for the peer; answered backwards, each gets its own."""
    questions = {}
    for number in range(20):
        peer.invoke(f"tx{number}", "get", f"key{number}")
    for _ in range(20):
        question = peer.asked()
        questions[question.txid] = question
    for tx_id, question in reversed(questions.items()):
        peer.answer(question, tx_id.encode())
        assert peer.completed().payload == tx_id.encode()


def test_a_keep_alive_is_answered(peer: ScriptedPeer) -> None:
    peer.say(Message.KEEPALIVE)
    assert peer.asked().type == Message.KEEPALIVE


def test_one_invocation_more_than_may_wait_is_refused_at_once() -> None:
    """One runs, one waits, the third is told to try again; the first two are answered."""
    running, go_on = threading.Semaphore(0), threading.Event()

    def slow(stub: Stub) -> bytes:
        running.release()
        go_on.wait(30)
        return stub.tx_id.encode()

    server = Server(slow, Options("label:hash", concurrency_max=1, waiting_max=1))
    server.start()
    try:
        with scripted_peer(server.address) as peer:
            peer.welcome()
            for tx_id in ("first", "second", "third"):
                peer.invoke(tx_id)
            assert "busy" in peer.completed().message
            assert running.acquire(timeout=30)
            go_on.set()
            assert [peer.completed().payload for _ in range(2)] == [b"first", b"second"]
    finally:
        go_on.set()
        server.stop()


def test_a_peer_that_does_not_answer_is_given_up() -> None:
    """After the limit the invocation fails; an answer that comes late is nobody else's."""
    server = Server(chaincode, Options("label:hash", answer_wait_s_max=0.05))
    server.start()
    try:
        with scripted_peer(server.address) as peer:
            peer.welcome()
            peer.invoke("tx", "get", "key")
            question = peer.asked()
            assert "has not answered within 0.05 s" in peer.completed().message
            peer.answer(question, b"late")
            peer.invoke("other", "length", "four")
            assert peer.completed().payload == b"4"
    finally:
        server.stop()


def test_who_waits_for_a_peer_that_hangs_up_is_told() -> None:
    """The chaincode sees it as an error of its own, and its thread is free again."""
    seen: list[BaseException] = []
    over = threading.Event()

    def reads(stub: Stub) -> bytes:
        try:
            stub.get_state("key")
        except PeerError as error:
            seen.append(error)
            over.set()
        return b""

    server = Server(reads, Options("label:hash"))
    server.start()
    try:
        with scripted_peer(server.address) as peer:
            peer.welcome()
            peer.invoke("tx")
            peer.asked()
        assert over.wait(30)
        assert isinstance(seen[0], StreamEnded)
    finally:
        server.stop()


@pytest.mark.parametrize(
    "answer",
    [Response(status="200"), Response(payload="text"), Response(message="\ud800")],  # type: ignore[arg-type]
)
def test_an_answer_that_cannot_be_sent_is_an_error(answer: Response) -> None:
    """Whatever a chaincode returns, the peer gets a response."""
    server = Server(lambda stub: answer, Options("label:hash"))
    server.start()
    try:
        with scripted_peer(server.address) as peer:
            peer.welcome()
            peer.invoke("tx")
            assert peer.completed().status == 500
    finally:
        server.stop()


def test_a_server_that_stops_lets_end_what_runs_and_hangs_up() -> None:
    """What runs is answered; the stream then ends with a status that says why."""
    running, go_on = threading.Event(), threading.Event()

    def slow(stub: Stub) -> bytes:
        running.set()
        go_on.wait(30)
        return b"done"

    server = Server(slow, Options("label:hash", stop_grace_s=30))
    server.start()
    with scripted_peer(server.address) as peer:
        peer.welcome()
        peer.invoke("tx")
        assert running.wait(30)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        go_on.set()
        assert peer.completed().payload == b"done"
        with pytest.raises(grpc.RpcError) as ended:
            peer.asked()
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
        stopping.join(30)
    assert not stopping.is_alive()


def test_a_message_that_is_none_ends_the_connection_and_no_more(server: Server) -> None:
    """Bytes that are no message: their connection is ended by HTTP/2's rules, others go on."""
    with grpc.insecure_channel(server.address) as channel:
        stream = channel.stream_stream("/protos.Chaincode/Connect")(iter([b"\xff\xff\xff"]), timeout=60)
        with pytest.raises(grpc.RpcError):
            list(stream)
    with scripted_peer(server.address) as peer:
        peer.welcome()
        peer.invoke("tx", "length", b"12345")
        assert peer.completed().payload == b"5"
