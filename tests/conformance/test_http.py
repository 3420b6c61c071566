"""What is asked with plain HTTP, and what WebSocket has of its own."""
import http.client
import json
import socket
import struct
import threading
import time
import urllib.parse

import pytest
import websocket

from peers import PATIENCE, Broker, Peer, Worker, until

JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}
TEXT = {"Content-Type": "text/plain"}


class Http:
    """One connection."""

    def __init__(self, broker):
        self.at = urllib.parse.urlsplit(broker.http)
        self.connection = http.client.HTTPConnection(self.at.hostname, self.at.port, PATIENCE)

    def ask(self, method, path, body=None, headers=None):
        """Status, headers and body, which is read as JSON if it says so."""
        if headers is None:
            headers = JSON if method == "POST" else {}
        body = body if body is None or isinstance(body, bytes) else json.dumps(body)
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        data = response.read()
        if response.headers["Content-Type"] == "application/json":
            data = json.loads(data)
        return response.status, response.headers, data

    def told(self, *arguments, **options):
        """Status and body."""
        status, _, body = self.ask(*arguments, **options)
        return status, body

    def error(self, *arguments, **options):
        """Status, code and field of an error."""
        status, body = self.told(*arguments, **options)
        assert set(body) >= {"error"} and not {"op", "id"} & set(body), body
        return status, body["error"]["code"], body["error"].get("field")


@pytest.fixture
def web(broker):
    return Http(broker)


def echo(run, frames):
    return {"args": run.get("args"), "kwargs": run.get("kwargs")}


def fail(run, frames):
    raise ValueError("out of luck")


def test_calls(broker, web, workers):
    workers({"echo": echo, "fail": fail, "none": lambda run, _: None}, credit=4)
    assert web.told("POST", "/call/echo", [1, "é"]) == (200, {"args": [1, "é"], "kwargs": None})
    assert web.told("POST", "/call/echo", {"a": 1}) == (200, {"args": None, "kwargs": {"a": 1}})
    assert web.told("POST", "/call/none", []) == (200, None)
    assert web.told("POST", "/call/echo?version=^1&timeout_ms=5000&idempotent=true", [])[0] == 200
    assert web.error("POST", "/call/fail", []) == (502, "failed", None)
    assert web.error("POST", "/call/nobody", []) == (404, "unknown_function", "fun")
    assert web.error("POST", "/call/echo?locs=moon&locs=mars", []) == (404, "no_location", "locs")
    assert web.error("POST", "/call/echo?version=^9", []) == (404, "no_version", "version")
    assert web.error("POST", "/call/echo?cluster=eu", []) == (404, "no_location", "cluster")
    assert web.error("POST", "/call/late?wait=true&timeout_ms=50", []) == (504, "timeout", None)
    assert web.error("POST", "/call/echo?wait=1", []) == (400, "bad_field", "wait")
    assert web.error("POST", "/call/echo?colour=red", []) == (400, "bad_field", "colour")
    assert web.error("POST", "/call/echo", 7) == (400, "bad_field", "args")
    assert web.error("POST", "/call/a..b", []) == (400, "bad_name", "fun")
    assert web.error("POST", "/call/echo", b"[1")[:2] == (400, "bad_encoding")
    assert web.told("POST", "/call/mpreg.status", {})[1]["node"]
    workers({"of/some": lambda run, _: run["fun"]})
    assert web.told("POST", "/call/of%2Fsome", []) == (200, "of/some")


def test_bytes(broker, web):
    with Peer(broker.door) as worker:
        offer = {"op": "offer", "functions": [{"name": "reverse"}, {"name": "wrap"}], "credit": 2}
        assert worker.ask(offer)["op"] == "offered"
        done = []

        def work():
            for _ in range(2):
                run, frames = worker.recv()
                whole = {"$frame": 1}
                value = whole if run["fun"] == "reverse" else {"within": whole}
                result = {"op": "result", "id": run["id"], "result": value}
                worker.send(result, frames[0][::-1])
            done.append(True)

        thread = threading.Thread(target=work)
        thread.start()
        status, headers, body = web.ask("POST", "/call/reverse", b"\0\1\2", BYTES)
        assert (status, headers["Content-Type"], body) == (200, BYTES["Content-Type"], b"\2\1\0")
        assert web.error("POST", "/call/wrap", b"abc", headers=BYTES)[1] == "unencodable_value"
        thread.join()
        assert done


