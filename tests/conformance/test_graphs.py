"""Graphs from every kind of peer, in both encodings."""
import time

import pytest
import zmq

from peers import Peer, Worker, named, until


def ref(step, **at):
    return {"$ref": step, **at}


def step(name, fun, *args, **fields):
    return {"name": name, "fun": fun, "args": list(args), **fields}


def fails(run, _):
    raise ValueError("broken")


@pytest.fixture
def functions(workers):
    workers(
        {
            "echo": lambda run, _: run["args"][0],
            "all": lambda run, _: run["args"],
            "add": lambda run, _: sum(run["args"]),
            "fails": fails,
        },
        credit=16,
    )
    workers({"rest": lambda run, _: time.sleep(run["args"][0]) or "rested"})


def graph(*steps, **fields):
    return {"op": "graph", "id": "g", "steps": list(steps), **fields}


def test_values_flow_and_sinks_come_back(asker, functions):
    reply = asker.ask(
        graph(
            step("load", "echo", {"rows": [1, 2, 3], "a/b": {"m~n": 7}}),
            step("one", "echo", ref("load", at="/rows/0")),
            step("odd", "echo", ref("load", at="/a~1b/m~0n")),
            step("sum", "add", ref("one"), ref("odd"), 34),
            step("deep", "echo", {"in": [ref("sum"), {"$lit": ref("sum")}]}),
        )
    )
    assert (reply["op"], reply["id"]) == ("result", "g")
    assert reply["results"] == {"deep": {"in": [42, ref("sum")]}}
    assert "steps" not in reply and len(reply["track"]) == 26


@pytest.mark.parametrize("returns, names", [("all", "abc"), ("sinks", "c"), (["a", "b"], "ab")])
def test_what_is_returned(asker, functions, returns, names):
    steps = [step("a", "echo", 1), step("b", "echo", ref("a")), step("c", "echo", ref("b"))]
    reply = asker.ask(graph(*steps, **{"return": returns}))
    assert "".join(sorted(reply["results"])) == names


def test_names_are_references_only_if_asked(asker, functions):
    steps = [step("a", "echo", {"x": [5]}), step("b", "all", "a.x.0", "a.", "ab", {"a": "a"})]
    assert asker.ask(graph(*steps))["results"]["b"] == ["a.x.0", "a.", "ab", {"a": "a"}]
    steps[1]["args"][1] = {"$lit": "a"}
    reply = asker.ask(graph(*steps, refs="names"))
    assert reply["results"]["b"] == [5, "a", "ab", {"a": {"x": [5]}}]


def test_data_never_changes_the_graph(asker, functions):
    """What a step returns is not looked into, whatever it looks like."""
    quoted = {"$lit": [ref("b"), {"$lit": 1}, {"$frame": 1}]}
    reply = asker.ask(graph(step("a", "echo", quoted), step("b", "echo", ref("a"))))
    assert reply["results"]["b"] == quoted["$lit"]


@pytest.mark.parametrize(
    "steps, code, words",
    [
        ([], "bad_graph", "step"),
        ([step("a", "echo"), step("a", "echo")], "duplicate_step", "a"),
        ([step("a", "echo", ref("b"))], "unknown_step", "b"),
        ([step("a", "echo", after=["b"])], "unknown_step", "b"),
        ([step("a", "echo", ref("a"))], "cycle", "a → a"),
        ([step("a", "echo", ref("c")), step("c", "echo", ref("a"))], "cycle", "→"),
        ([step("a", "nobody")], "unknown_function", "nobody"),
        ([step("a", "echo", version="^7")], "no_version", "1.0.0"),
        ([step("a", "echo", locs=["moon"])], "no_location", "moon"),
        ([step("a", "echo", fallback={"fun": "nobody"})], "unknown_function", "nobody"),
        ([step("a", "mpreg.nothing")], "unknown_function", "mpreg.nothing"),
        ([step("a", "")], "bad_name", "step 0"),
        ([step("a", "echo", retry={"times": 101})], "bad_field", "step 0"),
        ([step("a", "echo", fallback={})], "bad_field", "step 0"),
        ([step("a", "echo", ref("b", at="x"))], "bad_field", "at"),
        ([step("a", "echo"), {"name": "b"}], "bad_field", "b"),
        ([step("a", "echo"), 7], "bad_field", "step 1"),
        ([{"name": "a", "fun": "echo", "args": {}}], "bad_field", "args"),
    ],
)
def test_a_graph_is_refused_whole(asker, functions, steps, code, words):
    reply = asker.ask(graph(*steps))
    error = reply["error"]
    assert (reply["op"], reply["id"], error["code"]) == ("error", "g", code), error
    assert error["op"] == "graph"
    assert words in error["message"] or words == error.get("field"), error
    assert "results" not in reply and "steps" not in reply


@pytest.mark.parametrize(
    "fields, field",
    [
        ({"return": "some"}, "return"),
        ({"return": ["a", 1]}, "return"),
        ({"on_error": "stop"}, "on_error"),
        ({"refs": "magic"}, "refs"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"steps": {}}, "steps"),
        ({"part": -1}, "part"),
    ],
)
def test_a_bad_option_is_named(asker, functions, fields, field):
    error = asker.ask({**graph(step("a", "echo", 1)), **fields})["error"]
    assert (error["code"], error["field"], error["op"]) == ("bad_field", field, "graph")


