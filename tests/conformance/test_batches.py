"""Batches: each item gets an answer of its own, whatever the others are."""
import pytest
import zmq

from peers import Peer, of_zeromq


def double(run, _):
    return run["args"][0] * 2


GOOD = {"op": "call", "id": "good", "fun": "double", "args": [21]}
PING = {"op": "ping", "id": "p"}

BAD = {
    "no object": (7, "bad_field"),
    "an array": ([GOOD], "bad_field"),
    "nothing": (None, "bad_field"),
    "no op": ({"id": 1}, "bad_field"),
    "unknown op": ({"op": "dance"}, "unknown_op"),
    "no id": ({"op": "call", "fun": "double"}, "bad_field"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_bad_item_gets_its_own_error(dealer, workers, bad, at):
    workers({"double": double})
    item, code = BAD[bad]
    batch = [GOOD, PING]
    batch.insert(at, item)
    dealer.send(batch)
    replies = dealer.replies(3)
    assert replies["good"]["result"] == 42
    assert replies["p"] == {"op": "pong", "id": "p"}
    assert replies[at]["error"]["code"] == code and "id" not in replies[at]


def test_items_with_ids_keep_them_in_errors(dealer):
    dealer.send([{"op": "dance", "id": "a"}, {"op": "call", "id": "b"}])
    replies = dealer.replies(2)
    assert replies["a"]["error"]["code"] == "unknown_op" and "item" not in replies["a"]
    assert replies["b"]["error"]["field"] == "fun"


def test_the_same_id_twice_in_one_batch(dealer, broker):
    with Peer(broker.door) as worker:
        worker.ask({"op": "offer", "functions": [{"name": "once"}], "credit": 2})
        call = {"op": "call", "id": "same", "fun": "once"}
        dealer.send([call, call])
        refused = dealer.reply()
        assert refused["error"]["code"] == "duplicate_id"
        run = worker.reply()
        worker.send({"op": "result", "id": run["id"], "result": 1})
        assert dealer.reply()["result"] == 1


def test_an_empty_batch_is_one_error(asker):
    assert asker.ask(PING)["op"] == "pong"
    error = asker.ask([])
    assert error["error"]["code"] == "empty_batch" and "id" not in error


def test_too_many_items_are_one_error(asker):
    assert asker.ask(PING)["op"] == "pong"
    assert asker.code([PING] * 8_193) == "too_large"


def test_a_batch_that_cannot_be_read_has_not_happened(peer, workers):
    calls = []
    workers({"count": lambda run, _: calls.append(1)})
    body = b'[{"op":"call","id":"1","fun":"count"},{"op":'
    assert peer.code(body) == "bad_encoding"
    assert peer.silent() and calls == []


def test_a_large_batch_is_answered_whole(dealer, workers):
    workers({"double": double}, credit=64)
    calls = [{"op": "call", "id": str(n), "fun": "double", "args": [n]} for n in range(2_000)]
    dealer.send(calls)
    replies = dealer.replies(2_000)
    assert all(replies[str(n)]["result"] == 2 * n for n in range(2_000))


def test_who_sends_batches_gets_batches(broker, encoding):
    """Only a peer that can read them: it said so, or it sent one."""
    with Peer(broker.door, encoding=encoding) as peer:
        for _ in range(3):
            peer.send(PING)
        for _ in range(3):
            assert type(encoding.unpack(peer.raw()[0])) is dict
        peer.send([PING] * 3)
        assert type(encoding.unpack(peer.raw()[0])) is list


@pytest.mark.parametrize("options", [{}, {"req_correlate": 1}], ids=["req", "req_correlate"])
def test_a_req_gets_one_array_in_the_order_it_sent(broker, encoding, workers, options):
    workers({"double": double})
    with Peer(broker.door, zmq.REQ, encoding, **options) as req:
        calls = [{"op": "call", "id": str(n), "fun": "double", "args": [n]} for n in range(20)]
        calls.insert(3, {"op": "dance"})
        calls.insert(7, {"op": "cancel", "id": "1"})
        req.send(calls)
        replies = encoding.unpack(req.raw()[0])
        assert [reply.get("result", reply["op"]) for reply in replies] == [
            0, 2, 4, "error", 6, 8, 10, "error", *range(12, 40, 2),
        ]
        assert replies[3]["item"] == 3 and replies[3]["error"]["code"] == "unknown_op"
        assert replies[7]["error"]["code"] == "needs_dealer"
        # Even a batch of one is answered by an array.
        req.send([PING])
        assert encoding.unpack(req.raw()[0]) == [{"op": "pong", "id": "p"}]


def test_a_relaxed_req_hears_nothing_of_what_it_gave_up(broker, workers):
    with Peer(broker.door) as worker:
        worker.ask({"op": "offer", "functions": [{"name": "stuck"}], "credit": 2})
        with Peer(broker.door, zmq.REQ, req_correlate=1, req_relaxed=1) as req:
            req.send({"op": "call", "id": "1", "fun": "stuck"})
            first = worker.reply()["id"]
            req.send({"op": "call", "id": "2", "fun": "stuck"})
            second = worker.reply()["id"]
            worker.send({"op": "result", "id": first, "result": "first"})
            worker.send({"op": "result", "id": second, "result": "second"})
            assert req.reply()["result"] == "second"
            assert req.ask(PING) == {"op": "pong", "id": "p"}


def test_a_plain_dealer_may_imitate_a_req(broker, encoding):
    """Its delimiter comes back, and it may have as many requests in flight as it likes."""
    of_zeromq()
    with Peer(broker.door, encoding=encoding) as peer:
        for number in range(3):
            peer.socket.send_multipart([b"", encoding.pack({"op": "ping", "id": str(number)})])
        for number in range(3):
            empty, body = peer.raw()
            assert empty == b"" and encoding.unpack(body)["id"] == str(number)


def test_white_space_before_the_envelope(peer):
    assert peer.ask(b' \t\r\n{"op":"ping"}') == {"op": "pong"}
    peer.send(b'\n[{"op":"ping"}]')
    assert peer.reply() == {"op": "pong"}