def test_a_caller_that_hangs_up_has_cancelled(broker):
    with Peer(broker.door) as worker:
        assert worker.ask({"op": "offer", "functions": [{"name": "long"}]})["op"] == "offered"
        caller = Http(broker).connection
        caller.request("POST", "/call/long", "[]", JSON)
        run = worker.reply()
        caller.sock.shutdown(socket.SHUT_RDWR)
        assert worker.reply() == {"op": "cancel", "id": run["id"]}


def test_graphs(broker, web, workers):
    workers({"double": lambda run, _: run["args"][0] * 2, "fail": fail}, credit=4)
    steps = [
        {"name": "x", "fun": "double", "args": [4]},
        {"name": "y", "fun": "double", "args": [{"$ref": "x"}]},
    ]
    status, body = web.told("POST", "/graph", {"steps": steps, "id": "mine"})
    assert (status, body.pop("results"), [*body]) == (200, {"y": 16}, ["track"])
    status, body = web.told("POST", "/graph", {"steps": [*steps, {"name": "z", "fun": "fail"}]})
    assert (status, body["error"]["code"], body["error"]["step"]) == (502, "failed", "z"), body
    assert web.error("POST", "/graph", {"steps": []})[0] == 400
    assert web.error("POST", "/graph", {"steps": steps, "more": True})[1] == "not_supported"
    assert web.error("POST", "/graph", [1])[1] == "bad_encoding"


def test_a_message_is_sent_and_taken(web):
    status, sent = web.told("POST", "/queues/http.jobs?key=k&dedup=d", {"image": 17})
    assert status == 200 and sent["durability"] == "fsync" and sent["queues"] == 1
    status, message = web.told("GET", "/queues/http.jobs/next?timeout_ms=5000")
    assert status == 200 and message["payload"] == {"image": 17}, message
    assert (message["message"], message["key"]) == (sent["message"], "k")
    # Acked by then: nobody gets it again.
    assert web.told("GET", "/queues/http.jobs/next?timeout_ms=1")[0] == 204
    stats = web.told("POST", "/call/mpreg.queue.stats", {"name": "http.jobs"})[1]
    assert (stats["ready"], stats["in_flight"], stats["counters"]["acked"]) == (0, 0, 1)
    assert web.told("POST", "/queues/http.jobs", b"raw", headers=BYTES)[0] == 200
    status, headers, body = web.ask("GET", "/queues/http.jobs/next")
    assert (status, body, headers["mpreg-attempt"]) == (200, b"raw", "1")
    assert web.error("GET", "/queues/http.none/next") == (404, "unknown_queue", "queue")
    assert web.error("POST", "/queues/http.jobs?priority=12", 1)[:2] == (400, "bad_field")


def test_a_taker_that_hangs_up_leaves_the_message(broker, web):
    taker = Http(broker).connection
    web.told("POST", "/call/mpreg.queue.declare", {"name": "http.left"})
    taker.request("GET", "/queues/http.left/next?timeout_ms=60000")
    waits = lambda: web.told("POST", "/call/mpreg.status", {})[1]["requests"] > 1
    until(waits)
    taker.sock.shutdown(socket.SHUT_RDWR)
    until(lambda: not waits())
    assert web.told("POST", "/queues/http.left", 1)[0] == 200
    assert web.told("GET", "/queues/http.left/next?timeout_ms=5000")[1]["payload"] == 1


def events(broker, path):
    """Server-sent events, as they come."""
    connection = Http(broker).connection
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    assert response.headers["Content-Type"] == "text/event-stream"

    def read():
        while line := response.readline():
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    return read(), connection


def test_events(broker, web):
    heard, connection = events(broker, "/topics/http.orders.%23")
    for number in range(1_000):
        assert web.told("POST", "/publish/http.orders.eu", {"n": number})[0] == 200
    told = [next(heard) for _ in range(1_000)]
    assert [event["payload"]["n"] for event in told] == list(range(1_000))
    assert [event["seq"] for event in told] == list(range(1, 1_001))
    assert told[0]["topic"] == "http.orders.eu" and len(told[0]["message"]) == 26
    web.told("POST", "/publish/http.orders.us", b"abc", headers=BYTES)
    raw = next(heard)
    assert (raw["payload"], raw["frames"]) == ({"$frame": 1}, ["YWJj"])
    connection.close()
    assert web.error("GET", "/topics/a..b") == (400, "bad_pattern", "patterns/0")
    assert web.error("GET", "/topics/http.%23?last=3")[1] == "not_retained"
    assert web.error("POST", "/publish/mpreg.x", 1)[1] == "reserved_name"


