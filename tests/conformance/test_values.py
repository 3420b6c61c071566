"""Values cross unchanged, byte for byte within one encoding and in meaning between the two."""
import json

import msgpack
import pytest

from peers import Json, Packed, Peer

EXACT = [
    "1180591620717411303424",
    "-1180591620717411303424",
    "0.30000000000000004",
    "1e308",
    "1E+5",
    "-0.0",
    "1.10",
    "123456789012345678901234567890.123456789012345678901234567890",
    '{"b":1,"a":2,"b":3}',
    '{"z":{"y":[],"x":{}}}',
    '"\\u00e4\\/\\ud834\\udd1e"',
    '"ä€𝄞"',
    '"\\ud800"',
    "[ 1 ,\t2\n]",
    "null",
    "true",
    '""',
]


@pytest.mark.parametrize("text", EXACT)
def test_json_is_carried_byte_for_byte(broker, text):
    with Peer(broker.door) as worker, Peer(broker.door) as caller:
        worker.ask({"op": "offer", "functions": [{"name": "exact"}]})
        body = '{"op":"call","id":"1","fun":"exact","args":[%s],"kwargs":{"k":%s}}' % (text, text)
        caller.send(body.encode())
        run = worker.raw()[0].decode()
        assert '"args":[%s]' % text in run and '"kwargs":{"k":%s}' % text in run
        id = json.loads(run)["id"]
        worker.send(('{"op":"result","id":"%s","result":%s}' % (id, text)).encode())
        assert caller.raw()[0].decode() == '{"op":"result","id":"1","result":%s}' % text


@pytest.mark.parametrize(
    "value",
    [
        b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
        b"\xd1\x00\x05",
        b"\xca\x3f\x80\x00\x00",
        b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x01",
        b"\xcb\x3f\xd3\x33\x33\x33\x33\x33\x34",
        b"\xd4\x05\x01",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\xc4\x02\x00\xff",
        b"\x82\xa1b\x01\xa1a\x02",
        b"\x82\xa1a\x01\xa1a\x02",
        b"\x81\x01\x02",
        b"\xdd\x00\x00\x00\x01\xc0",
        b"\xd9\x01x",
    ],
    ids=lambda value: value.hex(),
)
def test_msgpack_is_carried_byte_for_byte(broker, value):
    with Peer(broker.door, encoding=Packed) as worker, Peer(broker.door) as caller:
        worker.ask({"op": "offer", "functions": [{"name": "packed"}]})
        call = b"\x84\xa2op\xa4call\xa2id\xa11\xa3fun\xa6packed\xa4args\x91"
        caller.send(call + value)
        run = worker.raw()[0]
        at = run.index(b"\xa4args\x91") + 6
        assert run[at : at + len(value)] == value
        at = run.index(b"\xa2id\xba") + 4
        worker.send(b"\x83\xa2op\xa6result\xa2id\xba" + run[at : at + 26] + b"\xa6result" + value)
        reply = caller.raw()[0]
        assert reply == b"\x83\xa2op\xa6result\xa2id\xa11\xa6result" + value


def test_a_string_of_almost_4_mib(broker, encoding):
    """A whole envelope, less the names and ids around the value."""
    text = "ä€x" * (((4 << 20) - 300) // 6)
    with (
        Peer(broker.door, encoding=encoding) as worker,
        Peer(broker.door, encoding=encoding) as peer,
    ):
        worker.ask({"op": "offer", "functions": [{"name": "long"}]})
        peer.send({"op": "call", "id": "1", "fun": "long", "args": [text]})
        run = worker.reply()
        assert run["args"] == [text]
        worker.send({"op": "result", "id": run["id"], "result": text})
        assert peer.reply()["result"] == text


SHARED = [
    None,
    True,
    0,
    -1,
    2**63,
    2**64 - 1,
    -(2**63),
    0.1 + 0.2,
    1e308,
    5e-324,
    -0.0,
    1.0,
    "",
    "ä€𝄞\x00\x1f\"\\/",
    [],
    {},
    [[[]], {"a": [{}]}],
    {"b": 1, "a": 2, "": 3},
]


@pytest.mark.parametrize("there, back", [(Json, Packed), (Packed, Json)], ids=["to", "from"])
@pytest.mark.parametrize("value", SHARED, ids=repr)
def test_what_both_encodings_have_crosses(broker, workers, there, back, value):
    seen = []

    def echo(run, _):
        seen.append(run["args"][0])
        return run["args"][0]

    workers({"cross": echo}, back)
    with Peer(broker.door, encoding=there) as caller:
        result = caller.call("cross", value)["result"]
    for crossed in (seen[0], result):
        assert repr(crossed) == repr(value), "digits, signs, types and order of keys"


@pytest.mark.parametrize(
    "text, path",
    [
        ("[1180591620717411303424]", "/0"),
        ('[{"a":[0,1e999]}]', "/0/a/1"),
        ('[{"a/b":{"m~n":-1e400}}]', "/0/a~1b/m~0n"),
        ('["\\ud800"]', "/0"),
    ],
)
def test_json_that_msgpack_cannot_hold_names_the_path(broker, workers, text, path):
    workers({"packed": lambda run, _: 1}, Packed)
    with Peer(broker.door) as caller:
        body = '{"op":"call","id":"1","fun":"packed","args":%s}' % text
        error = caller.ask(body.encode())["error"]
        assert error["code"] == "unencodable_value" and path in error["message"], error


@pytest.mark.parametrize(
    "value, path",
    [
        (float("nan"), ""),
        ([float("inf")], "/0"),
        ({"k": [msgpack.ExtType(5, b"x")]}, "/k/0"),
        ({1: 2}, ""),
    ],
    ids=repr,
)
def test_msgpack_that_json_cannot_hold_names_the_path(broker, workers, value, path):
    """The caller hears of it in both directions; of a result, after the call has run."""
    workers({"plain": lambda run, _: 1}, Json)
    workers({"packed": lambda run, _: value}, Packed)
    with Peer(broker.door, encoding=Packed) as packed, Peer(broker.door) as plain:
        for error in (packed.call("plain", value)["error"], plain.call("packed")["error"]):
            assert error["code"] == "unencodable_value" and path in error["message"], error


def test_a_graph_joins_values_of_both_encodings(broker, workers):
    workers({"plain": lambda run, _: {"from": "json", "saw": run["args"]}}, Json)
    workers({"packed": lambda run, _: {"from": "msgpack", "saw": run["args"]}}, Packed)
    steps = [
        {"name": "a", "fun": "plain", "args": [1]},
        {"name": "b", "fun": "packed", "args": [{"$ref": "a"}, 2.5]},
        {"name": "c", "fun": "plain", "args": [{"$ref": "b", "at": "/saw/0/from"}, {"$ref": "b"}]},
    ]
    for encoding in (Json, Packed):
        with Peer(broker.door, encoding=encoding) as caller:
            reply = caller.ask({"op": "graph", "id": "g", "steps": steps})
            first = {"from": "json", "saw": [1]}
            second = {"from": "msgpack", "saw": [first, 2.5]}
            assert reply["results"] == {"c": {"from": "json", "saw": ["json", second]}}


def test_depth_is_bounded(asker, workers):
    workers({"deep": lambda run, _: 1})

    def nested(depth):
        value = 0
        for _ in range(depth):
            value = [value]
        return value

    assert asker.call("deep", nested(120))["result"] == 1
    assert asker.call("deep", nested(127))["error"]["code"] == "too_deep"
