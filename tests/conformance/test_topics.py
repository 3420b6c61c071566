"""Topics as any binding has them: PUB and SUB sockets, and a door that speaks two encodings."""
import json

import pytest
import zmq

from peers import NUMBERS, Json, Packed, Peer, Pub, Sub, row, topics, until

FRAME = {"$frame": 1}


def publish(topic, payload=None, **fields):
    number = f"p{next(NUMBERS)}"
    return {"op": "publish", "id": number, "topic": topic, "payload": payload, **fields}


def subscribe(peer, *patterns, **fields):
    """Holds patterns, and returns what the broker says to it."""
    reply = peer.ask({"op": "subscribe", "id": "s", "patterns": list(patterns), **fields})
    assert (reply["op"], reply["id"]) == ("subscribed", "s"), reply
    return reply


def event(peer):
    """The next event: where it was published, what, and its attachments."""
    message, frames = peer.recv()
    assert message["op"] == "event", message
    return message["topic"], message["payload"], frames


@pytest.fixture
def pub(broker):
    with Pub(broker) as pub:
        yield pub


@pytest.mark.parametrize(
    "sent, stored",
    [
        ('{"a": 1}', '{"a":1}'),
        ('{"b":1,\n"a" : [ 2 , 3 ] }', '{"b":1,"a":[2,3]}'),
        ('{"a":1,"a":2}', '{"a":1,"a":2}'),
        ("1180591620717411303424", "1180591620717411303424"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("1e308", "1e308"),
        ("-0.0", "-0.0"),
        ('"two words"', '"two words"'),
        ('"\\u00e4 \\ud800"', '"\\u00e4 \\ud800"'),
        ("null", "null"),
        ("true", "true"),
    ],
)
def test_a_value_is_heard_as_compact_json(broker, peer, pub, sent, stored):
    """By SUB sockets as text, at the door as the same value; digits and keys as they came."""
    with Sub(broker, "text.json") as sub, Peer(broker.door) as other:
        subscribe(other, "text.json")
        body = '{"op":"publish","id":"1","topic":"text.json","payload":%s,"headers":{"h": %s}}'
        peer.send((body % (sent, sent)).encode())
        assert peer.reply()["op"] == "published"
        assert sub.recv() == ("text.json", "text.json", stored.encode())
        (told,) = other.raw()
        assert '"payload":%s,"headers":{"h":%s}' % (stored, stored) in told.decode()


@pytest.mark.parametrize(
    "value, stored",
    [
        ({"b": 1, "a": [2.0, None]}, b'{"b":1,"a":[2.0,null]}'),
        (2**64 - 1, b"18446744073709551615"),
        (0.1 + 0.2, b"0.30000000000000004"),
        ("\u00e4\n", '"\u00e4\\n"'.encode()),
    ],
)
def test_messagepack_is_heard_as_json(broker, peer, value, stored):
    with Sub(broker, "text.packed") as sub, Peer(broker.door, encoding=Packed) as packed:
        subscribe(peer, "text.packed")
        subscribe(packed, "text.*")
        packed.send(publish("text.packed", value, headers={"v": value}))
        assert sub.recv() == ("text.packed", "text.packed", stored)
        for hearer in (peer, packed):
            message = hearer.reply()
            crossed = message["payload"], message["headers"]
            assert repr(crossed) == repr((value, {"v": value}))


@pytest.mark.parametrize("data", [b"", b"\x00\xff", b'{"a": 1}', b"x" * 1_000_000], ids=len)
def test_bytes_are_heard_as_they_came(broker, dealer, pub, data):
    """From a PUB and from an attachment; at the door they are one in either encoding."""
    with Sub(broker, "bytes.#") as sub, Peer(broker.door, encoding=Packed) as packed:
        subscribe(packed, "bytes.#")
        subscribe(dealer, "bytes.#")
        pub.send("bytes.pub", data)
        assert sub.recv() == ("bytes.#", "bytes.pub", data)
        assert event(packed) == event(dealer) == ("bytes.pub", FRAME, [data])
        with Peer(broker.door) as peer:
            peer.send(publish("bytes.door", FRAME), data)
            assert peer.reply()["op"] == "published"
        assert sub.recv() == ("bytes.#", "bytes.door", data)
        assert event(packed) == event(dealer) == ("bytes.door", FRAME, [data])


def test_what_messagepack_cannot_hold_is_told_where_it_was_wanted(broker, peer):
    with Peer(broker.door, encoding=Packed) as packed:
        subscribe(packed, "wide.*")
        peer.send(b'{"op":"publish","id":"1","topic":"wide.x","payload":[%d]}' % 2**70)
        assert peer.reply()["op"] == "published"
        error = packed.reply()["error"]
        assert (error["code"], error["op"]) == ("unencodable_value", "event")
        assert row(peer, "wide.*")["dropped"] == 1


def test_headers_are_asked_for_by_the_text(broker, dealer, pub):
    """By `?headers` behind it: those of the publisher, and `seq`, which counts the pattern."""
    with Sub(broker, "head.*?headers") as sub, Sub(broker, "head.*") as plain:
        pub.send("head.pub", b"1", b'{"k": [1.50]}')
        pub.send("head.pub", b"2", b"\x81\xa1k\x02")
        pub.send("head.pub", b"3")
        for payload, headers in [
            (b"1", b'{"k":[1.50],"seq":1}'),
            (b"2", b'{"k":2,"seq":2}'),
            (b"3", b'{"seq":3}'),
        ]:
            assert sub.recv()[2:] == (payload, headers)
            assert plain.recv()[2:] == (payload,)
        # Of two publishers' events no order is promised, so the other one's come now.
        dealer.send(publish("head.door", 4, headers={"k": "v", "n": 1}))
        dealer.send(publish("head.door", 5, headers={}))
        for payload, headers in [(b"4", b'{"k":"v","n":1,"seq":4}'), (b"5", b'{"seq":5}')]:
            assert sub.recv()[2:] == (payload, headers)
            assert plain.recv()[2:] == (payload,)


def test_two_patterns_are_two_events_of_one_message(dealer):
    subscribe(dealer, "twice.*", "twice.#", "other.*")
    reply = dealer.ask({**publish("twice.x", 1), "confirm": False})
    both = [reply, dealer.reply()]
    assert {told["pattern"] for told in both} == {"twice.*", "twice.#"}
    assert both[0]["message"] == both[1]["message"] and len(both[0]["message"]) == 26
    assert dealer.silent()


def test_published_names_the_message_that_is_heard(broker, asker):
    with Peer(broker.door) as peer:
        subscribe(peer, "named.x")
        reply = asker.ask({"op": "publish", "id": "n", "topic": "named.x", "payload": 1})
        message = peer.reply()["message"]
    assert reply == {"op": "published", "id": "n", "message": message, "durability": "memory"}


def test_credit_is_a_window_that_acks_open(broker, dealer):
    """What comes while it is shut is lost, and counted: the sequence has a gap."""
    assert subscribe(dealer, "window.*", credit=2)["credit"] == 2
    with Peer(broker.door) as peer:
        for number in range(1, 6):
            assert peer.ask(publish("window.x", number))["op"] == "published"
        assert [dealer.reply()["seq"] for _ in range(2)] == [1, 2]
        assert dealer.silent(), "the window is shut"
        assert row(peer, "window.*")["dropped"] == 3
        dealer.send({"op": "ack", "events": 1})
        assert dealer.silent()
        peer.ask(publish("window.x", 6))
        assert dealer.reply()["seq"] == 6
        assert subscribe(dealer, credit=0)["credit"] == 0
        dealer.send({"op": "ack", "events": 9})
        peer.ask(publish("window.x", 7))
        assert dealer.silent(), "no credit at all"


def test_an_unsubscribed_pattern_is_heard_no_more(dealer):
    assert subscribe(dealer, "gone.a", "gone.b")["patterns"] == 2
    assert subscribe(dealer, "gone.b")["patterns"] == 2, "held once"
    told = dealer.ask({"op": "unsubscribe", "id": "u", "patterns": ["gone.b", "never.held"]})
    assert (told["op"], told["id"], told["patterns"]) == ("subscribed", "u", 1)
    assert dealer.ask(publish("gone.b", 1))["op"] == "published" and dealer.silent()
    assert dealer.ask(publish("gone.a", 1))["op"] == "event"


def test_a_sub_hears_nothing_of_what_it_gave_up(broker, pub):
    with Sub(broker, "left.a", "left.b", "left.b") as sub, Peer(broker.door) as peer:
        sub.socket.unsubscribe("left.a")
        until(lambda: not row(peer, "left.a"))
        # It subscribed twice to this one, so it holds it after one end.
        sub.socket.unsubscribe("left.b")
        for topic in ("left.a", "left.b"):
            pub.send(topic, b"")
        assert sub.recv() == ("left.b", "left.b", b"")
        sub.socket.unsubscribe("left.b")
        until(lambda: not row(peer, "left.b"))


def test_a_text_is_a_pattern_never_a_prefix(broker, pub):
    with Sub(broker, "pre", "pre.fix", "pre.f") as sub:
        for topic in ("prefix", "pre.fixed", "pre.fi", "pre.f", "pre"):
            pub.send(topic, b"")
        assert [sub.recv()[:2] for _ in range(2)] == [("pre.f", "pre.f"), ("pre", "pre")]


@pytest.mark.parametrize(
    "text, code",
    [
        ("bad..words", "bad_pattern"),
        ("bad.w*rd", "bad_pattern"),
        (".bad", "bad_pattern"),
        ("bad\n", "bad_pattern"),
        ("bad?header", None),
        (b"bad\xff", "bad_encoding"),
        ("bad." + "x" * 252, "bad_pattern"),
        ("bad\x7f", "bad_pattern"),
    ],
)
def test_an_invalid_text_is_told_so(broker, pub, text, code):
    """By one message that passes the SUB's own filter; nobody else gets it."""
    with Sub(broker, "bad.#") as other, Sub(broker, text) as sub:
        if code is None:
            pub.send("bad?header", b"as good a topic as any")
            return_text, topic, _ = sub.recv()
            assert (return_text, topic) == (text, text)
        else:
            first, payload = sub.socket.recv_multipart()
            raw = text.encode() if type(text) is str else text
            assert first == raw + b"\0mpreg.error"
            assert json.loads(payload)["code"] == code
        assert not sub.socket.poll(10) and not other.socket.poll(0)


REFUSED = {
    "no id": ({"op": "publish", "topic": "a", "payload": 1}, "bad_field", "id"),
    "no topic": ({"op": "publish", "id": "1", "payload": 1}, "bad_field", "topic"),
    "no payload": ({"op": "publish", "id": "1", "topic": "a"}, "bad_field", "payload"),
    "reserved": (publish("mpreg.x", 1), "reserved_name", "topic"),
    "reserved root": (publish("mpreg", 1), "reserved_name", "topic"),
    "empty topic": (publish("", 1), "bad_name", "topic"),
    "empty word": (publish("a..b", 1), "bad_name", "topic"),
    "long topic": (publish("x" * 256, 1), "bad_name", "topic"),
    "control": (publish("a\x00b", 1), "bad_name", "topic"),
    "headers": (publish("a", 1, headers=[1]), "bad_field", "headers"),
    "deep frame": (publish("a", [FRAME]), "bad_frame", None),
    "pattern": (
        {"op": "subscribe", "id": "1", "patterns": ["ok.x", "ok.y", "a*b"]},
        "bad_pattern",
        "patterns/2",
    ),
    "no text": ({"op": "subscribe", "id": "1", "patterns": ["ok.x", 7]}, "bad_field", "patterns"),
    "no array": ({"op": "subscribe", "id": "1", "patterns": "ok"}, "bad_field", "patterns"),
    "no patterns": ({"op": "subscribe", "id": "1"}, "bad_field", "patterns"),
    "credit": ({"op": "subscribe", "id": "1", "credit": 65_537}, "bad_field", "credit"),
    "no replay": (
        {"op": "subscribe", "id": "1", "patterns": ["ok.x"], "replay": "some"},
        "bad_field",
        "replay",
    ),
    "two replays": (
        {"op": "subscribe", "id": "1", "patterns": [], "replay": {"from_seq": 1, "last": 1}},
        "bad_field",
        "replay",
    ),
    "not kept": (
        {"op": "subscribe", "id": "1", "patterns": ["ok.x"], "replay": "all"},
        "not_retained",
        "patterns/0",
    ),
    "unsubscribe": ({"op": "unsubscribe", "id": "1"}, "bad_field", "patterns"),
    "no events": ({"op": "ack"}, "bad_field", "ids"),
    "0 events": ({"op": "ack", "events": 0}, "bad_field", "events"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_by_code_and_field(dealer, name):
    message, code, field = REFUSED[name]
    frames = [b"x"] if code == "bad_frame" else []
    reply = dealer.ask(message, *frames)
    error = reply["error"]
    assert (error["code"], error.get("field"), error["op"]) == (code, field, message["op"]), error
    assert reply.get("id") == message.get("id")
    assert dealer.silent()


CALLS = {
    "where": ("next", {"pattern": "a", "where": "payload."}, "bad_expression", "where"),
    "loop": ("next", {"pattern": "a", "where": "[1].all(x, x > 0)"}, "bad_expression", "where"),
    "count": ("next", {"pattern": "a", "count": 0}, "bad_args", "count"),
    "pattern": ("next", {"pattern": "a..b"}, "bad_pattern", "pattern"),
    "no pattern": ("next", {}, "bad_args", "pattern"),
    "in vain": ("next", {"pattern": "vain", "timeout_ms": 20}, "timeout", None),
    "history": ("history", {"pattern": "a"}, "not_retained", None),
    "reserved": ("publish", {"topic": "mpreg.x", "payload": 1}, "reserved_name", "topic"),
    "topic": ("publish", {"topic": "a b\n", "payload": 1}, "bad_name", "topic"),
    "unknown": ("publish", {"topic": "a", "body": 1}, "bad_args", "body"),
}


@pytest.mark.parametrize("name", CALLS)
def test_so_are_the_calls_of_built_ins(asker, name):
    fun, kwargs, code, field = CALLS[name]
    error = asker.call(f"mpreg.topic.{fun}", args=[], kwargs=kwargs)["error"]
    assert (error["code"], error.get("field")) == (code, field), error


@pytest.mark.parametrize(
    "message",
    [
        {"op": "subscribe", "id": "r", "patterns": ["req.*"]},
        {"op": "unsubscribe", "id": "r", "patterns": ["req.*"]},
        {"op": "ack", "events": 1},
        publish("req.x", 1, confirm=False),
    ],
    ids=lambda message: message["op"],
)
def test_a_req_publishes_and_may_do_no_more(broker, encoding, message):
    with Peer(broker.door, zmq.REQ, encoding) as req:
        assert req.code(message) == "needs_dealer"
        assert req.ask(publish("req.x", 1))["op"] == "published"
        assert [told["op"] for told in batch(req, publish("req.x", 1), message)] == [
            "published",
            "error",
        ]
        assert not row(req, "req.*")


def batch(req, *messages):
    """The outcomes of messages that are sent as one."""
    req.send(list(messages))
    (body,) = req.raw()
    return req.encoding.unpack(body)


def test_the_next_event_and_one_that_is_published_by_a_call(broker, asker):
    with Peer(broker.door) as other:
        kwargs = {"pattern": "next.*", "where": "payload.n > 1 && headers.k == 'v'"}
        asker.send({"op": "call", "id": "n", "fun": "mpreg.topic.next", "kwargs": kwargs})
        until(lambda: row(other, "next.*"))
        for n in (1, 2):
            event = {"topic": "next.x", "payload": {"n": n}, "headers": {"k": "v"}}
            told = other.call("mpreg.topic.publish", args=[], kwargs=event)["result"]
        result = asker.reply()["result"]
        assert told == {"message": result["message"], "durability": "memory"}
        assert {key: result[key] for key in event} == event and result["seq"] == 2
        assert not row(other, "next.*")


PUBLISHED = {
    "alone": ([b"alone"], "bad_frame"),
    "too many": ([b"t", b"p", b"{}", b"x", b"y"], "bad_frame"),
    "no topic": ([b"", b"p"], "bad_name"),
    "nul": ([b"a\0b", b"p"], "bad_name"),
    "long": ([b"x" * 300, b"p"], "bad_name"),
    "no text": ([b"\xff", b"p"], "bad_name"),
    "reserved": ([b"mpreg.error", b"p"], "reserved_name"),
    "headers": ([b"t", b"p", b"[]"], "bad_field"),
    "broken headers": ([b"t", b"p", b"{"], "bad_encoding"),
    "large": ([b"t", b"p" * ((16 << 20) + 1)], "too_large"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_a_pub_is_refused_is_counted_and_told(broker, peer, pub, name):
    frames, code = PUBLISHED[name]

    def refused():
        counts = peer.call("mpreg.status")["result"]["refused"]
        return counts.get("publish", {}).get(code, 0)

    before = refused()
    with Sub(broker, "mpreg.refused.*") as sub:
        pub.socket.send_multipart(frames)
        _, topic, payload = sub.recv()
    told = json.loads(payload)
    assert (topic, told["endpoint"], told["code"]) == ("mpreg.refused.publish", "publish", code)
    assert refused() == before + 1


def test_what_is_told_of_topics(broker, peer, pub):
    with Sub(broker, "told.*", "told.*?headers") as sub:
        subscribe(peer, "told.*", "told.#")
        pub.send("told.x", b"")
        sub.recv(), sub.recv(), peer.recv(), peer.recv()
        told = row(peer, "told.*")
        assert told == {
            "pattern": "told.*",
            "events": 1,
            "dropped": 0,
            "peers": 1,
            "sockets": 2,
            "waiting": 0,
            "kept": False,
        }
        everything = topics(peer)
        assert everything["counters"]["published"] > 0 and everything["patterns"] >= 2