def test_events_of_the_past_come_first(tmp_path):
    config = tmp_path / "mpreg.toml"
    config.write_text('[[topics.retain]]\npattern = "kept.#"\n')
    with Broker("--config", str(config)) as broker:
        web = Http(broker)
        for number in range(5):
            assert web.told("POST", "/publish/kept.x", number)[0] == 200
        heard, connection = events(broker, "/topics/kept.%23?last=2")
        assert [next(heard)["payload"] for _ in range(2)] == [3, 4]
        web.told("POST", "/publish/kept.x", 5)
        assert next(heard)["payload"] == 5
        connection.close()


def test_one_who_does_not_read_delays_nobody(broker, web):
    """Its events are missed and counted; the broker holds no more than its credit allows."""
    slow = Http(broker).connection
    slow.connect()
    slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.request("GET", "/topics/http.flood")
    until(lambda: "http.flood" in str(web.told("POST", "/call/mpreg.topics", {})[1]))
    heard, fast = events(broker, "/topics/http.flood")
    before = broker.resident()
    body, count = "x" * 50_000, 2_000
    got = []

    def read():
        for event in heard:
            got.append(event.get("missed", 0))
            if len(got) + sum(got) >= count:
                return

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(count):
        assert web.told("POST", "/publish/http.flood", body)[0] == 200
    reader.join(PATIENCE)
    assert not reader.is_alive() and len(got) > count // 2, len(got)
    assert broker.resident() - before < 64 << 20
    slow.close()
    fast.close()


@pytest.mark.parametrize(
    "headers, told",
    [
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:7405"}, 200),
        ({"Host": "evil.example"}, (403, "foreign_origin", "Host")),
        ({"Origin": "https://evil.example"}, (403, "foreign_origin", "Origin")),
        ({"Origin": "null"}, (403, "foreign_origin", "Origin")),
    ],
)
def test_foreign_pages_are_kept_out(broker, web, headers, told):
    if told == 200:
        assert web.told("GET", "/health", headers=headers)[0] == 200
    else:
        assert web.error("GET", "/health", headers=headers) == told
        with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
            url = broker.http.replace("http", "ws", 1) + "/ws"
            options = {"host": headers.get("Host"), "origin": headers.get("Origin")}
            websocket.create_connection(url, timeout=PATIENCE, **options)


@pytest.mark.parametrize(
    "method, path, headers, told",
    [
        ("POST", "/publish/a", {}, (415, "bad_content_type", "Content-Type")),
        ("POST", "/publish/a", TEXT, (415, "bad_content_type", "Content-Type")),
        ("GET", "/nothing", {}, (404, "unknown_path", None)),
        ("GET", "/call/f", {}, (405, "unknown_path", None)),
        ("POST", "/health", JSON, (405, "unknown_path", None)),
    ],
)
def test_what_is_not_served(web, method, path, headers, told):
    assert web.error(method, path, body=b"1" if method == "POST" else None, headers=headers) == told


def test_what_is_not_well_formed_is_refused_in_words(web):
    assert web.error("GET", "/ws") == (400, "bad_field", None)
    assert web.error("POST", "/call/%ff", []) == (400, "bad_field", None)
    # What came with a refused request is read, so that the next may follow it.
    for path, headers, status in (("/publish/a", TEXT, 415), ("/call/%ff", BYTES, 400)):
        kept = web.connection.sock
        assert web.error("POST", path, b"x" * 300_000, headers)[0] == status
        assert web.connection.sock is kept
    # Its head is enough: what will not be taken need not be sent.
    web.connection.putrequest("POST", "/publish/a")
    for name, value in {**JSON, "Content-Length": 1 << 40}.items():
        web.connection.putheader(name, value)
    web.connection.endheaders()
    response = web.connection.getresponse()
    told = json.loads(response.read())
    assert (response.status, told["error"]["code"]) == (413, "too_large")


