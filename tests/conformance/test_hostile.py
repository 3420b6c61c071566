"""Ten thousand mutated envelopes and random frames: each that should be answered is, by a coded
error where it is wrong, and the broker serves on in the same memory. Where PUB and SUB sockets
connect nothing is answered, so what comes there must only do no harm."""
import json
import os
import random
import subprocess

import msgpack
import pytest
import zmq

from peers import CONTEXT, Broker, Json, Packed, Peer, Pub, Sub, program, topics, until

MESSAGES = int(os.environ.get("MPREG_HOSTILE", "10000"))
SEED = int(os.environ.get("MPREG_SEED", "1"))

STEPS = [
    {"name": "a", "fun": "f", "args": [1, {"$ref": "b", "at": "/x/0"}], "retry": {"times": 2}},
    {"name": "b", "fun": "g", "after": ["c"], "fallback": {"value": {"$lit": 1}}},
    {"name": "c", "fun": "mpreg.status", "timeout_ms": 50, "locs": ["eu"], "version": "^1"},
]
NEXT = {"pattern": "a.*", "where": "payload.x[0] == 1 && topic != 'b'", "timeout_ms": 5}
MODELS = [
    {"op": "ping", "id": "p"},
    {"op": "hello", "id": "h", "batch": True, "name": "n"},
    {"op": "call", "id": "c", "fun": "f", "args": [1, "ä", None], "kwargs": {"k": [1.5]}},
    {"op": "call", "id": "d", "fun": "f", "locs": ["eu"], "version": "^1", "timeout_ms": 9},
    {"op": "call", "id": "e", "fun": "mpreg.graph.check", "kwargs": {"steps": STEPS, "dot": True}},
    {"op": "call", "id": "f", "fun": "mpreg.functions"},
    {"op": "graph", "id": "g", "steps": STEPS, "return": "all", "on_error": "continue"},
    {"op": "graph", "id": "i", "steps": STEPS[1:2], "refs": "names", "return": ["b"]},
    {"op": "offer", "id": "o", "functions": [{"name": "n", "version": "1.0.0"}], "credit": 2},
    {"op": "cancel", "id": "c"},
    {"op": "result", "id": "01M82G1KCT1TCHKD0ZDNK6MWJG", "result": {"x": [1]}},
    {"op": "error", "id": "01M82G1KCT1TCHKD0ZDNK6MWJG", "error": {"code": "c", "message": "m"}},
    {"op": "progress", "id": "01M82G1KCT1TCHKD0ZDNK6MWJG", "percent": 5, "note": "n"},
    {"op": "bye", "id": "b"},
    {"op": "subscribe", "id": "s", "patterns": ["a.*", "#", "b.#.c"], "credit": 9, "replay": "all"},
    {"op": "subscribe", "id": "t", "patterns": ["a.b"], "replay": {"from_seq": 1}},
    {"op": "subscribe", "id": "u", "patterns": ["x.*", "#.y"], "credit": 2},
    {"op": "unsubscribe", "id": "v", "patterns": ["a.*", "#"]},
    {"op": "publish", "id": "w", "topic": "a.b", "payload": {"x": [1, "ä"]}, "headers": {"k": 1}},
    {"op": "publish", "id": "y", "topic": "a.b.c", "payload": None, "confirm": False},
    {"op": "ack", "events": 3},
    {"op": "call", "id": "z", "fun": "mpreg.topic.next", "kwargs": NEXT},
    {"op": "call", "id": "q", "fun": "mpreg.topic.publish", "kwargs": {"topic": "a"}},
    {"op": "call", "id": "r", "fun": "mpreg.topic.history", "kwargs": {"pattern": "a", "last": 2}},
    [{"op": "ping", "id": "1"}, {"op": "call", "id": "2", "fun": "f"}, {"op": "dance"}],
]
# Nothing of these is answered when all is well.
QUIET = ("cancel", "result", "error", "progress", "ack", "confirm", "topic.next")

