"""Routes as any binding has them: what is sent and published goes where the table says."""
import threading

import pytest
import zmq

from peers import CONTEXT, NUMBERS, Broker, Peer, Pub, until

STRATEGIES = ["fanout", "round_robin", "priority", "least_loaded", "random"]


@pytest.fixture
def name():
    """A name no other test has."""
    return f"route.{next(NUMBERS)}"


def route(peer, verb, /, **kwargs):
    return peer.call(f"mpreg.route.{verb}", kwargs=kwargs)


def added(peer, name, **kwargs):
    reply = route(peer, "add", name=name, **kwargs)
    assert reply["op"] == "result", reply
    return reply["result"]


def listed(peer, name):
    rows = route(peer, "list")["result"]["routes"]
    return next((row for row in rows if row["route"] == name), None)


def send(topic, payload, **fields):
    return {"op": "send", "id": f"m{next(NUMBERS)}", "topic": topic, "payload": payload, **fields}


def consume(peer, *queues, credit=1000):
    for queue in queues:
        peer.send({"op": "consume", "queue": queue, "credit": credit})


def taken(peer, count):
    """So many deliveries, by their queues."""
    found = {}
    while count > 0:
        message, _ = peer.recv()
        if message["op"] == "consumed":
            continue
        assert message["op"] == "deliver", message
        found.setdefault(message["queue"], []).append(message)
        count -= 1
    return found


def one(peer):
    """The next delivery."""
    [[message]] = taken(peer, 1).values()
    return message


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_reaches_its_queues(broker, dealer, name, strategy):
    queues = [f"{name}.a", f"{name}.b"]
    added(dealer, name, bind=[f"{name}.#"], to=queues, strategy=strategy)
    with Peer(broker.door) as consumer:
        receipts = [dealer.ask(send(f"{name}.t", number)) for number in range(20)]
        each = 2 if strategy == "fanout" else 1
        assert {(receipt["op"], receipt["queues"]) for receipt in receipts} == {("sent", each)}
        consume(consumer, *queues)
        got = taken(consumer, 20 * each)
    counts = [len(got.get(queue, [])) for queue in queues]
    wanted = {"fanout": [20, 20], "priority": [20, 0]}.get(strategy, [10, 10])
    assert counts == wanted or strategy == "random"
    assert listed(dealer, name)["counters"]["sent"] == 20 * each


def test_every_kind_of_sender_goes_through_routes(broker, dealer, name):
    queue, topic = f"{name}.q", f"{name}.t"
    changes = {"payload": "{'twice': payload.n * 2}", "headers": {"from": "topic"}}
    added(dealer, name, bind=[topic], to=[queue], when="payload.n > 0", set=changes)
    with Peer(broker.door) as consumer, Pub(broker) as pub, CONTEXT.socket(zmq.PUSH) as push:
        consume(consumer, queue)
        push.linger = 0
        push.connect(broker.push)
        senders = [
            lambda n: dealer.ask(send(topic, {"n": n})),
            lambda n: dealer.ask(
                {"op": "publish", "id": f"p{n}", "topic": topic, "payload": {"n": n}}
            ),
            lambda n: push.send_multipart([topic.encode(), b'{"n":%d}' % n]),
            lambda n: pub.send(topic, b'{"n":%d}' % n),
        ]
        for number, sender in enumerate(senders, 1):
            sender(-number)
            sender(number)
            message = one(consumer)
            assert message["payload"] == {"twice": number * 2}
            assert (message["topic"], message["headers"]) == (topic, {"from": topic})
        assert consumer.silent()


def test_what_is_wrong_is_told(dealer, name):
    fields = {"bind": [name], "to": [f"{name}.q"]}
    code = lambda verb, **kwargs: route(dealer, verb, name=name, **kwargs)["error"]["code"]
    assert code("add", **fields, when="payload.") == "bad_expression"
    assert code("add", **{**fields, "bind": ["a..b"]}) == "bad_pattern"
    assert code("add", **fields, if_version=9) == "route_changed"
    assert code("remove") == "unknown_route"
    assert listed(dealer, name) is None
    version = added(dealer, name, **fields, set={"priority": "payload"})["version"]
    assert code("remove", if_version=version + 1) == "route_changed"
    assert dealer.code(send(name, 1)) == "bad_field"
    assert dealer.code(send(name, "high")) == "route_failed"
    assert listed(dealer, name)["counters"]["failed"] == 2
    assert route(dealer, "remove", name=name, if_version=version)["op"] == "result"
    assert dealer.code(send(name, 1)) == "unroutable"


