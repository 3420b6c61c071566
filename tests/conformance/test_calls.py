"""Hello, calls, errors, cancel, progress and bye, from every kind of peer."""
import time

import pytest
import zmq

from peers import Json, Packed, Peer, named, until


def echo(run, _):
    return run["args"][0]


def fails(run, _):
    raise ValueError("no paper")


def test_ping_is_answered_before_hello(asker):
    assert asker.ask({"op": "ping"}) == {"op": "pong"}
    assert asker.ask({"op": "ping", "id": "p"}) == {"op": "pong", "id": "p"}


def test_hello_says_what_there_is(asker, broker):
    welcome = asker.ask({"op": "hello", "id": "h", "name": "someone"})
    assert (welcome["op"], welcome["id"]) == ("welcome", "h")
    assert welcome["endpoints"] == broker.banner["endpoints"]
    assert welcome["limits"]["envelope_bytes"] == 4 << 20
    assert welcome["limits"]["refresh_ms"] == 2_000
    assert welcome["epoch"] > 0


def test_a_token_is_refused_while_there_is_no_security(asker):
    reply = asker.ask({"op": "hello", "id": "h", "token": "secret"})
    assert (reply["id"], reply["error"]["code"]) == ("h", "not_supported")
    assert reply["error"]["field"] == "token"


def test_a_call_goes_to_a_worker_and_back(asker, workers):
    workers({"echo": echo, "keys": lambda run, _: run["kwargs"]})
    for value in (None, True, 7, -1.5, "ä\n\"", [1, [2]], {"b": 1, "a": {"c": []}}):
        assert asker.call("echo", value)["result"] == value
    assert asker.call("keys", kwargs={"k": [1]})["result"] == {"k": [1]}
    reply = asker.ask({"op": "call", "id": "same", "fun": "echo", "args": [1]})
    assert reply == {"op": "result", "id": "same", "result": 1}


def test_what_the_caller_left_out_is_left_out(dealer, workers):
    workers({"whole": lambda run, _: sorted(run)})
    assert dealer.call("whole")["result"] == ["args", "attempt", "deadline_ms", "fun", "id", "op"]
    reply = dealer.ask({"op": "call", "id": "1", "fun": "whole"})
    assert reply["result"] == ["attempt", "deadline_ms", "fun", "id", "op"]


def test_a_failure_is_the_workers(asker, workers):
    workers({"fails": fails})
    error = asker.call("fails")["error"]
    assert error["code"] == "failed" and error["message"] == "no paper"
    assert (error["culprit"], error["retry"], error["op"]) == ("worker", False, "call")


def test_a_worker_may_have_codes_of_its_own(broker, dealer):
    with Peer(broker.door) as worker:
        assert worker.ask(named(["coded"]))["op"] == "offered"
        for sent, code, retry in [
            ({"code": "paper", "message": "none left", "retry": True}, "paper", True),
            ({"message": "no code"}, "failed", False),
            ("text alone", "failed", False),
            ({"code": "x" * 65, "message": "too long a code"}, "failed", False),
        ]:
            dealer.send({"op": "call", "id": "1", "fun": "coded"})
            run = worker.reply()
            worker.send({"op": "error", "id": run["id"], "error": sent})
            error = dealer.reply()["error"]
            assert (error["code"], error["retry"], error["culprit"]) == (code, retry, "worker")


