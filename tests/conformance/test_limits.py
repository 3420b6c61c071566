"""Beyond the limits: an error where there can be one, and a broker that serves on."""
import time

import pytest
import zmq

from peers import Broker, Json, Packed, Peer, of_zeromq, until

PING = {"op": "ping", "id": "p"}


def test_an_envelope_over_4_mib_is_an_error(asker):
    assert asker.ask(PING)["op"] == "pong"
    limit = 4 << 20
    message = {"op": "call", "id": "1", "fun": "nobody", "args": [""]}
    room = limit - len(asker.encoding.pack({**message, "args": ["x" * 70_000]})) + 70_000
    message["args"] = ["x" * room]
    assert len(asker.encoding.pack(message)) == limit
    assert asker.code(message) == "unknown_function", "exactly the limit"
    message["args"] = ["x" * (room + 1)]
    reply = asker.ask(message)
    assert reply["error"]["code"] == "too_large" and "id" not in reply
    assert str(limit) in reply["error"]["message"]


def test_a_frame_over_64_mib_ends_the_connection(broker):
    """Without a word: libzmq's own bound. The socket reconnects by itself and is served again."""
    of_zeromq()
    with Peer(broker.door) as peer:
        assert peer.ask(PING)["op"] == "pong"
        before = broker.resident()
        peer.send(b"{" + b" " * (64 << 20))
        end = time.monotonic() + 10
        while time.monotonic() < end:
            peer.send(PING)
            if peer.poll(0.2):
                assert peer.reply() == {"op": "pong", "id": "p"}
                break
        else:
            raise AssertionError("it never came back")
        assert broker.resident() - before < 16 << 20


@pytest.mark.parametrize("first", [b for b in range(256) if b not in b" \t\r\n{[\x01"])
def test_a_first_byte_that_begins_no_encoding(broker, first):
    with Peer(broker.door) as peer:
        if 0x80 <= first <= 0x9F or 0xDC <= first <= 0xDF:
            peer.send(bytes([first]))
            (body,) = peer.raw()
            # An empty map can be read, so it is answered likewise; the others are cut short.
            reply = (Packed if first == 0x80 else Json).unpack(body)
            assert reply["error"]["code"] in ("bad_encoding", "bad_field", "empty_batch")
            return
        reply = peer.ask(bytes([first]) + b'{"op":"ping"}')
        assert reply["error"]["code"] == "bad_encoding" and "id" not in reply
        assert f"0x{first:02x}" in reply["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \r\n",
        b'\xef\xbb\xbf{"op":"ping"}',
        b'\xff\xfe{\x00"\x00',
        b"{",
        b"[",
        b'{"op":"ping"',
        b'{"op":"ping"}}',
        b'{"op":"ping"} {"op":"ping"}',
        b'[{"op":"ping"},]',
        b"{'op':'ping'}",
        b'{"op":"ping","id":NaN}',
        b'{"op":"ping","x":01}',
        b'{"op":"\xff"}',
        b'{"op":"call","id":"1","fun":"f","args":["\x01"]}',
        b"\x81\xa2op",
        b"\x81\xa2op\xa4ping\x00",
        b"\x81\xc1\xc0",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\x01",
        b"\x01\xff\xff\xff\xff\xff\xff\xff\xff",
    ],
    ids=repr,
)
@pytest.mark.parametrize("spoken", [None, Json, Packed])
def test_what_cannot_be_read_is_told_in_the_encoding_spoken_last(broker, body, spoken):
    with Peer(broker.door, encoding=spoken or Json) as peer:
        if spoken:
            assert peer.ask(PING)["op"] == "pong"
        reply = peer.ask(body)
        code = reply["error"]["code"]
        assert code == "bad_encoding" or code == "too_large" and body[0] in b"\x01\xdd", reply
        assert reply["op"] == "error" and "id" not in reply and "item" not in reply
        assert peer.silent()


def test_too_deep(peer):
    for body in (b"[" * 1_000_000, b'{"op":"call","id":"1","fun":"f","args":' + b"[" * 200):
        assert peer.code(body) in ("too_deep", "bad_encoding")
    assert peer.code(b'{"op":"ping","x":' + b"[" * 200 + b"]" * 200 + b"}") == "too_deep"
    assert peer.code(b"\x82\xa2op\xa4ping\xa1x" + b"\x91" * 200 + b"\x90") == "too_deep"


def test_a_message_of_many_frames(peer):
    assert peer.code(PING, *[b"x"] * 1_000) == "too_large"
    assert peer.silent()


def test_a_req_of_nothing_but_delimiters(broker):
    of_zeromq()
    with Peer(broker.door) as peer:
        peer.socket.send_multipart([b"", b"", b""])
        empty, body = peer.raw()
        assert empty == b"" and Json.unpack(body)["error"]["code"] == "bad_encoding"
        peer.socket.send_multipart([b"", b""])
        assert Json.unpack(peer.raw()[-1])["error"]["code"] == "bad_encoding"


def test_limits_of_the_config_are_told_and_kept(tmp_path):
    config = tmp_path / "mpreg.toml"
    config.write_text("[limits]\npeers = 3\ncredit = 7\nsteps = 5\n")
    with Broker("--config", str(config)) as broker:
        first, second, third = (Peer(broker.door) for _ in range(3))
        limits = first.ask({"op": "hello"})["limits"]
        assert (limits["peers"], limits["credit"], limits["steps"]) == (3, 7, 5)
        assert first.ask({"op": "offer", "functions": []})["credit"] == 1
        assert first.code({"op": "offer", "functions": [], "credit": 8}) == "bad_field"
        steps = [{"name": str(n), "fun": "f", "wait": True} for n in range(6)]
        assert first.code({"op": "graph", "id": "g", "steps": steps}) == "too_large"
        assert second.ask(PING) and third.ask(PING)
        with Peer(broker.door) as fourth:
            error = fourth.ask(PING)["error"]
            assert error["code"] == "busy" and error["retry"] is True
        third.close()
        with Peer(broker.door, zmq.REQ) as again:
            # The room of the third is free once its end is heard, which may be after a first try.
            assert until(lambda: again.ask(PING) == {"op": "pong", "id": "p"})
        first.close()
        second.close()
