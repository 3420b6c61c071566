"""What the tests share: a broker process, and peers that are a pyzmq socket and an encoding."""
import itertools
import json
import os
import pathlib
import random
import resource
import select
import socket
import struct
import subprocess
import tempfile
import threading
import time

import msgpack
import pytest
import websocket
import zmq

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 10.0
CONTEXT = zmq.Context()
NUMBERS = itertools.count(1)
# How peers reach the door: over tcp, ipc, or ws in its place.
TRANSPORT = os.environ.get("MPREG_TRANSPORT", "tcp")
# The HTTP endpoint of the broker behind a door.
HTTP = {}


# A few tests hold thousands of connections, and so does the broker they start.
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


def program():
    """The mpreg to test: MPREG_BIN, else what Cargo has built last."""
    if os.environ.get("MPREG_BIN"):
        return ROOT / os.environ["MPREG_BIN"]
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [path for kind in ("release", "debug") if (path := target / kind / "mpreg").exists()]
    assert built, "build it first: cargo build"
    return max(built, key=lambda path: path.stat().st_mtime)


class Json:
    name = "json"

    @staticmethod
    def pack(value):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()

    unpack = staticmethod(json.loads)


class Packed:
    name = "msgpack"
    pack = staticmethod(msgpack.packb)

    @staticmethod
    def unpack(body):
        return msgpack.unpackb(body, strict_map_key=False)


class Broker:
    """A broker process, killed by its id. Every endpoint has a port the system picks, unless
    `port` is that of the first. Its data folder is its own, unless it takes over another's."""

    def __init__(self, *arguments, port=0, data=None):
        self.data = data or tempfile.TemporaryDirectory()
        command = [program(), "serve", "--output", "json", "--data", self.data.name]
        if TRANSPORT == "ipc" and port == 0:
            command += ["--bind", f"ipc://{self.data.name}/{next(NUMBERS)}", *arguments]
        else:
            command += ["--port", str(port), *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env={**os.environ, "RUST_LOG": "warn"}
        )
        self.banner = json.loads(self.process.stdout.readline())
        endpoints = self.banner["endpoints"]
        self.door, self.publish = endpoints["door"], endpoints["publish"]
        self.subscribe, self.push = endpoints["subscribe"], endpoints["push"]
        self.http = HTTP[self.door] = endpoints["http"]
        self.port = 0 if self.door.startswith("ipc") else int(self.door.rpartition(":")[2])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.process.stdout.close()
        self.data.cleanup()

    def resident(self):
        """Bytes of memory it holds."""
        pages = pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def free_port():
    """A port with five free ones behind it, below those that the system gives to connections."""
    for port in random.sample(range(20_000, 32_000), 1_000):
        try:
            for number in range(port, port + 6):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
            return port
        except OSError:
            continue
    raise AssertionError("no six free ports in a row")


def of_zeromq():
    """Skips what has no like over WebSocket."""
    if TRANSPORT == "ws":
        pytest.skip("of ZeroMQ alone")


class WebSocket:
    """A WebSocket that looks like a DEALER."""

    type = zmq.DEALER

    def __init__(self, door):
        url = HTTP[door].replace("http://", "ws://") + "/ws"
        self.socket = websocket.create_connection(url, enable_multithread=False, timeout=PATIENCE)

    def send_multipart(self, frames):
        body, *attachments = [bytes(frame) for frame in frames]
        if attachments:
            parts = [struct.pack("<I", len(frame)) + frame for frame in (body, *attachments)]
            return self.socket.send_binary(b"\2" + b"".join(parts))
        is_json = body[:1] in (b"{", b"[")
        try:
            return self.socket.send(body.decode()) if is_json else self.socket.send_binary(body)
        except UnicodeDecodeError:
            return self.socket.send_binary(body)

    def send(self, frame):
        self.send_multipart([frame])

    def poll(self, milliseconds):
        return bool(select.select([self.socket.sock], [], [], milliseconds / 1000)[0])

    def recv_multipart(self):
        kind, data = self.socket.recv_data()
        assert kind in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY), (kind, data)
        if data[:1] != b"\2":
            return [data]
        frames, at = [], 1
        while at < len(data):
            (length,) = struct.unpack_from("<I", data, at)
            frames.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        return frames

    def close(self):
        self.socket.close()