def test_own_pages_and_listed_ones_come_in(tmp_path):
    config = tmp_path / "mpreg.toml"
    config.write_text('[http]\nhosts = ["broker.example"]\norigins = ["https://app.example"]\n')
    with Broker("--config", str(config)) as broker:
        web = Http(broker)
        listed = {"Host": "broker.example", "Origin": "https://app.example"}
        until(lambda: web.told("GET", "/health", headers=listed)[0] == 200)
        assert web.told("GET", "/health", headers={"Origin": broker.http})[0] == 200


def test_health_and_metrics(web):
    status, body = web.told("GET", "/health")
    assert status == 200 and body["stage"] == "serving" and body["core_ms"] >= 0
    web.told("POST", "/queues/http.metrics", 1)
    status, headers, body = web.ask("GET", "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = body.decode().splitlines()
    assert 'mpreg_queue_ready{queue="http.metrics"} 1' in lines
    numbers = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert all(float(value) >= 0 for value in numbers.values())
    assert float(numbers["mpreg_messages_enqueued_total"]) >= 1
    typed = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE")}
    named = {name.partition("{")[0] for name in numbers}
    histograms = {name for name, kind in typed.items() if kind == "histogram"}
    parts = {name + part for name in histograms for part in ("_bucket", "_sum", "_count")}
    assert named == (typed.keys() - histograms) | parts
    assert float(numbers["mpreg_send_seconds_count"]) >= 1
    for name in histograms:
        counts = [float(of) for at, of in numbers.items() if at.startswith(name + "_bucket")]
        assert counts == sorted(counts) and counts[-1] == float(numbers[name + "_count"])
    owners = {name for name in numbers if name.startswith("mpreg_memory_bytes")}
    assert 'mpreg_memory_bytes{owner="queue_fronts"}' in owners


def test_peers_over_websocket_are_bounded_and_leave(tmp_path):
    config = tmp_path / "mpreg.toml"
    config.write_text("[limits]\npeers = 2\n")
    with Broker("--config", str(config)) as broker:
        url = broker.http.replace("http", "ws", 1) + "/ws"
        first, second = (websocket.create_connection(url, timeout=PATIENCE) for _ in range(2))
        for peer in (first, second):
            peer.send('{"op":"ping"}')
            assert json.loads(peer.recv()) == {"op": "pong"}
        third = websocket.create_connection(url, timeout=PATIENCE)
        assert json.loads(third.recv())["error"]["code"] == "busy"
        kind, data = third.recv_data()
        assert kind == websocket.ABNF.OPCODE_CLOSE and struct.unpack(">H", data[:2]) == (1001,)
        second.close()

        def again():
            peer = websocket.create_connection(url, timeout=PATIENCE)
            peer.send('{"op":"ping"}')
            return "pong" in peer.recv()

        assert until(again)
        first.close()


def test_a_message_that_is_too_large_ends_the_connection(broker):
    url = broker.http.replace("http", "ws", 1) + "/ws"
    peer = websocket.create_connection(url, timeout=PATIENCE)
    # Only its head: the broker need not read what it will not take.
    peer.sock.sendall(b"\x82\xff" + struct.pack(">Q", 1 << 40) + b"mask")
    kind, data = peer.recv_data()
    assert kind == websocket.ABNF.OPCODE_CLOSE and b"Message too long" in data, data


def test_a_broker_that_ends_says_goodbye():
    with Broker() as broker:
        url = broker.http.replace("http", "ws", 1) + "/ws"
        peer = websocket.create_connection(url, timeout=PATIENCE)
        peer.send('{"op":"ping"}')
        assert json.loads(peer.recv()) == {"op": "pong"}
        with Worker(broker.door, {"slow": lambda run, _: time.sleep(0.3)}):
            web = Http(broker)
            until(lambda: web.told("POST", "/call/mpreg.workers", {})[1])
            answers = []
            call = lambda: answers.append(Http(broker).told("POST", "/call/slow?wait=true", []))
            thread = threading.Thread(target=call)
            thread.start()
            until(lambda: web.told("POST", "/call/mpreg.status", {})[1]["requests"] > 1)
            broker.process.terminate()
            stage = lambda: web.told("GET", "/health")
            assert until(lambda: stage() == (503, {"stage": "draining"}))
            thread.join()
            assert answers == [(200, None)]
        while (told := peer.recv_data())[0] != websocket.ABNF.OPCODE_CLOSE:
            pass
        assert struct.unpack(">H", told[1][:2]) == (1001,)
        assert broker.process.wait(PATIENCE) == 0