ANSWERS = (
    *("error", "result", "welcome", "pong", "offered", "bye", "bincode"),
    *("published", "subscribed"),
)
UNASKED = ("run", "progress", "event")


def bincode(rng):
    """A batch of pings and what looks like more."""
    count = rng.randrange(4)
    ops = [b"\0\0\0\0\1" + (1).to_bytes(8, "little") + b"p" for _ in range(count)]
    return b"\x01" + count.to_bytes(8, "little") + b"".join(ops)


def mutate(rng, body):
    body = bytearray(body)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(body) + 1)
        match rng.randrange(7):
            case 0 if body:
                body[at % len(body)] ^= 1 << rng.randrange(8)
            case 1 if body:
                body[at % len(body)] = rng.randrange(256)
            case 2:
                del body[at : at + rng.randrange(1, 9)]
            case 3:
                body[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 4:
                body[at:at] = body[at : at + rng.randrange(1, 40)]
            case 5:
                bits = (b"[", b"{", b'"', b"\\u", b"null", b"-", b"\xdd", b"\xc1")
                body[at:at] = rng.choice(bits)
            case _:
                del body[at:]
    return bytes(body)


def message(rng):
    """Frames as nobody should send them."""
    kind = rng.randrange(10)
    if kind == 0:
        body = rng.randbytes(rng.randrange(200))
    elif kind == 1:
        body = mutate(rng, bincode(rng))
    else:
        pack = rng.choice((Json.pack, Packed.pack))
        body = mutate(rng, pack(rng.choice(MODELS)))
    frames = [rng.randbytes(rng.randrange(50)) for _ in range(rng.choice((0,) * 8 + (1, 3)))]
    return [*([b""] if rng.random() < 0.05 and body else []), body, *frames]


def decoded(body):
    body = body.lstrip(b" \t\r\n")
    try:
        if body[:1] in b"{[":
            return json.loads(body)
        return msgpack.unpackb(body, strict_map_key=False)
    except Exception:
        return None


def read(frames):
    """The items of a reply, whatever its encoding and delimiter."""
    body = next(frame for frame in frames if frame)
    if body[0] == 1:
        return [{"op": "bincode"}]
    items = decoded(body)
    return items if type(items) is list else [items]


def may_be_quiet(frames):
    """Whether a message may go without an answer: an outcome or cancel for what is not there, a
    graph of which more is to come, what waits or is not confirmed, or a batch of such."""
    body = next((frame for frame in frames if frame), b"")
    value = decoded(body)
    items = value if type(value) is list else [value]
    quiet = lambda item: type(item) is dict and (
        item.get("op") in QUIET or item.get("more") is True or item.get("wait") is True
    )
    # Frames that Python reads otherwise (a key twice, a number that is not JSON) are judged by
    # what they hold.
    return any(quiet(item) for item in items) or any(op.encode() in body for op in QUIET)


@pytest.fixture(scope="module")
def codes():
    printed = subprocess.run([program(), "errors", "--output", "json"], capture_output=True)
    return {row["code"] for row in json.loads(printed.stdout)}


def converse(rng, peer, count, codes):
    """Sends so many messages; returns how many were answered by errors."""
    errors = 0
    for number in range(count):
        frames = message(rng)
        mark = f"mark {rng.random()}"
        peer.socket.send_multipart(frames)
        answered = False
        late = False
        peer.socket.send(Json.pack({"op": "ping", "id": mark}))
        while True:
            assert peer.socket.poll(5_000), f"seed {SEED}: no answer after {frames}"
            for item in read(peer.socket.recv_multipart()):
                assert item["op"] in ANSWERS + UNASKED, item
                if item["op"] == "error":
                    told = item["error"]
                    assert told["code"] in codes and told["message"], told
                    errors += 1
                if item == {"op": "pong", "id": mark}:
                    late = True
                elif item["op"] not in UNASKED:
                    answered = True
            # A graph is loaded in slices: its answer may come behind the pong.
            if late and (answered or may_be_quiet(frames)):
                break
    return errors


def test_hostile_messages_are_answered_and_forgotten(codes):
    rng = random.Random(SEED)
    with Broker() as broker:
        sizes, errors = [], 0
        lives = MESSAGES // 100
        for life in range(lives):
            encoding = rng.choice((Json, Packed))
            with Peer(broker.door, encoding=encoding) as peer:
                errors += converse(rng, peer, 100, codes)
            assert broker.process.poll() is None, f"seed {SEED}: it ended in life {life}"
            sizes.append(broker.resident())
        # The first fifth warms its allocator up.
        grown = max(sizes[lives // 5 :]) - sizes[lives // 5]
        print(f"{MESSAGES} messages, {errors} errors, {sizes[-1] >> 10} KiB, {grown >> 10} more")
        assert errors > MESSAGES // 2
        assert grown < 4 << 20, sizes
        with Peer(broker.door) as peer:
            status = peer.call("mpreg.status")["result"]
            assert status["requests"] == 1 and status["graphs_in_flight"] == 0, status
            assert (status["patterns"], status["waiting"]) == (0, 0), status


NAMES = [b"", b"a", b"a.b", b"a..b", b"*", b"#", b"mpreg.x", b"x" * 300, b"a\0b", b"\xff"]


def published(rng):
    """What no PUB should send, and now and then what one may."""
    topic = rng.choice([*NAMES, rng.randbytes(rng.randrange(40))])
    rest = [rng.randbytes(rng.randrange(60)) for _ in range(rng.choice((0, 1, 1, 1, 2, 4, 9)))]
    if len(rest) == 2 and rng.random() < 0.7:
        rest[1] = mutate(rng, rng.choice((Json.pack, Packed.pack))({"k": [1, None], "ä": 1.5}))
    return [topic, *rest]


def subscribed(rng):
    """What an XSUB may send to an XPUB: a begin or an end of anything, or a message of its own."""
    text = rng.choice([*NAMES, b"a.*", b"a.#?headers", b"\0mpreg.error", rng.randbytes(50)])
    first = rng.choice((b"\1", b"\1", b"\1", b"\0", b"\2", b"", b"\1\1"))
    return [first + text, *[rng.randbytes(9) for _ in range(rng.choice((0, 0, 0, 1, 3)))]]


def test_hostile_publishers_and_subscribers_do_no_harm():
    """Beside them a SUB gets what a PUB publishes, all of it and in order."""
    rng = random.Random(SEED)
    with Broker() as broker:
        sizes = []
        with Sub(broker, "good.#") as sub, Pub(broker) as pub, Peer(broker.door) as peer:
            for life in range(20):
                evil = [CONTEXT.socket(kind) for kind in (zmq.PUB, zmq.XSUB, zmq.XSUB)]
                for socket, endpoint in zip(evil, (broker.publish, *[broker.subscribe] * 2)):
                    socket.linger, socket.sndhwm = 0, 0
                    socket.connect(endpoint)
                for number in range(MESSAGES // 100):
                    evil[0].send_multipart(published(rng))
                    evil[1 + number % 2].send_multipart(subscribed(rng))
                    pub.send("good.one", b"%d" % number)
                for number in range(MESSAGES // 100):
                    assert sub.recv() == ("good.#", "good.one", b"%d" % number)
                [socket.close() for socket in evil]
                assert peer.ask({"op": "ping"}) == {"op": "pong"}
                sizes.append(broker.resident())
            until(lambda: [row["pattern"] for row in topics(peer)["top"]] == ["good.#"])
            refused = peer.call("mpreg.status")["result"]["refused"]
        grown = max(sizes[4:]) - sizes[4]
        print(f"{refused}; {sizes[-1] >> 10} KiB, {grown >> 10} more")
        assert {"bad_name", "bad_frame", "reserved_name"} <= set(refused["publish"])
        assert {"bad_pattern", "bad_encoding"} <= set(refused["subscribe"])
        assert grown < 4 << 20, sizes