def test_a_queue_that_is_deleted_is_passed_over(peer, name):
    queue = f"{name}.q"
    added(peer, name, bind=[name], to=[queue])
    assert peer.call("mpreg.queue.delete", kwargs={"name": queue})["op"] == "result"
    assert peer.code(send(name, 1)) == "unroutable"
    peer.call("mpreg.queue.declare", kwargs={"name": queue})
    assert peer.ask(send(name, 1))["op"] == "sent"
    assert listed(peer, name)["counters"]["missing"] == 1


def test_without_auto_create_a_queue_has_to_be_there(name, tmp_path):
    config = tmp_path / "mpreg.toml"
    config.write_text("[queues]\nauto_create = false\n")
    with Broker("--config", str(config)) as broker, Peer(broker.door) as peer:
        queue, other = f"{name}.q", f"{name}.other"
        peer.call("mpreg.queue.declare", kwargs={"name": queue})
        reply = route(peer, "add", name=name, bind=[name], to=[queue, other])
        assert (reply["error"]["code"], reply["error"]["field"]) == ("unknown_queue", "to")
        assert listed(peer, name) is None
        added(peer, name, bind=[name], to=[queue])


def test_the_table_outlasts_kill_9(name):
    with Broker() as broker:
        with Peer(broker.door) as peer:
            version = added(peer, name, bind=[name], to=[f"{name}.q"], when="payload > 1")
            gone = added(peer, f"{name}.gone", bind=[name], to=[f"{name}.q"])
            assert route(peer, "remove", name=gone["route"])["op"] == "result"
        broker.kill()
        with Broker(data=broker.data) as again, Peer(again.door) as peer:
            table = route(peer, "list")["result"]
            assert [row["route"] for row in table["routes"]] == [name]
            assert table["table_version"] == 3 and table["routes"][0]["version"] == 1
            assert version["version"] == 1
            assert peer.ask(send(name, 2))["queues"] == 1
            assert peer.code(send(name, 1)) == "unroutable"


def test_each_message_follows_one_table(broker, peer, name):
    """The route is replaced again and again while messages go through it. Each message is in both
    queues of one version, marked by it, and versions only rise from message to message."""
    queues = {kind: [f"{name}.{kind}1", f"{name}.{kind}2"] for kind in "ab"}

    def change(number):
        kind = "ab"[number % 2]
        mark = f"{{'n': payload, 'change': {number}, 'kind': '{kind}'}}"
        added(peer, name, bind=[name], to=queues[kind], set={"payload": mark})

    change(0)
    stop, sent = threading.Event(), []

    def produce():
        with Peer(broker.door) as sender:
            while not stop.is_set():
                for _ in range(10):
                    sent.append(len(sent))
                    sender.send(send(name, sent[-1]))
                for reply in sender.replies(10).values():
                    assert (reply["op"], reply["queues"]) == ("sent", 2), reply

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        for number in range(1, 41):
            before = len(sent)
            change(number)
            until(lambda: len(sent) > before)
    finally:
        stop.set()
        thread.join()
    with Peer(broker.door) as consumer:
        found = {}
        for kind, both in queues.items():
            consume(consumer, *both, credit=65_536)
        for queue, messages in taken(consumer, 2 * len(sent)).items():
            for message in messages:
                payload = message["payload"]
                assert queue in queues[payload["kind"]]
                found.setdefault(payload["n"], []).append((payload["change"], queue))
        assert consumer.silent()
    assert sorted(found) == sent
    changes = []
    for number in sent:
        (one, a), (other, b) = found[number]
        assert one == other and {a, b} == set(queues["ab"[one % 2]])
        changes.append(one)
    assert changes == sorted(changes) and len(set(changes)) > 20
