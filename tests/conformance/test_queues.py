"""Queues as any binding has them: a door that speaks two encodings, and PUSH sockets."""
import json
import subprocess
import time

import pytest
import zmq

from peers import CONTEXT, NUMBERS, ROOT, Broker, Json, Packed, Peer, free_port, program, until

FRAME = {"$frame": 1}


@pytest.fixture
def queue():
    """A name no other test has."""
    return f"queue.{next(NUMBERS)}"


def send(queue, payload=None, **fields):
    message = {"op": "send", "id": f"m{next(NUMBERS)}", "payload": payload, **fields}
    return message if "topic" in fields else {**message, "queue": queue}


def sent(peer, queue, payload=None, **fields):
    reply = peer.ask(send(queue, payload, **fields))
    assert reply["op"] == "sent", reply
    return reply


def consume(peer, queue, credit=1, **fields):
    reply = peer.ask({"op": "consume", "id": "k", "queue": queue, "credit": credit, **fields})
    assert (reply["op"], reply["queue"], reply["credit"]) == ("consumed", queue, credit), reply
    return reply


def taken(peer, seconds=10.0):
    """The next delivery, and its attachments."""
    message, frames = peer.recv(seconds)
    assert message["op"] == "deliver", message
    return message, frames


def ack(peer, *deliveries):
    """Says that they are done, and hears that they are."""
    ids = [delivery["id"] for delivery in deliveries]
    reply = peer.ask({"op": "ack", "id": "a", "ids": ids})
    while reply["op"] == "deliver":
        # There is credit for more.
        reply = peer.reply()
    assert reply == {"op": "acked", "id": "a", "ids": ids}, reply


def builtin(peer, verb, /, **kwargs):
    return peer.call(f"mpreg.queue.{verb}", kwargs=kwargs)


def stats(peer, queue):
    return builtin(peer, "stats", name=queue)["result"]


@pytest.mark.parametrize("other", [Json, Packed], ids=lambda encoding: encoding.name)
@pytest.mark.parametrize(
    "payload", [{"b": 1, "a": [None, True, 1.5]}, "text", 2**60, None], ids=str
)
def test_a_message_goes_from_one_encoding_to_the_other(broker, dealer, queue, other, payload):
    receipt = sent(dealer, queue, payload, headers={"h": 1}, key="k")
    assert (receipt["durability"], receipt["queues"]) == ("fsync", 1)
    with Peer(broker.door, encoding=other) as consumer:
        consume(consumer, queue)
        delivery, frames = taken(consumer)
        assert (delivery["payload"], delivery["headers"], frames) == (payload, {"h": 1}, [])
        assert delivery["message"] == receipt["message"] != delivery["id"]
        assert (delivery["queue"], delivery["attempt"], delivery["key"]) == (queue, 1, "k")
        ack(consumer, delivery)
    assert stats(dealer, queue)["ready"] == stats(dealer, queue)["in_flight"] == 0


def test_bytes_stay_bytes(broker, dealer, queue):
    blob = bytes(range(256))
    dealer.send(send(queue, FRAME), blob)
    assert dealer.reply()["op"] == "sent"
    consume(dealer, queue)
    delivery, frames = taken(dealer)
    assert (delivery["payload"], frames) == (FRAME, [blob])


def test_a_req_sends_and_settles(broker, encoding, queue):
    with Peer(broker.door, zmq.REQ, encoding) as req, Peer(broker.door) as consumer:
        assert sent(req, queue, 1)["durability"] == "fsync"
        consume(consumer, queue)
        delivery, _ = taken(consumer)
        # It is in the hands of another connection.
        reply = req.ask({"op": "ack", "id": "a", "ids": [delivery["id"]]})
        assert (reply["op"], reply["unknown"]) == ("acked", [delivery["id"]])
        assert req.code({"op": "consume", "queue": queue}) == "needs_dealer"
        taken_by_call = req.call("mpreg.queue.next", kwargs={"name": queue, "timeout_ms": 20})
        assert taken_by_call["error"]["code"] == "timeout"
        ack(consumer, delivery)