@pytest.mark.parametrize(
    "fields, code, field",
    [
        ({"fun": "nobody"}, "unknown_function", "fun"),
        ({"fun": "mpreg.nothing"}, "unknown_function", "fun"),
        ({"fun": "old", "version": "^9"}, "no_version", "version"),
        ({"fun": "old", "locs": ["moon"]}, "no_location", "locs"),
        ({"fun": "old", "version": "one"}, "bad_version", "version"),
        ({"fun": "old", "cluster": "x"}, "no_location", "cluster"),
        ({"fun": "a..b"}, "bad_name", "fun"),
        ({"fun": ""}, "bad_name", "fun"),
        ({"fun": "a\x07"}, "bad_name", "fun"),
        ({"fun": "x" * 256}, "bad_name", "fun"),
        ({"fun": 1}, "bad_field", "fun"),
        ({"fun": None}, "bad_field", "fun"),
        ({"fun": "old", "args": {}}, "bad_field", "args"),
        ({"fun": "old", "kwargs": []}, "bad_field", "kwargs"),
        ({"fun": "old", "locs": "moon"}, "bad_field", "locs"),
        ({"fun": "old", "locs": [1]}, "bad_field", "locs"),
        ({"fun": "old", "locs": ["x"] * 65}, "bad_field", "locs"),
        ({"fun": "old", "timeout_ms": 0}, "bad_field", "timeout_ms"),
        ({"fun": "old", "timeout_ms": -1}, "bad_field", "timeout_ms"),
        ({"fun": "old", "timeout_ms": 10**12}, "bad_field", "timeout_ms"),
        ({"fun": "old", "timeout_ms": "5"}, "bad_field", "timeout_ms"),
        ({"fun": "old", "idempotent": 1}, "bad_field", "idempotent"),
        ({"fun": "old", "wait": "yes"}, "bad_field", "wait"),
        ({"fun": "old", "track": "x"}, "bad_field", "track"),
        ({"fun": "mpreg.status", "args": [1]}, "bad_args", "args"),
        ({"fun": "mpreg.status", "kwargs": {"x": 1}}, "bad_args", "x"),
        ({"fun": "mpreg.graph.explain"}, "bad_args", "track"),
    ],
)
def test_a_bad_call_names_code_field_and_op(asker, workers, fields, code, field):
    workers({"old": echo})
    reply = asker.ask({"op": "call", "id": "bad", **fields})
    error = reply["error"]
    assert (reply["op"], reply["id"]) == ("error", "bad")
    assert (error["code"], error["field"], error["op"]) == (code, field, "call"), error
    assert error["message"] and error["culprit"] in ("caller", "broker")


@pytest.mark.parametrize(
    "message, code, field",
    [
        ({}, "bad_field", "op"),
        ({"op": 1}, "bad_field", "op"),
        ({"op": "dance"}, "unknown_op", "op"),
        ({"op": "welcome"}, "unknown_op", "op"),
        ({"op": "run", "id": "01M82G1KCT1TCHKD0ZDNK6MWJG", "fun": "f"}, "unknown_op", "op"),
        ({"op": "call", "fun": "f"}, "bad_field", "id"),
        ({"op": "call", "id": "", "fun": "f"}, "bad_field", "id"),
        ({"op": "call", "id": "x" * 65, "fun": "f"}, "bad_field", "id"),
        ({"op": "call", "id": 7, "fun": "f"}, "bad_field", "id"),
        ({"op": "hello", "batch": "yes"}, "bad_field", "batch"),
        ({"op": "hello", "name": "x" * 256}, "bad_name", "name"),
        ({"op": "ping", "id": 1}, "bad_field", "id"),
    ],
)
def test_a_message_without_sense_is_told_so(asker, message, code, field):
    reply = asker.ask(message)
    assert (reply["op"], reply["error"]["code"], reply["error"]["field"]) == ("error", code, field)


@pytest.mark.parametrize(
    "offer, code, field",
    [
        ({}, "bad_field", "functions"),
        ({"functions": {}}, "bad_field", "functions"),
        ({"functions": [1]}, "bad_field", "functions"),
        ({"functions": [{}]}, "bad_field", "functions/0/name"),
        ({"functions": [{"name": "f"}, {"name": "a..b"}]}, "bad_name", "functions/1/name"),
        ({"functions": [{"name": "mpreg.f"}]}, "reserved_name", None),
        ({"functions": [{"name": "f", "version": "1"}]}, "bad_version", None),
        ({"functions": [{"name": "f"}, {"name": "f"}]}, "bad_field", None),
        ({"functions": [{"name": "f"}], "credit": 65_537}, "bad_field", "credit"),
        ({"functions": [{"name": "f"}], "credit": -1}, "bad_field", "credit"),
        ({"functions": [{"name": "f"}], "locs": [""]}, "bad_field", "locs"),
        ({"functions": [{"name": f"f{n}"} for n in range(10_001)]}, "bad_field", "functions"),
    ],
)
def test_a_refused_offer_changes_nothing(dealer, offer, code, field):
    assert dealer.ask(named(["kept"]))["functions"] == 1
    reply = dealer.ask({"op": "offer", "id": "o", **offer})
    error = reply["error"]
    assert (reply["id"], error["code"], error["op"]) == ("o", code, "offer"), error
    assert error["field"].startswith(field or "functions"), error
    functions = dealer.call("mpreg.functions")["result"]
    assert [row["name"] for row in functions if row["name"] in ("kept", "f")] == ["kept"]


