"""Graphs of stock peers that take messages: their results ack, their failures nack."""
import json
import threading

import pytest

from peers import NUMBERS, Broker, Peer, Sub, Worker, free_port, until

TAKE = {"name": "take", "fun": "mpreg.queue.next"}
PAYLOAD = {"$ref": "take", "at": "/payload"}


@pytest.fixture
def queue():
    """A name no other test has."""
    return f"steps/{next(NUMBERS)}"


def graph(*steps, **fields):
    return {"op": "graph", "id": f"g{next(NUMBERS)}", "steps": list(steps), **fields}


def take(queue, **kwargs):
    return {**TAKE, "kwargs": {"name": queue, **kwargs}}


def work(*args):
    return {"name": "work", "fun": "steps.work", "args": [*args, PAYLOAD]}


def declare(peer, queue, **settings):
    reply = peer.call("mpreg.queue.declare", kwargs={"name": queue, **settings})
    assert reply["op"] == "result", reply


def send(peer, queue, payload):
    reply = peer.ask({"op": "send", "id": "m", "queue": queue, "payload": payload})
    assert reply["op"] == "sent", reply
    return reply["message"]


def load(peer, queue):
    told = peer.call("mpreg.queue.stats", kwargs={"name": queue})["result"]
    return {key: told[key] for key in ("ready", "in_flight", "delayed", "dead", "consumers")}


def load_of(consumers=0, **some):
    return {"ready": 0, "in_flight": 0, "delayed": 0, "dead": 0, "consumers": consumers, **some}


def test_a_graph_takes_works_and_acks_by_its_result(dealer, workers, queue):
    seen = []

    def double(run, frames):
        # The worker's own view, while the graph runs.
        with Peer(door) as peer:
            seen.append(load(peer, queue))
        return 2 * run["args"][0]

    door = dealer.door
    workers({"steps.work": double})
    declare(dealer, queue, lease_ms=1)
    send(dealer, queue, 21)
    reply = dealer.ask(graph(take(queue), work()))
    assert (reply["op"], reply["results"]) == ("result", {"work": 42})
    assert seen == [load_of(consumers=1, in_flight=1)]
    assert load(dealer, queue) == load_of()


def test_a_step_sends_and_a_graph_waits_for_it(dealer, queue):
    declare(dealer, queue)
    dealer.send(graph(take(queue), timeout_ms=10_000))
    give = {"name": "give", "fun": "mpreg.queue.send", "kwargs": {"name": queue, "payload": [7]}}
    dealer.send({**graph(give), "id": "giver"})
    replies = [dealer.recv() for _ in range(2)]
    results = {name: value for reply, _ in replies for name, value in reply["results"].items()}
    assert results["give"]["durability"] == "fsync"
    assert (results["take"]["payload"], results["take"]["attempt"]) == ([7], 1)
    assert load(dealer, queue) == load_of()


def test_a_worker_that_fails_makes_a_dead_letter_in_the_end(dealer, workers, queue):
    attempts = []

    def fail(run, frames):
        attempts.append(run["args"][0])
        raise RuntimeError("no paper")

    workers({"steps.work": fail})
    declare(dealer, queue, max_attempts=2, backoff_ms=0)
    message = send(dealer, queue, "x")
    for _ in range(2):
        reply = dealer.ask(graph(take(queue), work({"$ref": "take", "at": "/attempt"})))
        assert (reply["op"], reply["error"]["step"]) == ("error", "work"), reply
    assert attempts == [1, 2]
    assert load(dealer, queue) == load_of(dead=1)
    peek = dealer.call("mpreg.queue.peek", kwargs={"name": queue, "dead": True})
    (letter,) = peek["result"]["messages"]
    assert (letter["message"], letter["attempts"], letter["reason"]) == (message, 2, "attempts")
    assert "step work" in letter["note"] and "no paper" in letter["note"]


@pytest.mark.parametrize("end", ["cancel", "timeout", "gone"])
def test_a_graph_that_is_given_up_gives_back(broker, dealer, workers, queue, end):
    begun, over = threading.Event(), threading.Event()

    def wait(run, frames):
        begun.set()
        over.wait(10)

    workers({"steps.work": wait})
    declare(dealer, queue, backoff_ms=0)
    send(dealer, queue, 1)
    try:
        with Peer(broker.door) as asker:
            asked = graph(take(queue), work(), timeout_ms=300 if end == "timeout" else 10_000)
            asker.send(asked)
            assert begun.wait(10)
            if end == "cancel":
                asker.send({"op": "cancel", "id": asked["id"]})
            if end != "gone":
                reply = asker.reply()
                assert reply["error"]["code"] == {"cancel": "cancelled"}.get(end, end)
                assert load(dealer, queue) == load_of(ready=1), "it is back before the reply"
        until(lambda: load(dealer, queue) == load_of(ready=1))
        reply = dealer.ask(graph(take(queue)))
        assert reply["results"]["take"]["attempt"] == 2
    finally:
        over.set()


def test_a_queue_that_is_not_there(dealer, queue):
    reply = dealer.ask(graph(take(queue)))
    assert (reply["error"]["code"], reply["error"]["step"]) == ("unknown_queue", "take")


def test_what_a_graph_holds_outlasts_kill_9():
    broker = Broker(port=free_port())
    try:
        begun, over = threading.Event(), threading.Event()

        def wait(run, frames):
            begun.set()
            over.wait(10)

        with Peer(broker.door) as peer, Worker(broker.door, {"steps.work": wait}):
            message = send(peer, "jobs", 1)
            assert peer.ask(graph(take("jobs")))["op"] == "result"
            message = send(peer, "jobs", 2)
            peer.send(graph(take("jobs"), work()))
            assert begun.wait(10)
            broker.kill()
            over.set()
        broker = Broker(port=broker.port, data=broker.data)
        with Peer(broker.door) as peer:
            assert load(peer, "jobs") == load_of(ready=1), "what was acked does not come back"
            reply = peer.ask(graph(take("jobs")))
            assert reply["results"]["take"]["message"] == message
    finally:
        broker.__exit__()


def test_a_sub_hears_the_life_of_a_message(broker, peer, queue):
    declare(peer, queue, backoff_ms=0)
    with Sub(broker, "mpreg.queue.#") as sub:
        message = send(peer, queue, 1)
        fails = {"name": "fails", "fun": "steps.nobody", "wait": True, "timeout_ms": 1}
        peer.ask(graph(take(queue), {**fails, "after": ["take"]}))
        peer.ask(graph(take(queue)))
        heard = []
        while not heard or heard[-1][0] != "acked":
            _, topic, payload = sub.recv()
            told = json.loads(payload)
            if told["queue"] == queue:
                event = topic.removeprefix(f"mpreg.queue.{queue}.")
                heard.append((event, told["message"], told.get("attempt")))
    assert heard == [
        ("enqueued", message, None),
        ("delivered", message, 1),
        ("nacked", message, 1),
        ("delivered", message, 2),
        ("acked", message, 2),
    ]