def test_return_names_a_step_that_is_not_there(asker, functions):
    assert asker.code(graph(step("a", "echo", 1), **{"return": ["b"]})) == "unknown_step"


def test_a_failed_step_and_what_hangs_off_it(asker, functions):
    steps = [
        step("bad", "fails"),
        step("next", "echo", ref("bad")),
        step("far", "echo", ref("next")),
        step("good", "echo", 1),
        step("more", "echo", ref("good")),
    ]
    reply = asker.ask(graph(*steps, on_error="continue"))
    assert (reply["op"], reply["error"]["step"]) == ("error", "bad")
    assert reply["error"]["code"] == "failed"
    assert reply["error"]["message"] == "broken" and reply["error"]["culprit"] == "worker"
    assert reply["results"] == {"more": 1}
    told = {name: (told["state"], told.get("code")) for name, told in reply["steps"].items()}
    assert told == {
        "bad": ("failed", "failed"),
        "next": ("skipped", "input_failed"),
        "far": ("skipped", "input_failed"),
        "good": ("done", None),
        "more": ("done", None),
    }


def test_a_missing_path_names_step_path_and_type(asker, functions):
    steps = [step("a", "echo", {"rows": []}), step("b", "echo", ref("a", at="/rows/3"))]
    reply = asker.ask(graph(*steps))
    assert (reply["error"]["code"], reply["error"]["step"]) == ("missing_path", "b")
    message = reply["error"]["message"]
    assert "/rows/3" in message and "array" in message and "a" in message


def test_retry_and_fallback(asker, broker, functions):
    tries = []

    def flaky(run, _):
        tries.append(run["attempt"])
        if len(tries) % 3:
            raise ValueError("not yet")
        return "third"

    with Worker(broker.door, {"flaky": flaky}):
        reply = asker.ask(graph(step("a", "flaky", retry={"times": 2, "backoff_ms": 1})))
        assert reply["results"] == {"a": "third"} and len(tries) == 3
    steps = [
        step("a", "fails", fallback={"value": {"old": [1]}}),
        step("b", "fails", fallback={"fun": "add", "args": [ref("c"), 1]}),
        step("c", "echo", 1),
        step("d", "all", ref("a", at="/old"), ref("b")),
    ]
    reply = asker.ask(graph(*steps))
    assert reply["op"] == "result" and reply["results"] == {"d": [[1], 2]}
    assert reply["steps"]["a"] == {"state": "degraded", "code": "failed"}


def test_a_step_starts_when_its_own_inputs_are_there(asker, functions):
    """No level waits for its slowest member."""
    begun = time.monotonic()
    steps = [
        step("slow", "rest", 0.4),
        step("a", "echo", 1),
        step("b", "add", ref("a"), 1),
        step("end", "all", ref("slow"), ref("b")),
    ]
    asker.send(graph(*steps, progress=True))
    order = []
    while (message := asker.reply())["op"] == "progress":
        order.append((message.get("step"), message["event"]))
    assert message["results"] == {"end": ["rested", 2]}
    assert time.monotonic() - begun < 1.5
    if asker.socket.type == zmq.DEALER:
        assert order.index(("b", "done")) < order.index(("slow", "done"))
        assert order[0] == (None, "accepted") and order[-1] == ("end", "done")
    else:
        assert order == [], "a REQ never gets progress"


def test_progress_tells_of_every_step(dealer, functions):
    steps = step("a", "echo", 1), step("b", "fails", fallback={"value": 0})
    dealer.send(graph(*steps, progress=True))
    events = []
    while (message := dealer.reply())["op"] == "progress":
        events.append(message)
    assert {event["track"] for event in events} == {message["track"]}
    told = {(event.get("step"), event["event"]) for event in events}
    assert {(None, "accepted"), ("a", "started"), ("a", "done"), ("b", "degraded")} <= told
    ids = {event["step"]: event["step_id"] for event in events if "step" in event}
    assert len(set(ids.values())) == 2 and all(len(id) == 26 for id in ids.values())
    assert events[-1]["percent"] == 100


def test_a_deadline_ends_a_graph(asker, functions):
    begun = time.monotonic()
    reply = asker.ask(graph(step("a", "rest", 1), step("b", "echo", ref("a")), timeout_ms=200))
    assert time.monotonic() - begun < 0.9
    assert reply["error"]["code"] == "timeout" and "step" not in reply["error"]
    assert reply["steps"]["b"]["state"] == "cancelled"


def test_cancel_ends_a_graph_and_tells_its_workers(broker, dealer):
    with Peer(broker.door) as worker:
        worker.ask(named(["hold"]))
        dealer.send(graph(step("a", "hold")))
        run = worker.reply()
        dealer.send({"op": "cancel", "id": "g"})
        assert dealer.reply()["error"]["code"] == "cancelled"
        assert worker.reply() == {"op": "cancel", "id": run["id"]}