def test_an_offer_replaces_the_one_before(dealer):
    offer = {"op": "offer", "functions": [{"name": "a"}, {"name": "b"}], "credit": 3}
    first = dealer.ask(offer)
    assert (first["functions"], first["credit"]) == (2, 3)
    assert dealer.ask(offer) == first, "an unchanged one gets the same reply"
    assert dealer.ask(named(["b"]))["functions"] == 1
    assert dealer.call("a")["error"]["code"] == "unknown_function"


@pytest.mark.parametrize(
    "message",
    [
        {"op": "cancel", "id": "1"},
        {"op": "offer", "functions": []},
        {"op": "result", "id": "1", "result": 1},
        {"op": "error", "id": "1", "error": "x"},
        {"op": "progress", "id": "1"},
        {"op": "graph", "id": "1", "steps": [], "more": True},
    ],
)
def test_what_has_no_single_reply_needs_a_dealer(broker, encoding, message):
    with Peer(broker.door, zmq.REQ, encoding) as req:
        assert req.code(message) == "needs_dealer"


def test_the_second_use_of_an_id_is_refused_and_the_first_goes_on(broker, dealer):
    with Peer(broker.door) as worker:
        worker.ask(named(["slow"], credit=2))
        call = {"op": "call", "id": "twice", "fun": "slow"}
        dealer.send(call)
        run = worker.reply()
        refused = dealer.ask(call)
        assert (refused["id"], refused["error"]["code"]) == ("twice", "duplicate_id")
        assert refused["error"]["refused"] == "duplicate"
        worker.send({"op": "result", "id": run["id"], "result": "first"})
        assert dealer.reply() == {"op": "result", "id": "twice", "result": "first"}
        assert worker.silent(), "the second never ran"


def test_cancel_ends_a_call_and_tells_its_worker(broker, dealer):
    with Peer(broker.door) as worker:
        worker.ask(named(["hold"]))
        dealer.send({"op": "call", "id": "c", "fun": "hold"})
        run = worker.reply()
        dealer.send({"op": "cancel", "id": "c"})
        reply = dealer.reply()
        assert (reply["id"], reply["error"]["code"]) == ("c", "cancelled")
        assert worker.reply() == {"op": "cancel", "id": run["id"]}
        # The worker's late result is dropped, and frees its credit.
        worker.send({"op": "result", "id": run["id"], "result": "late"})
        assert worker.silent() and dealer.silent()
        ignored = dealer.call("mpreg.status")["result"]["cancels_ignored"]
        dealer.send({"op": "cancel", "id": "never was"})
        assert dealer.silent()
        assert dealer.call("mpreg.status")["result"]["cancels_ignored"] == ignored + 1


def test_a_deadline_travels_and_ends_a_call(broker, asker):
    with Peer(broker.door) as worker:
        worker.ask(named(["late"]))
        begun = time.monotonic()
        asker.send({"op": "call", "id": "1", "fun": "late", "timeout_ms": 200})
        run = worker.reply()
        assert 100 <= run["deadline_ms"] <= 200 and run["attempt"] == 1
        assert asker.reply()["error"]["code"] == "timeout"
        assert 0.15 < time.monotonic() - begun < 1.0
        assert worker.reply() == {"op": "cancel", "id": run["id"]}


def test_progress_goes_to_those_who_asked(asker, broker, request):
    with Peer(broker.door) as worker:
        worker.ask(named(["far"]))
        for wanted in (True, False):
            asker.send({"op": "call", "id": "1", "fun": "far", "progress": wanted})
            run = worker.reply()["id"]
            worker.send({"op": "progress", "id": run, "percent": 40, "note": "2 of 5"})
            worker.send({"op": "progress", "id": run, "note": "no number"})
            worker.send({"op": "result", "id": run, "result": 0})
            events = []
            while (message := asker.reply())["op"] == "progress":
                events.append(message)
            assert message["op"] == "result"
            if not wanted or "req" in request.node.callspec.id.split("-")[0]:
                assert events == []
                continue
            assert [event["event"] for event in events] == ["started", "progress", "progress"]
            assert (events[1]["percent"], events[1]["note"]) == (40, "2 of 5")
            assert "percent" not in events[2]
            assert {event["track"] for event in events} == {message["track"]}


