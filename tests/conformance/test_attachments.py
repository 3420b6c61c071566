"""Attachments: frames behind the envelope, named in values, never copied into them."""
import pytest
import zmq

from peers import Json, Packed, Peer

FIRST, SECOND = {"$frame": 1}, {"$frame": 2}


def seen(run, frames):
    """What a worker got, told without attachments: its values and the frames as text."""
    return {
        "args": [repr(arg) for arg in run.get("args", [])],
        "kwargs": {key: repr(value) for key, value in run.get("kwargs", {}).items()},
        "frames": [frame.decode() for frame in frames],
    }


def back(run, frames):
    return (run["args"][0], *frames)


def apart(run, frames):
    first, second = (frames[arg["$frame"] - 1] for arg in run["args"])
    return ({"second": SECOND, "first": FIRST}, first, second)


@pytest.fixture
def names(workers, encoding):
    workers({"seen": seen, "back": back, "apart": apart}, encoding)


def call(fun, *args, **fields):
    return {"op": "call", "id": "1", "fun": fun, "args": list(args), **fields}


def outcome(peer, message, *frames):
    peer.send(message, *frames)
    return peer.recv()


def test_one_attachment_there_and_back(asker, names):
    reply, frames = outcome(asker, call("back", FIRST), b"\x00\xff" * 1_000)
    assert reply["result"] == FIRST and frames == [b"\x00\xff" * 1_000]


def test_an_empty_and_a_large_attachment(dealer, names):
    for attachment in (b"", b"x" * (16 << 20)):
        reply, frames = outcome(dealer, call("back", FIRST), attachment)
        assert reply["result"] == FIRST and frames == [attachment]


def test_several_in_any_order_and_depth(asker, names):
    message = call("seen", [{"deep": SECOND}], kwargs={"k": {"$frame": 3}, "first": FIRST})
    reply, _ = outcome(asker, message, b"one", b"two", b"three")
    told = reply["result"]
    # Whatever the numbers are, they lead to the same bytes.
    number = {name: int(told["kwargs"][name].strip("}").split(": ")[1]) for name in ("k", "first")}
    assert told["frames"][number["first"] - 1] == "one"
    assert told["frames"][number["k"] - 1] == "three"
    assert sorted(told["frames"]) == ["one", "three", "two"]
    reply, frames = outcome(asker, call("apart", SECOND, FIRST), b"one", b"two")
    result = {key: frames[value["$frame"] - 1] for key, value in reply["result"].items()}
    assert result == {"first": b"two", "second": b"one"}


def test_the_numbers_go_over_the_whole_batch_and_begin_anew_for_each_worker(dealer, names):
    calls = [
        {**call("seen", {"$frame": 3}), "id": "a"},
        {**call("seen", "none"), "id": "b"},
        {**call("seen", FIRST, SECOND), "id": "c"},
    ]
    dealer.send(calls, b"one", b"two", b"three")
    replies = {}
    for _ in calls:
        reply, _ = dealer.recv()
        replies[reply["id"]] = reply["result"]
    assert replies["a"] == {"args": [repr(FIRST)], "kwargs": {}, "frames": ["three"]}
    assert replies["b"]["frames"] == []
    assert replies["c"]["args"] == [repr(FIRST), repr(SECOND)]
    assert replies["c"]["frames"] == ["one", "two"]


def test_a_message_with_attachments_comes_alone(dealer, names):
    calls = [{**call("back", {"$frame": n}), "id": str(n)} for n in (1, 2, 3)]
    dealer.send(calls, b"one", b"two", b"three")
    told = {}
    for _ in calls:
        body, *frames = dealer.raw()
        reply = dealer.encoding.unpack(body)
        assert reply["result"] == FIRST and len(frames) == 1
        told[reply["id"]] = frames[0]
    assert told == {"1": b"one", "2": b"two", "3": b"three"}


def test_a_req_batch_has_all_attachments_in_one_message(broker, encoding, names):
    with Peer(broker.door, zmq.REQ, encoding) as req:
        calls = [{**call("back", {"$frame": n}), "id": str(n)} for n in (1, 2)]
        req.send(calls, b"one", b"two")
        body, *frames = req.raw()
        replies = encoding.unpack(body)
        by_id = {reply["id"]: frames[reply["result"]["$frame"] - 1] for reply in replies}
        assert by_id == {"1": b"one", "2": b"two"}


@pytest.mark.parametrize(
    "args, frames",
    [
        ([], 1),
        ([FIRST], 2),
        ([SECOND], 1),
        ([FIRST, FIRST], 1),
        ([FIRST, {"$frame": 0}], 1),
        ([FIRST, {"$frame": -1}], 1),
        ([FIRST, {"$frame": "2"}], 2),
        ([FIRST, {"$frame": 1.5}], 2),
        ([{"$lit": FIRST}], 1),
    ],
)
def test_a_frame_unused_missing_or_repeated(asker, names, args, frames):
    reply, _ = outcome(asker, call("back", *args), *[b"x"] * frames)
    assert reply["error"]["code"] == "bad_frame"
    assert (reply["id"], reply["error"]["op"]) == ("1", "call")