class Peer:
    """A socket that speaks one encoding at a time."""

    def __init__(self, door, kind=zmq.DEALER, encoding=Json, **options):
        self.door = door
        self.encoding = encoding
        self.waiting = []
        if TRANSPORT == "ws":
            if kind != zmq.DEALER or options:
                of_zeromq()
            self.socket = WebSocket(door)
            return
        self.socket = CONTEXT.socket(kind)
        self.socket.linger = 0
        for name, value in options.items():
            setattr(self.socket, name, value)
        self.socket.connect(door)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, message, *frames):
        """Sends a value, or bytes as they are, with attachments."""
        body = message if isinstance(message, bytes) else self.encoding.pack(message)
        self.socket.send_multipart([body, *frames])

    def poll(self, seconds):
        return bool(self.waiting) or bool(self.socket.poll(seconds * 1000))

    def raw(self, seconds=PATIENCE):
        """The frames of the next message, as they came."""
        assert self.socket.poll(seconds * 1000), "nothing came"
        return self.socket.recv_multipart()

    def recv(self, seconds=PATIENCE):
        """The next message and its attachments; a batch is handed out one by one."""
        if not self.waiting:
            body, *frames = self.raw(seconds)
            value = self.encoding.unpack(body)
            self.waiting = [(item, frames) for item in (value if type(value) is list else [value])]
        return self.waiting.pop(0)

    def reply(self, seconds=PATIENCE):
        """The next message, which comes without attachments."""
        message, frames = self.recv(seconds)
        assert frames == []
        return message

    def ask(self, message, *frames):
        self.send(message, *frames)
        return self.reply()

    def replies(self, count):
        """So many messages, by id."""
        replies = [self.reply() for _ in range(count)]
        return {reply.get("id", reply.get("item")): reply for reply in replies}

    def call(self, fun, *args, **fields):
        call = {"op": "call", "id": f"c{next(NUMBERS)}", "fun": fun, "args": list(args)}
        return self.ask({**call, **fields})

    def code(self, message, *frames):
        """The code of the error that a message gets."""
        reply = self.ask(message, *frames)
        assert reply["op"] == "error", reply
        return reply["error"]["code"]

    def silent(self):
        """Whether nothing waits: a ping is answered by its pong and nothing else."""
        self.send({"op": "ping", "id": "silent"})
        return self.reply() == {"op": "pong", "id": "silent"}


class Sub:
    """A stock SUB socket that the broker knows: what it hears is the text it subscribed to, the
    topic, and the other frames."""

    def __init__(self, broker, *texts):
        self.socket = CONTEXT.socket(zmq.SUB)
        # What waits is bounded by what the test publishes, and a SUB whose own queue is full
        # loses subscriptions.
        self.socket.rcvhwm = self.socket.sndhwm = self.socket.linger = 0
        for text in texts:
            self.socket.subscribe(text)
        # Subscriptions come in order, so all are there once the last is.
        known = f"known.{next(NUMBERS)}"
        self.socket.subscribe(known)
        self.socket.connect(broker.subscribe)
        with Peer(broker.door) as peer:
            until(lambda: row(peer, known))
            self.socket.unsubscribe(known)
            until(lambda: not row(peer, known))

    def recv(self, seconds=PATIENCE):
        assert self.socket.poll(seconds * 1000), "nothing came"
        first, *rest = self.socket.recv_multipart()
        text, _, topic = first.partition(b"\0")
        return (text.decode(), topic.decode(), *rest)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


class Pub:
    """A stock PUB socket that the broker listens to by now: what a PUB sends before is lost."""

    def __init__(self, broker):
        self.socket = CONTEXT.socket(zmq.PUB)
        self.socket.sndhwm = self.socket.linger = 0
        self.socket.connect(broker.publish)
        topic = f"hello.{next(NUMBERS)}"
        with Sub(broker, topic) as sub:
            while not sub.socket.poll(5):
                self.send(topic, b"")

    def send(self, topic, *frames):
        self.socket.send_multipart([topic.encode(), *frames])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def topics(peer):
    """What the broker tells of topics."""
    return peer.call("mpreg.topics", args=[], kwargs={"top": 10_000})["result"]


def row(peer, pattern):
    """What it tells of one pattern, if anybody holds it."""
    return next((row for row in topics(peer)["top"] if row["pattern"] == pattern), None)


def named(functions, **fields):
    return {"op": "offer", "functions": [{"name": name} for name in functions], **fields}


class Worker:
    """Runs Python functions in a thread: each gets the run and its frames, and returns a value,
    a value and frames, or raises to fail."""

    def __init__(self, door, functions, encoding=Json, version="1.0.0", **fields):
        self.functions = functions
        self.peer = Peer(door, encoding=encoding)
        self.stop = False
        offered = [{"name": name, "version": version} for name in functions]
        self.peer.send({"op": "offer", "functions": offered, **fields})
        assert self.peer.reply()["op"] == "offered"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while not self.stop:
            if not self.peer.poll(0.05):
                continue
            message, frames = self.peer.recv()
            if message["op"] != "run":
                continue
            reply, answer = {"op": "result", "id": message["id"]}, []
            try:
                reply["result"] = self.functions[message["fun"]](message, frames)
                if type(reply["result"]) is tuple:
                    reply["result"], *answer = reply["result"]
            except Exception as error:
                reply = {"op": "error", "id": message["id"], "error": str(error)}
            self.peer.send(reply, *answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop = True
        self.thread.join()
        self.peer.close()


def until(wanted, seconds=PATIENCE):
    """Asks again until what is wanted holds."""
    end = time.monotonic() + seconds
    while not (answer := wanted()):
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)
    return answer