def test_a_caller_may_bring_its_own_track(asker, workers):
    workers({"echo": echo})
    track = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    assert asker.call("echo", 1, track=track)["track"] == track


def test_bye_drains(broker, dealer, peer):
    dealer.ask(named(["leave"], credit=2))
    peer.send({"op": "call", "id": "1", "fun": "leave"})
    run = dealer.reply()
    dealer.send({"op": "bye", "id": "b"})
    assert dealer.silent(), "not while a run is in hand"
    assert peer.call("leave")["error"]["code"] == "unknown_function"
    dealer.send({"op": "result", "id": run["id"], "result": 1})
    assert dealer.reply() == {"op": "bye", "id": "b"}
    assert peer.reply()["result"] == 1
    assert dealer.ask({"op": "bye"}) == {"op": "bye"}, "at once when nothing is offered"


def test_outcomes_of_unknown_runs_are_counted_and_never_answered(dealer):
    stray = dealer.call("mpreg.status")["result"]["calls"]["stray"]
    run = "01M82G1KCT1TCHKD0ZDNK6MWJG"
    dealer.send({"op": "result", "id": run, "result": 1})
    dealer.send({"op": "error", "id": "no ulid", "error": "x"})
    dealer.send({"op": "progress", "id": run, "percent": 1})
    assert dealer.silent()
    assert dealer.call("mpreg.status")["result"]["calls"]["stray"] == stray + 3


def test_a_worker_whose_answer_is_wrong_hears_of_it_and_so_does_the_caller(broker, dealer):
    with Peer(broker.door) as worker:
        worker.ask(named(["wrong"]))
        dealer.send({"op": "call", "id": "1", "fun": "wrong"})
        run = worker.reply()["id"]
        assert worker.code({"op": "result", "id": run}) == "bad_field"
        error = dealer.reply()["error"]
        assert (error["code"], error["culprit"]) == ("bad_field", "worker")


def test_answers_follow_the_encoding_that_was_spoken_last(broker, workers):
    workers({"echo": echo})
    with Peer(broker.door) as peer:
        for encoding in (Packed, Json, Packed, Packed, Json):
            peer.encoding = encoding
            assert peer.call("echo", 1)["result"] == 1
            assert peer.ask({"op": "ping"}) == {"op": "pong"}


def test_the_lost_caller_of_a_call_is_noticed(broker):
    with Peer(broker.door) as worker:
        worker.ask(named(["kept"]))
        caller = Peer(broker.door)
        caller.send({"op": "call", "id": "1", "fun": "kept"})
        run = worker.reply()
        caller.close()
        begun = time.monotonic()
        assert worker.reply() == {"op": "cancel", "id": run["id"]}
        assert time.monotonic() - begun < 1.0


def test_a_lost_worker_is_noticed_at_once(broker, asker):
    worker = Peer(broker.door)
    worker.ask(named(["dies"]))
    asker.send({"op": "call", "id": "1", "fun": "dies"})
    worker.reply()
    begun = time.monotonic()
    worker.close()
    assert asker.reply()["error"]["code"] == "outcome_unknown"
    assert time.monotonic() - begun < 1.0


def test_versions_and_locs_choose(broker, dealer, workers):
    def says(word):
        return {"who": lambda run, _: word}

    for word, version, locs in [("old", "1.2.0", ["eu"]), ("new", "2.0.0", ["eu", "us"])]:
        workers(says(word), version=version, locs=locs)
    until(lambda: len(dealer.call("mpreg.functions")["result"]) >= 2)
    assert dealer.call("who")["result"] == "new", "the highest without a range"
    assert dealer.call("who", version="^1")["result"] == "old"
    assert dealer.call("who", version=">=1, <3", locs=["us"])["result"] == "new"
    assert dealer.call("who", version="^1", locs=["us"])["error"]["code"] == "no_location"
    missing = dealer.call("who", version="^3")["error"]
    assert missing["code"] == "no_version" and "1.2.0" in missing["message"]