def test_a_graph_in_parts(dealer, functions):
    """References point forward across parts; options stand in the first."""
    parts = [
        graph(step("a", "echo", ref("c")), part=0, more=True, **{"return": ["a", "b"]}),
        graph(step("b", "echo", 2), part=1, more=True),
        graph(step("c", "echo", 3), part=2),
    ]
    for part in parts:
        dealer.send(part)
    assert dealer.reply()["results"] == {"a": 3, "b": 2}


def test_a_gap_between_parts(dealer, functions):
    dealer.send(graph(step("a", "echo", 1), part=0, more=True))
    dealer.send(graph(step("b", "echo", 1), part=2))
    assert dealer.reply()["error"]["code"] == "incomplete_graph"
    assert dealer.code(graph(step("a", "echo", 1), part=1)) == "incomplete_graph"
    assert dealer.silent()


def test_a_reply_beyond_the_limit_comes_in_parts(dealer, functions):
    text = "x" * 700_000
    steps = [step(f"s{n}", "echo", text) for n in range(5)]
    dealer.send(graph(*steps))
    results, parts = {}, []
    while True:
        reply = dealer.reply()
        results |= reply["results"]
        parts.append((reply["part"], reply.get("more", False)))
        if not parts[-1][1]:
            break
    assert sorted(results) == [f"s{n}" for n in range(5)]
    assert all(value == text for value in results.values())
    assert parts == [(n, n + 1 < len(parts)) for n in range(len(parts))] and len(parts) > 1


def test_a_req_gets_a_large_reply_whole(broker, encoding, functions):
    with Peer(broker.door, zmq.REQ, encoding) as req:
        reply = req.ask(graph(*[step(f"s{n}", "echo", "x" * 700_000) for n in range(5)]))
        assert len(reply["results"]) == 5 and "part" not in reply


def test_a_batch_of_graphs_and_calls(dealer, functions):
    graphs = [{**graph(step("a", "echo", n)), "id": f"g{n}"} for n in range(50)]
    calls = [{"op": "call", "id": f"c{n}", "fun": "echo", "args": [n]} for n in range(50)]
    dealer.send([item for pair in zip(graphs, calls) for item in pair])
    replies = dealer.replies(100)
    assert all(replies[f"g{n}"]["results"] == {"a": n} for n in range(50))
    assert all(replies[f"c{n}"]["result"] == n for n in range(50))


def test_check_and_explain(broker, asker):
    with Peer(broker.door) as worker:
        worker.ask(named(["held"]))
        steps = [step("a", "held"), step("b", "held", ref("a")), step("c", "gone", wait=True)]
        report = asker.call("mpreg.graph.check", args=[], kwargs={"steps": steps, "impact": "a"})
        report = report["result"]
        assert (report["ok"], report["steps"], report["arrows"]) == (True, 3, 1)
        assert report["impact"]["steps"] == ["b"]
        told = {step["name"]: step for step in report["plan"]}
        assert told["b"]["inputs"] == ["a"] and told["a"]["worker"] is not None
        missing = [row for row in report["placement"] if row["worker"] is None]
        assert "gone" in missing[0]["missing"]
        assert worker.silent(), "a check calls nobody"
        dot = asker.call("mpreg.graph.check", args=[], kwargs={"steps": steps, "dot": True})
        assert '"a" -> "b"' in dot["result"]["dot"]
        track = "01ARZ3NDEKTSV4RRFFQ69G5FA0"
        with Peer(broker.door) as dealer:
            dealer.send(graph(*steps, track=track))
            run = worker.reply()

            def open_steps():
                told = asker.call("mpreg.graph.explain", args=[], kwargs={"track": track})
                rows = told["result"]["open"]
                return {row["step"]: row for row in rows} if len(rows) == 3 else None

            rows = until(open_steps)
            assert rows["a"]["state"] == "running" and "runs on" in rows["a"]["why"]
            assert "waits for a" in rows["b"]["why"]
            assert "gone" in rows["c"]["why"]
            dealer.send({"op": "cancel", "id": "g"})
            worker.send({"op": "result", "id": run["id"], "result": 1})
            assert dealer.reply()["error"]["code"] == "cancelled"
        told = asker.call("mpreg.graph.explain", args=[], kwargs={"track": track})["result"]
        assert told["state"] == "failed" and told["error"]["code"] == "cancelled"
    unknown = asker.call("mpreg.graph.explain", args=[], kwargs={"track": track[:-1] + "9"})
    assert unknown["error"]["code"] == "unknown_graph"


def test_a_builtin_is_a_step_as_well(asker, functions):
    steps = [step("s", "mpreg.status"), step("n", "echo", ref("s", at="/node"))]
    reply = asker.ask(graph(*[{**steps[0], "args": []}, steps[1]]))
    assert reply["results"]["n"].startswith("node-")


def test_a_graph_of_two_thousand_steps(dealer, functions):
    steps = [step("s0", "add", 1)]
    steps += [step(f"s{n}", "add", ref(f"s{n // 2}"), 1) for n in range(1, 2_000)]
    reply = dealer.ask(graph(*steps, **{"return": ["s1999"]}))
    assert reply["results"]["s1999"] == 12