def test_frames_behind_an_op_that_takes_none(dealer):
    assert dealer.code({"op": "ping"}, b"x") == "bad_frame"
    assert dealer.code({"op": "hello"}, b"x") == "bad_frame"


def test_one_bad_item_of_a_batch_with_attachments(dealer, names):
    calls = [{**call("back", FIRST), "id": "good"}, {**call("back", {"$frame": 9}), "id": "bad"}]
    dealer.send(calls, b"one")
    replies = {}
    for _ in calls:
        reply, frames = dealer.recv()
        replies[reply["id"]] = (reply, frames)
    assert replies["good"][1] == [b"one"]
    assert replies["bad"][0]["error"]["code"] == "bad_frame"


def test_without_attachments_nothing_is_a_tag(asker, names):
    for value in (FIRST, {"$lit": 1}, {"$ref": "x"}, {"$lit": {"$frame": 1}}):
        assert asker.call("seen", value)["result"]["args"] == [repr(value)]


def test_lookalikes_are_quoted_in_a_message_with_attachments(asker, names):
    quoted = {"$lit": {"$frame": 7}}
    reply, _ = outcome(asker, call("seen", quoted, FIRST), b"one")
    told = reply["result"]
    # The worker reads tags as well, so the broker quotes what only looks like one.
    assert told["args"] == [repr(quoted), repr(FIRST)]
    data = {"$frame": 1, "more": 2}
    reply, _ = outcome(asker, call("seen", data, FIRST), b"one")
    assert reply["result"]["args"] == [repr(data), repr(FIRST)]
    reply, frames = outcome(asker, call("back", [FIRST, {"$lit": SECOND}]), b"one")
    assert reply["result"] == [FIRST, {"$lit": SECOND}] and frames == [b"one"]


def test_attachments_flow_through_a_graph(asker, names):
    graph = {
        "op": "graph",
        "id": "g",
        "steps": [
            {"name": "a", "fun": "back", "args": [FIRST]},
            {"name": "b", "fun": "back", "args": [[{"$ref": "a"}, {"$ref": "a"}]]},
            {"name": "c", "fun": "seen", "args": [{"$ref": "b", "at": "/1"}]},
        ],
        "return": ["b", "c"],
    }
    reply, frames = outcome(asker, graph, b"data")
    assert reply["op"] == "result", reply
    numbers = [tag["$frame"] for tag in reply["results"]["b"]]
    assert [frames[number - 1] for number in numbers] == [b"data", b"data"]
    assert reply["results"]["c"] == {"args": [repr(FIRST)], "kwargs": {}, "frames": ["data"]}


@pytest.mark.parametrize("args", [[], [FIRST, FIRST], [SECOND, FIRST]])
def test_each_frame_of_a_graph_is_named_once(dealer, names, args):
    graph = {"op": "graph", "id": "g", "steps": [{"name": "a", "fun": "back", "args": args}]}
    reply, _ = outcome(dealer, graph, b"x")
    assert reply["error"]["code"] == "bad_frame"


def test_bytes_of_msgpack_become_an_attachment_in_json(broker, workers):
    def bytes_back(run, frames):
        assert run["args"] == [b"\x00\xff", {"k": b"two"}] and frames == []
        return {"bytes": b"\x01\x02", "text": "x"}

    workers({"packed": bytes_back}, Packed)
    workers({"plain": seen}, Json)
    with Peer(broker.door, encoding=Packed) as packed, Peer(broker.door) as plain:
        told = packed.call("plain", b"one", [b"two"])["result"]
        assert told["frames"] == ["one", "two"]
        assert told["args"] == [repr(FIRST), repr([SECOND])]
        reply = packed.call("packed", b"\x00\xff", {"k": b"two"})
        assert reply["result"] == {"bytes": b"\x01\x02", "text": "x"}
        workers({"binary": lambda *_: {"bytes": b"\x01\x02"}}, Packed)
        plain.send(call("binary"))
        reply, frames = plain.recv()
        assert reply["result"] == {"bytes": FIRST} and frames == [b"\x01\x02"]


def test_limits_of_attachments(asker, names):
    assert asker.ask({"op": "ping"}) == {"op": "pong"}
    assert asker.code(call("back", FIRST), b"x" * ((16 << 20) + 1)) == "too_large"
    tags = [{"$frame": number} for number in range(1, 66)]
    assert asker.code(call("back", tags), *[b"x"] * 65) == "too_large"
    reply, frames = outcome(asker, call("back", tags[:64]), *[b"x"] * 64)
    assert len(frames) == 64 and reply["op"] == "result"
