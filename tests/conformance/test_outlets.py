"""Outlets of queues: what PULL sockets of any binding take, at most once."""
import json
import subprocess

import pytest
import zmq

from peers import CONTEXT, NUMBERS, ROOT, Broker, Peer, free_port, until


@pytest.fixture
def queue():
    """A name no other test has."""
    return f"outlet.{next(NUMBERS)}"


def builtin(peer, verb, /, **kwargs):
    return peer.call(f"mpreg.queue.{verb}", kwargs=kwargs)


def declare(peer, queue, address="tcp://127.0.0.1:0", **kwargs):
    """Where the outlet is."""
    reply = builtin(peer, "declare", name=queue, outlet=address, **kwargs)
    assert reply["op"] == "result", reply
    return reply["result"]["outlet"]["endpoint"]


def send(peer, queue, *payloads, **fields):
    for payload in payloads:
        message = {"op": "send", "id": f"m{next(NUMBERS)}", "queue": queue, "payload": payload}
        reply = peer.ask({**message, **fields})
        assert reply["op"] == "sent", reply


def stats(peer, queue):
    return builtin(peer, "stats", name=queue)["result"]


def pull(endpoint, **options):
    socket = CONTEXT.socket(zmq.PULL)
    socket.linger = 0
    for name, value in options.items():
        setattr(socket, name, value)
    socket.connect(endpoint)
    return socket


def drained(socket, count, seconds=10):
    """The payloads of so many messages."""
    taken = []
    while len(taken) < count and socket.poll(seconds * 1000):
        taken.append(json.loads(socket.recv_multipart()[1]))
    return taken


@pytest.mark.parametrize("durability", ["fsync", "memory"])
def test_a_pull_takes_what_was_sent_before_and_after(broker, dealer, queue, durability):
    endpoint = declare(dealer, queue, durability=durability, bind=[f"{queue}.*"])
    send(dealer, queue, 1, headers={"h": 1})
    assert stats(dealer, queue)["ready"] == 1
    with pull(endpoint) as socket:
        assert socket.poll(10_000)
        assert socket.recv_multipart() == [queue.encode(), b"1", b'{"h":1}']
        topic = f"{queue}.a"
        with CONTEXT.socket(zmq.PUSH) as pusher:
            pusher.connect(broker.push)
            pusher.send_multipart([topic.encode(), b"\x00bytes"])
            assert socket.poll(10_000)
            assert socket.recv_multipart() == [topic.encode(), b"\x00bytes"]
    told = until(lambda: (row := stats(dealer, queue))["outlet"]["sent"] == 2 and row)
    assert (told["ready"], told["in_flight"]) == (0, 0)
    assert told["outlet"]["delivery"] == "at_most_once"


def test_pulls_share_and_nothing_comes_twice(dealer, queue):
    endpoint = declare(dealer, queue)
    sockets = [pull(endpoint) for _ in range(2)]
    ready = [False, False]
    sent = 0
    while not all(ready):  # until both are connected
        send(dealer, queue, -1)
        sent += 1
        for index, socket in enumerate(sockets):
            while socket.poll(50):
                ready[index] = True
                socket.recv_multipart()
    send(dealer, queue, *range(100))
    taken = [drained(socket, 50) for socket in sockets]
    assert sorted(taken[0] + taken[1]) == list(range(100))
    for socket in sockets:
        socket.close()
    assert stats(dealer, queue)["counters"]["acked"] == 100 + sent


def test_what_no_pull_reads_waits_in_the_queue(dealer, queue):
    """2,000 messages of 20 kB are more than sockets and window hold."""
    endpoint = declare(dealer, queue, durability="memory")
    text = "x" * 20_000
    with pull(endpoint, rcvhwm=1) as socket:
        assert socket.poll(0) == 0
        for index in range(2_000):
            send(dealer, queue, [index, text])
        told = stats(dealer, queue)
        assert told["ready"] > 0 and told["outlet"]["on_their_way"] <= 256
        assert [index for index, _ in drained(socket, 2_000)] == list(range(2_000))
    until(lambda: stats(dealer, queue)["outlet"]["sent"] == 2_000)


def test_large_payloads_leave_as_they_are_read(broker, dealer, queue):
    """More bytes than may wait in the sockets, and than TCP holds."""
    endpoint = declare(dealer, queue, durability="memory")
    with CONTEXT.socket(zmq.PUSH) as pusher, pull(endpoint, rcvhwm=1) as socket:
        pusher.connect(broker.push)
        for index in range(16):
            pusher.send_multipart([queue.encode(), bytes([index]) * (8 << 20)])
        for index in range(16):
            assert socket.poll(10_000)
            name, payload = socket.recv_multipart()
            assert (name, len(payload), payload[0]) == (queue.encode(), 8 << 20, index)


def test_an_outlet_that_cannot_be_bound_makes_no_queue(broker, dealer, queue):
    taken = broker.door
    reply = builtin(dealer, "declare", name=queue, outlet=taken)
    assert reply["error"]["code"] == "cannot_bind" and taken.split("//")[1] in str(reply)
    reply = builtin(dealer, "declare", name=queue, outlet="tcp://0.0.0.0:0")
    assert reply["error"]["code"] == "not_supported" and "--insecure" in str(reply)
    assert builtin(dealer, "stats", name=queue)["error"]["code"] == "unknown_queue"


def test_a_deleted_queue_frees_its_port(dealer, queue):
    endpoint = declare(dealer, queue)
    builtin(dealer, "delete", name=queue)
    # libzmq gives the port back in its own time.
    until(lambda: builtin(dealer, "declare", name=queue, outlet=endpoint)["op"] == "result")


def test_nothing_comes_twice_when_the_broker_is_killed():
    broker = Broker(port=free_port())
    address = f"tcp://127.0.0.1:{free_port()}"
    try:
        with Peer(broker.door) as peer:
            declare(peer, "jobs", address)
            send(peer, "jobs", *range(200))
        with pull(address) as socket:
            taken = drained(socket, 50)
            broker.kill()
            broker = Broker(port=broker.port, data=broker.data)
            with Peer(broker.door) as peer:
                told = until(lambda: (row := stats(peer, "jobs"))["ready"] == 0 and row)
                assert told["outlet"]["endpoint"] == address
                send(peer, "jobs", "last")
            while taken[-1] != "last":
                taken += drained(socket, 1)
        assert len(taken) == len(set(taken)) and set(taken) <= {*range(200), "last"}
    finally:
        broker.__exit__()


def test_zeromq_js_pulls(dealer, queue):
    if not (ROOT / "node_modules/zeromq").exists():
        pytest.skip("Node is not here")
    endpoint = declare(dealer, queue)
    send(dealer, queue, *range(5))
    script = ROOT / "tests/conformance/node/outlet.mjs"
    ran = subprocess.run(["node", script, endpoint, "5"], capture_output=True, timeout=30)
    assert ran.returncode == 0, ran.stderr.decode()
    assert json.loads(ran.stdout) == [[queue, str(n)] for n in range(5)]