@pytest.mark.parametrize(
    "message, code",
    [
        ({"op": "send", "id": "1", "queue": "a..b", "payload": 1}, "bad_name"),
        ({"op": "send", "id": "1", "queue": "mpreg.x", "payload": 1}, "reserved_name"),
        ({"op": "send", "id": "1", "payload": 1}, "bad_field"),
        ({"op": "send", "id": "1", "queue": "q", "topic": "t", "payload": 1}, "bad_field"),
        ({"op": "send", "id": "1", "queue": "q"}, "bad_field"),
        ({"op": "send", "id": "1", "topic": "nobody.wants.it", "payload": 1}, "unroutable"),
        ({"op": "send", "id": "1", "queue": "q.p", "payload": 1, "priority": 1}, "bad_field"),
        ({"op": "send", "id": "1", "queue": "q", "payload": 1, "priority": 10}, "bad_field"),
        ({"op": "consume", "queue": "q", "credit": 10**6}, "bad_field"),
        ({"op": "ack", "ids": ["no ulid"]}, "bad_field"),
        ({"op": "ack", "ids": []}, "bad_field"),
        ({"op": "nack", "ids": ["01M82G1KCT1TCHKD0ZDNK6MWJG"], "dead": 1}, "bad_field"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:60],
)
def test_what_is_wrong_is_told(dealer, message, code):
    assert dealer.code(message) == code


@pytest.mark.parametrize(
    "name, kwargs, code, field",
    [
        ("stats", {"name": "nobody"}, "unknown_queue", "queue"),
        ("peek", {"name": "nobody"}, "unknown_queue", "queue"),
        ("next", {"name": "nobody"}, "unknown_queue", "queue"),
        ("delete", {"name": "nobody"}, "unknown_queue", "queue"),
        ("declare", {}, "bad_args", "name"),
        ("declare", {"name": "q", "kind": "lifo"}, "bad_args", "kind"),
        ("declare", {"name": "q", "lease_ms": 0}, "bad_args", "lease_ms"),
        ("declare", {"name": "q", "bind": ["a*b"]}, "bad_pattern", "bind"),
        ("declare", {"name": "mpreg.q"}, "reserved_name", "name"),
        ("peek", {"name": "q", "count": 0}, "bad_args", "count"),
        ("send", {"payload": 1}, "bad_args", "name"),
    ],
)
def test_what_is_wrong_in_a_call_is_told(dealer, name, kwargs, code, field):
    error = builtin(dealer, name, **kwargs)["error"]
    assert (error["code"], error["field"]) == (code, field)


def test_declaring_twice_changes_nothing(dealer, queue):
    settings = {"durability": "memory", "kind": "priority", "max_count": 10, "bind": ["a.#"]}
    first = builtin(dealer, "declare", name=queue, **settings)["result"]
    again = builtin(dealer, "declare", name=queue, **settings)["result"]
    assert (first["created"], again["created"]) == (True, False)
    assert first["settings"] == again["settings"]
    error = builtin(dealer, "declare", name=queue, max_count=11)["error"]
    assert (error["code"], error["field"]) == ("queue_differs", "max_count")
    assert builtin(dealer, "delete", name=queue)["result"] == {"queue": queue, "messages": 0}


def test_messages_wait_for_a_consumer_and_two_share_them(broker, peer, queue):
    for number in range(100):
        sent(peer, queue, number)
    assert stats(peer, queue)["ready"] == 100
    with Peer(broker.door) as one, Peer(broker.door) as two:
        consume(one, queue, credit=10)
        consume(two, queue, credit=10)
        got = {one: [], two: []}
        while sum(map(len, got.values())) < 100:
            for consumer, numbers in got.items():
                if consumer.poll(0.01):
                    delivery, _ = taken(consumer)
                    numbers.append(delivery["payload"])
                    consumer.send({"op": "ack", "ids": [delivery["id"]]})
        assert sorted(got[one] + got[two]) == list(range(100))
        assert min(map(len, got.values())) >= 20, "both have their share"
        assert all(numbers == sorted(numbers) for numbers in got.values()), "in the order sent"


def test_each_group_gets_all(broker, peer, queue):
    with Peer(broker.door) as one, Peer(broker.door) as two:
        consume(one, queue, credit=20, group="one")
        consume(two, queue, credit=20, group="two")
        for number in range(10):
            sent(peer, queue, number)
        for consumer in (one, two):
            assert [taken(consumer)[0]["payload"] for _ in range(10)] == list(range(10))


def test_what_a_dead_consumer_had_goes_to_others_within_a_second(broker, peer, queue):
    for number in range(3):
        sent(peer, queue, number)
    # Killed as a process, so that nothing says good-bye.
    taker = subprocess.Popen(
        [program(), "queue", "take", queue, "--broker", broker.door, "--", "sleep", "60"]
    )
    try:
        until(lambda: stats(peer, queue)["in_flight"] == 3)
        taker.kill()
        begun = time.monotonic()
        consume(peer, queue, credit=3)
        got = [taken(peer)[0] for _ in range(3)]
        assert time.monotonic() - begun < 1.0
        assert [(delivery["payload"], delivery["attempt"]) for delivery in got] == [
            (0, 2),
            (1, 2),
            (2, 2),
        ]
    finally:
        taker.kill()
        taker.wait()


def test_who_never_acks_gets_it_again_until_it_is_a_dead_letter(dealer, queue):
    settings = {"max_attempts": 3, "lease_ms": 30, "backoff_ms": 10}
    builtin(dealer, "declare", name=queue, **settings)
    sent(dealer, queue, "poison")
    consume(dealer, queue)
    begun = time.monotonic()
    assert [taken(dealer)[0]["attempt"] for _ in range(3)] == [1, 2, 3]
    assert time.monotonic() - begun >= 0.08, "leases and backoff take their time"
    dead = until(lambda: builtin(dealer, "peek", name=queue, dead=True)["result"]["messages"])
    assert [(letter["payload"], letter["attempts"], letter["reason"]) for letter in dead] == [
        ("poison", 3, "attempts")
    ]
    consume(dealer, queue, credit=0)
    assert builtin(dealer, "redrive", name=queue)["result"]["messages"] == 1


def test_nack_says_when_and_why(dealer, queue):
    sent(dealer, queue, 1)
    consume(dealer, queue)
    first, _ = taken(dealer)
    begun = time.monotonic()
    dealer.send({"op": "nack", "ids": [first["id"]], "delay_ms": 50})
    second, _ = taken(dealer)
    assert time.monotonic() - begun >= 0.05 and second["attempt"] == 2
    reply = dealer.ask(
        {"op": "nack", "id": "n", "ids": [second["id"]], "dead": True, "reason": "no use"}
    )
    assert reply["ids"] == [second["id"]]
    (dead,) = builtin(dealer, "peek", name=queue, dead=True)["result"]["messages"]
    assert (dead["reason"], dead["note"]) == ("rejected", "no use")


def test_a_push_socket_sends_to_queues_and_topics(broker, dealer, queue):
    builtin(dealer, "declare", name=queue, bind=[f"{queue}.topics.*"])
    consume(dealer, queue, credit=10)
    with CONTEXT.socket(zmq.PUSH) as push:
        push.linger = 0
        push.connect(broker.push)
        push.send_multipart([queue.encode(), b"\xff\x00"])
        delivery, frames = taken(dealer)
        assert (delivery["payload"], frames) == (FRAME, [b"\xff\x00"]) and "topic" not in delivery
        push.send_multipart([f"{queue}.topics.a".encode(), b"[1]", b'{"h":1}'])
        delivery, frames = taken(dealer)
        assert (delivery["topic"], frames) == (f"{queue}.topics.a", [b"[1]"])
        assert delivery["headers"] == {"h": 1}
        counted = lambda: dealer.call("mpreg.status")["result"]["refused"].get("push", {})
        before = counted().get("unroutable", 0)
        push.send_multipart([b"nobody.is.bound", b"1"])
        until(lambda: counted().get("unroutable", 0) == before + 1)


def test_what_is_published_reaches_bound_queues(broker, dealer, queue):
    builtin(dealer, "declare", name=queue, bind=[f"{queue}.*", f"{queue}.a"])
    topic = f"{queue}.a"
    reply = dealer.ask({"op": "publish", "id": "p", "topic": topic, "payload": 1})
    assert reply["op"] == "published"
    receipt = sent(dealer, None, 2, topic=topic)
    assert receipt["queues"] == 1
    consume(dealer, queue, credit=5)
    first, second = taken(dealer)[0], taken(dealer)[0]
    assert [first["payload"], second["payload"]] == [1, 2]
    assert first["message"] == reply["message"] and first["topic"] == topic


@pytest.mark.parametrize("kind", ["fifo", "priority", "delay"])
def test_what_is_sent_outlasts_kill_9(kind):
    broker = Broker(port=free_port())
    try:
        with Peer(broker.door) as peer:
            builtin(peer, "declare", name="jobs", kind=kind, backoff_ms=0)
            priority = (lambda n: {"priority": n % 3}) if kind == "priority" else lambda n: {}
            ids = [sent(peer, "jobs", n, **priority(n))["message"] for n in range(50)]
            consume(peer, "jobs", credit=5)
            held = [taken(peer)[0] for _ in range(5)]
            ack(peer, *held[:2])
        broker.kill()
        begun = time.monotonic()
        broker = Broker(port=broker.port, data=broker.data)
        with Peer(broker.door) as peer:
            told = stats(peer, "jobs")
            assert told["ready"] + told["delayed"] == 48
            assert time.monotonic() - begun < 2.0
            consume(peer, "jobs", credit=100)
            got = [taken(peer)[0] for _ in range(48)]
            done = {delivery["message"] for delivery in held[:2]}
            assert {delivery["message"] for delivery in got} == set(ids) - done
            ack(peer, *got)
        broker.kill()
        broker = Broker(port=broker.port, data=broker.data)
        with Peer(broker.door) as peer:
            told = stats(peer, "jobs")
            assert (told["ready"], told["delayed"], told["dead"]) == (0, 0, 0)
            assert told["settings"]["kind"] == kind
    finally:
        broker.__exit__()


def test_a_shell_command_consumes(broker, peer, queue, tmp_path):
    for text in ("one", "two"):
        sent(peer, queue, text)
    take = [program(), "queue", "take", queue, "--broker", broker.door, "--count", "2"]
    script = f'cat >> {tmp_path}/out; echo >> {tmp_path}/out; test "$MPREG_ATTEMPT" = 1'
    subprocess.run([*take, "--timeout", "10s", "--", "sh", "-c", script], check=True)
    assert (tmp_path / "out").read_text() == '"one"\n"two"\n'
    assert stats(peer, queue)["counters"]["acked"] == 2


def test_zeromq_js_sends_and_consumes(broker, peer, queue):
    if not (ROOT / "node_modules/zeromq").exists():
        pytest.skip("Node is not here")
    script = ROOT / "tests/conformance/node/queues.mjs"
    ran = subprocess.run(
        ["node", script, broker.door, broker.push, queue], capture_output=True, timeout=30
    )
    assert ran.returncode == 0, ran.stderr.decode()
    assert json.loads(ran.stdout) == [0, 1, 2, 3, 4, "pushed"]
    assert stats(peer, queue)["ready"] == stats(peer, queue)["in_flight"] == 0
