"""A chaincode on the project's shim that does one of everything, for tests. It is a program too."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import cast

from tokenmesh_chaincode.shim import ChaincodeError, Response, Stub, key_policy, serve


def put(stub: Stub) -> None:
    key, value = stub.parameters
    stub.put_state(key.decode(), value)


def get(stub: Stub) -> bytes | None:
    return stub.get_state(stub.parameters[0].decode())


def delete(stub: Stub) -> None:
    stub.del_state(stub.parameters[0].decode())


def work(stub: Stub) -> bytes:
    """Three reads and three writes on keys of its own."""
    keys = [f"{stub.parameters[0].decode()}-{number}" for number in range(3)]
    found = stub.get_states(keys)
    for key, value in zip(keys, found, strict=True):
        stub.put_state(key, b"%d" % (int(value or b"0") + 1))
    return stub.parameters[0]


def put_many(stub: Stub) -> None:
    """So many keys of so many bytes."""
    prefix, count, size = stub.parameters
    for number in range(int(count)):
        stub.put_state(f"{prefix.decode()}{number:05}", bytes([65 + number % 26]) * int(size))


def get_many(stub: Stub) -> bytes:
    """How long each value is, -1 where there is none."""
    values = stub.get_states([key.decode() for key in stub.parameters])
    return _json([-1 if value is None else len(value) for value in values])


def own_writes(stub: Stub) -> bytes | None:
    stub.put_state("own", b"written")
    return stub.get_state("own")


def facts(stub: Stub) -> bytes:
    """What an invocation can know of itself."""
    identity = stub.identity
    return _json(
        {
            "args": [argument.decode() for argument in stub.args],
            "tx_id": stub.tx_id,
            "channel": stub.channel_id,
            "timestamp": stub.timestamp,
            "transient": {name: value.decode() for name, value in stub.transient.items()},
            "mspid": identity.mspid,
            "attributes": dict(identity.attributes),
            "units": identity.units,
            "subject": identity.certificate.subject.rfc4514_string(),
            "binding": stub.binding,
        }
    )


def ranged(stub: Stub) -> bytes:
    start, end = (bound.decode() for bound in stub.parameters)
    return _json([[item.key, item.value.decode()[:20]] for item in stub.get_state_by_range(start, end)])


def first_of_range(stub: Stub) -> bytes:
    """The first key only; the query is closed long before its end, and the stub is used after it."""
    with stub.get_state_by_range(*(bound.decode() for bound in stub.parameters)) as found:
        first = next(found)
    return stub.get_state(first.key) or b""


def paged(stub: Stub) -> bytes:
    start, end, size, bookmark = (argument.decode() for argument in stub.parameters)
    page = stub.get_state_by_range_with_pagination(start, end, int(size), bookmark)
    return _json([[item.key for item in page.items], page.bookmark])


def put_composite(stub: Stub) -> None:
    object_type, *attributes = (argument.decode() for argument in stub.parameters)
    stub.put_state(stub.create_composite_key(object_type, attributes), b"\x00")


def by_composite(stub: Stub) -> bytes:
    object_type, *attributes = (argument.decode() for argument in stub.parameters)
    found = stub.get_state_by_partial_composite_key(object_type, attributes)
    return _json([stub.split_composite_key(item.key) for item in found])


def history(stub: Stub) -> bytes:
    changes = stub.get_history_for_key(stub.parameters[0].decode())
    return _json([[c.tx_id, c.value.decode(), c.timestamp, c.is_delete] for c in changes])


def put_private(stub: Stub) -> None:
    collection, key = (argument.decode() for argument in stub.parameters)
    stub.put_private_data(collection, key, stub.transient["value"])


def get_private(stub: Stub) -> bytes | None:
    return stub.get_private_data(*(argument.decode() for argument in stub.parameters))


def get_private_many(stub: Stub) -> bytes:
    collection, *keys = (argument.decode() for argument in stub.parameters)
    values = stub.get_private_datas(collection, keys)
    return _json([value.decode() if value is not None else None for value in values])


def private_range(stub: Stub) -> bytes:
    found = stub.get_private_data_by_range(*(argument.decode() for argument in stub.parameters))
    return _json([[item.key, item.value.decode()] for item in found])


def private_hash(stub: Stub) -> bytes | None:
    return stub.get_private_data_hash(*(argument.decode() for argument in stub.parameters))


def del_private(stub: Stub) -> None:
    stub.del_private_data(*(argument.decode() for argument in stub.parameters))


def purge_private(stub: Stub) -> None:
    stub.purge_private_data(*(argument.decode() for argument in stub.parameters))


def set_policy(stub: Stub) -> None:
    key, *organisations = (argument.decode() for argument in stub.parameters)
    stub.put_state(key, b"guarded")
    stub.set_state_validation_parameter(key, key_policy(organisations))


def get_policy(stub: Stub) -> bytes | None:
    return stub.get_state_validation_parameter(stub.parameters[0].decode())


def set_private_policy(stub: Stub) -> None:
    collection, key, *organisations = (argument.decode() for argument in stub.parameters)
    stub.put_private_data(collection, key, b"guarded")
    stub.set_private_data_validation_parameter(collection, key, key_policy(organisations))


def get_private_policy(stub: Stub) -> bytes | None:
    collection, key = (argument.decode() for argument in stub.parameters)
    return stub.get_private_data_validation_parameter(collection, key)


def call(stub: Stub) -> Response:
    """Another chaincode, its answer handed on."""
    name, channel, *arguments = stub.parameters
    return stub.invoke_chaincode(name.decode(), arguments, channel.decode())


def emit(stub: Stub) -> None:
    name, payload = stub.parameters
    stub.set_event(name.decode(), payload)


def large(stub: Stub) -> bytes:
    return bytes(int(stub.parameters[0]))


def length(stub: Stub) -> bytes:
    return b"%d" % len(stub.parameters[0])


def refuse(stub: Stub) -> bytes:
    stub.put_state("refused", b"never written")
    raise ChaincodeError("not today", status=403)


def fail(stub: Stub) -> bytes:
    raise KeyError(stub.transient["secret"].decode())


def leave(stub: Stub) -> bytes:
    sys.exit("gone")


def answer_nonsense(stub: Stub) -> object:
    return 5


FUNCTIONS: dict[str, Callable[[Stub], object]] = {
    function.__name__: function
    for function in (
        put, get, delete, work, put_many, get_many, own_writes, facts, ranged, first_of_range, paged,
        put_composite, by_composite, history, put_private, get_private, get_private_many, private_range,
        private_hash, del_private, purge_private, set_policy, get_policy, set_private_policy,
        get_private_policy, call, emit, large, length, refuse, fail, leave, answer_nonsense,
    )
}  # fmt: skip


def chaincode(stub: Stub) -> bytes | Response | None:
    function = FUNCTIONS.get(stub.function)
    if function is None:
        raise ChaincodeError(f"no function {stub.function}")
    return cast("bytes | Response | None", function(stub))  # one of them answers with something else


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


if __name__ == "__main__":
    serve(chaincode)
