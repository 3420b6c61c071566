"""Brokers joined by links: what stock peers of one of them have of the others."""
import json
import os
import signal
import subprocess
import time

import pytest

from peers import Broker, Peer, Pub, Sub, Worker, free_port, program, until


def named(name, *links, cluster="main", **options):
    arguments = ["--node", name, "--cluster", cluster]
    for link in links:
        arguments += ["--link", link.door]
    return Broker(*arguments, **options)


def nodes(peer):
    """The brokers that can be reached, with what is known of each."""
    told = peer.call("mpreg.nodes")["result"]["nodes"]
    return {node["node"]: node for node in told if node["state"] == "reached"}


def knows(broker, *names):
    with Peer(broker.door) as peer:
        until(lambda: set(names) <= nodes(peer).keys())


@pytest.fixture
def line():
    """Three in a line: a and c know each other through b alone."""
    with named("c") as c, named("b", c) as b, named("a", b) as a:
        knows(a, "b", "c")
        knows(c, "a", "b")
        yield a, b, c


def has(peer, function):
    return any(row["name"] == function for row in peer.call("mpreg.functions")["result"])


def test_a_graph_sent_to_one_end_runs_at_the_other(line):
    a, b, c = line
    double = {"double": lambda run, _: run["args"][0] * 2}
    with Worker(c.door, double, credit=10), Peer(a.door) as peer:
        until(lambda: has(peer, "double"))
        steps = [
            {"name": "x", "fun": "double", "args": [4]},
            {"name": "y", "fun": "double", "args": [{"$ref": "x"}]},
        ]
        reply = peer.ask({"op": "graph", "id": "g", "steps": steps})
        assert reply["results"] == {"y": 16}, reply
        told = peer.call("mpreg.route.explain", kwargs={"node": "c"})["result"]
        assert told["path"] == ["a", "b", "c"] and told["state"] == "reached", told


def test_values_and_attachments_cross_unchanged(line):
    a, _, c = line

    def echo(run, frames):
        return (run["args"][0], *frames)

    with Worker(c.door, {"echo": echo}), Peer(a.door) as peer:
        until(lambda: has(peer, "echo"))
        for value in (2**70, 0.1 + 0.2, 1e308, {"b": 1, "a": [None]}, "x" * 1_000_000):
            assert peer.call("echo", value)["result"] == value
        call = {"op": "call", "id": "f", "fun": "echo", "args": [{"$frame": 1}]}
        peer.send(call, b"\x00\xff" * 100_000)
        reply, frames = peer.recv()
        assert reply["result"] == {"$frame": 1} and frames == [b"\x00\xff" * 100_000]


def test_the_error_of_a_worker_far_away_is_its_own(line):
    a, _, c = line

    def fail(run, _):
        raise ValueError("no such row")

    with Worker(c.door, {"fail": fail}), Peer(a.door) as peer:
        until(lambda: has(peer, "fail"))
        error = peer.call("fail")["error"]
        assert (error["code"], error["message"]) == ("failed", "no such row"), error
        assert error["culprit"] == "worker"


def test_a_new_function_is_callable_within_200_ms_of_its_offer(line):
    a, _, c = line
    with Peer(a.door) as peer:
        slowest = 0.0
        for number in range(10):
            name = f"new.{number}"
            assert peer.call(name)["error"]["code"] == "unknown_function"
            with Worker(c.door, {name: lambda run, _: 1}):
                offered = time.monotonic()
                while "error" in (reply := peer.call(name)):
                    assert reply["error"]["code"] == "unknown_function", reply
                slowest = max(slowest, time.monotonic() - offered)
            until(lambda: not has(peer, name))
        print(f"slowest {slowest:.3f} s")
        assert slowest < 0.2, slowest


def test_a_call_and_a_step_ask_for_a_cluster():
    with named("a") as a, named("b", a, cluster="eu") as b:
        knows(a, "b")
        where = [{"where": lambda run, _, at=at: at} for at in ("main", "eu")]
        with Worker(a.door, where[0]), Worker(b.door, where[1]), Peer(a.door) as peer:

            def both():
                rows = peer.call("mpreg.functions")["result"]
                return sum(row["name"] == "where" for row in rows) == 2

            until(both)
            call = {"op": "call", "id": "c", "fun": "where"}
            assert peer.ask(call)["result"] == "main"
            for cluster in ("eu", "main"):
                assert peer.ask({**call, "cluster": cluster})["result"] == cluster
            steps = [{"name": "s", "fun": "where", "cluster": "eu"}]
            assert peer.ask({"op": "graph", "id": "g", "steps": steps})["results"] == {"s": "eu"}
            check = {"steps": [{"name": "h", "fun": "where"}, *steps]}
            report = peer.call("mpreg.graph.check", kwargs=check)
            places = [(row["cluster"], row["worker"]) for row in report["result"]["placement"]]
            assert [cluster for cluster, _ in places] == [None, "eu"]
            assert len({worker for _, worker in places}) == 2, places
            error = peer.ask({**call, "cluster": "us"})["error"]
            assert (error["code"], error["field"]) == ("no_location", "cluster")
            assert error["message"] == "nobody in us runs where; it is in eu, main"
            command = [program(), "call", "where", "--cluster", "eu", "--broker", a.door]
            assert subprocess.run(command, capture_output=True, check=True).stdout == b"eu\n"


def test_workers_here_come_first(line):
    a, _, c = line
    with Worker(c.door, {"where": lambda run, _: "c"}), Peer(a.door) as peer:
        until(lambda: has(peer, "where"))
        assert peer.call("where")["result"] == "c"
        with Worker(a.door, {"where": lambda run, _: "a"}):
            assert {peer.call("where")["result"] for _ in range(50)} == {"a"}
        until(lambda: not peer.call("mpreg.workers")["result"])
        assert peer.call("where")["result"] == "c"


def hears(pub, topic, *subs):
    """Publishes until every sub has heard of it, and then until none has more to hear."""
    for sub in subs:
        while not sub.socket.poll(5):
            pub.send(topic, b"")
    pub.send(topic, b"last")
    for sub in subs:
        while sub.recv()[2] != b"last":
            pass


def test_a_sub_at_one_end_hears_what_a_pub_says_at_the_other(line):
    a, b, c = line
    with Sub(a, "orders.*.created") as sub, Sub(a, "orders.#") as all_of_them, Pub(c) as pub:
        hears(pub, "orders.other", all_of_them)
        hears(pub, "orders.first.created", sub, all_of_them)
        for number in range(1_000):
            pub.send(f"orders.{number}.created" if number % 2 else "orders.other", b"%d" % number)
            pub.send("invoices.new", b"nobody wants it")
        for number in range(1, 1_000, 2):
            assert sub.recv()[2] == b"%d" % number
        assert [all_of_them.recv()[2] for _ in range(1_000)] == [b"%d" % n for n in range(1_000)]
        assert not sub.socket.poll(50)


def test_an_event_crosses_a_link_once_for_a_hundred_subscribers(line):
    a, b, c = line
    with Pub(c) as pub, Peer(c.door) as peer:
        subs = [Sub(a, "many") for _ in range(100)]
        until(lambda: nodes(peer)["a"]["patterns"] >= 1)

        def sent():
            """What has crossed the link, as of the last second."""
            links = peer.call("mpreg.link.list")["result"]
            return links[0].get("messages_out", 0) if links else 0

        before = until(sent)
        for number in range(200):
            pub.send("many", b"%d" % number)
        for sub in subs:
            assert [sub.recv()[2] for _ in range(200)] == [b"%d" % n for n in range(200)]
        until(lambda: sent() - before >= 200)
        assert sent() - before < 250
        for sub in subs:
            sub.__exit__()


def declare(broker, queue, **settings):
    with Peer(broker.door) as peer:
        told = peer.call("mpreg.queue.declare", kwargs={"name": queue, **settings})
        assert told["op"] == "result", told


def take(peer, count, seconds=20):
    """So many payloads, each acked."""
    found = []
    end = time.monotonic() + seconds
    while len(found) < count:
        message, _ = peer.recv(max(end - time.monotonic(), 0))
        if message["op"] == "deliver":
            found.append(message["payload"])
            peer.send({"op": "ack", "ids": [message["id"]]})
    return found


def keeps(peer, node):
    return until(lambda: nodes(peer).get(node, {}).get("queues"))


def test_what_is_sent_at_one_end_is_taken_at_the_other_though_the_middle_is_killed(line):
    a, b, c = line
    declare(c, "jobs")
    with Peer(a.door) as sender, Peer(c.door) as taker:
        keeps(sender, "c")
        taker.send({"op": "consume", "queue": "jobs", "credit": 100})
        for number in range(300):
            if number == 100:
                b.process.kill()
                b.process.wait()
            message = {"op": "send", "id": f"m{number}", "queue": "jobs", "payload": number}
            sent = sender.ask(message)
            assert (sent["op"], sent["durability"], sent["at"]) == ("sent", "fsync", "near"), sent
        with named("b", c, a, data=b.data):
            found = set()
            while len(found) < 300:
                found.update(take(taker, 1))
            assert found == set(range(300))


def test_what_is_sent_to_a_topic_reaches_the_queues_bound_to_it_everywhere(line):
    """Also those of a broker that is away."""
    a, b, c = line
    declare(c, "all", bind=["orders.#"])
    declare(b, "eu", bind=["orders.eu.*"])
    declare(a, "here", bind=["orders.us.*"])
    with Peer(a.door) as sender:
        until(lambda: all(nodes(sender)[node]["bound"] == 1 for node in "bc"))

        def send(number, topic):
            message = {"op": "send", "id": f"m{number}", "topic": topic, "payload": number}
            sent = sender.ask(message)
            assert (sent["op"], sent["durability"], sent["at"]) == ("sent", "fsync", "near"), sent
            return sent["queues"]

        assert [send(1, "orders.eu.1"), send(2, "orders.us.2")] == [2, 2]
        b.process.kill()
        b.process.wait()
        assert [send(3, "orders.eu.3"), send(4, "orders.de.4")] == [2, 1]
        message = {"topic": "orders.eu.5", "payload": 5}
        assert sender.call("mpreg.queue.send", kwargs=message)["result"]["queues"] == 2
        assert kept(sender, "mpreg.broker.b") == 2
        refused = sender.ask({"op": "send", "id": "n", "topic": "bills", "payload": 0})
        assert refused["error"]["code"] == "unroutable", refused
        with named("b", c, a, data=b.data) as b:
            assert taken(c, "all", 5) == {1, 2, 3, 4, 5}
            assert taken(b, "eu", 3) == {1, 3, 5}
            assert taken(a, "here", 1) == {2}
            until(lambda: kept(sender, "mpreg.broker.b") == 0)


def kept(peer, queue):
    told = stats(peer, queue)
    return told["ready"] + told["in_flight"] + told["delayed"]


def test_rules_say_which_names_cross(line):
    """In the middle of a line, both ways, and changed while it runs."""
    a, b, c = line
    add = lambda run, _: sum(run["args"])
    with Worker(c.door, {"math.add": add, "secret.add": add}), Peer(a.door) as caller, \
            Peer(b.door) as middle, Peer(c.door) as publisher, Sub(a, "*.one") as sub:
        declare(c, "jobs")
        until(lambda: has(caller, "secret.add") and keeps(caller, "c"))
        rule = {"neighbour": "a", "export": ["math.*", "news.#"]}
        assert middle.call("mpreg.link.rule", kwargs=rule)["result"]["rule"]
        until(lambda: not has(caller, "secret.add"))
        assert caller.call("math.add", 1, 2)["result"] == 3
        assert middle.call("secret.add", 1, 2)["result"] == 3
        refused = caller.call("secret.add", 1, 2)
        assert refused["error"]["code"] == "unknown_function", refused
        explained = {"node": "c", "name": "jobs"}
        told = caller.call("mpreg.route.explain", kwargs=explained)["result"]
        assert (told["gives"], told["takes"]) == (True, False), told
        assert told["links"][0]["their_rule"]["export"] == rule["export"], told
        sent = caller.ask({"op": "send", "id": "m", "queue": "jobs", "payload": 1})
        assert "at" not in sent, "a queue of its own"
        until(lambda: nodes(publisher)["a"]["patterns"])
        for topic in ("other.one", "news.one"):
            publisher.ask({"op": "publish", "id": topic, "topic": topic, "payload": 1})
        assert sub.recv()[:2] == ("*.one", "news.one")
        assert middle.call("mpreg.link.rule", kwargs={"neighbour": "a"})["result"]["rule"] is False
        until(lambda: has(caller, "secret.add"))
        assert caller.call("secret.add", 1, 2)["result"] == 3


def taken(broker, queue, count):
    """What so many messages of a queue say, once each."""
    with Peer(broker.door) as taker:
        taker.send({"op": "consume", "queue": queue, "credit": 100})
        return {number for _ in range(count) for number in take(taker, 1)}


def stats(peer, queue):
    return peer.call("mpreg.queue.stats", kwargs={"name": queue})["result"]


def test_messages_are_taken_at_any_broker(line):
    """Consumers at one end share what is sent at the other, with some that are there."""
    a, _, c = line
    declare(c, "there")
    with Peer(a.door) as one, Peer(a.door) as two, Peer(c.door) as near:
        keeps(one, "c")
        takers = (one, two, near)
        for taker in takers:
            consume = {"op": "consume", "id": "k", "queue": "there", "credit": 10}
            consumed = taker.ask(consume)
            assert (consumed["op"], consumed["credit"]) == ("consumed", 10), consumed
        with Peer(c.door) as sender:
            for number in range(300):
                send = {"op": "send", "id": f"m{number}", "queue": "there", "payload": number}
                assert sender.ask(send)["op"] == "sent"
                taken, taker = None, None
                while taken is None:
                    for taker in takers:
                        if taker.poll(0.001):
                            taken = taker.reply()
                            break
                assert (taken["op"], taken["payload"]) == ("deliver", number), taken
                acked = taker.ask({"op": "ack", "id": "k", "ids": [taken["id"]]})
                assert (acked["op"], acked["ids"]) == ("acked", [taken["id"]]), acked
                acked = taker.ask({"op": "ack", "id": "k", "ids": [taken["id"]]})
                assert acked["unknown"] == [taken["id"]], acked
        told = stats(one, "there")
        assert (told["ready"], told["in_flight"], told["consumers"]) == (0, 0, 2), told
        assert told == {**stats(near, "there"), "oldest_ms": told["oldest_ms"]}


def test_a_taker_that_dies_gives_its_messages_to_others_everywhere(line):
    a, _, c = line
    declare(c, "there")
    with Peer(a.door) as one, Peer(c.door) as two:
        keeps(one, "c")
        one.ask({"op": "consume", "id": "k", "queue": "there", "group": "g", "credit": 5})
        two.ask({"op": "consume", "id": "k", "queue": "there", "group": "g", "credit": 0})
        for number in range(5):
            one.send({"op": "send", "id": f"m{number}", "queue": "there", "payload": number})
        held = []
        while len(held) < 5:
            reply = one.reply()
            if reply["op"] == "deliver":
                assert reply["group"] == "g", reply
                held.append(reply["payload"])
        assert sorted(held) == [0, 1, 2, 3, 4]
        one.close()
        two.ask({"op": "consume", "id": "k", "queue": "there", "group": "g", "credit": 5})
        assert sorted(take(two, 5)) == [0, 1, 2, 3, 4]


def test_a_call_and_a_graph_take_from_a_queue_of_another_broker(line):
    a, _, c = line
    declare(c, "there")
    double = {"double": lambda run, _: run["args"][0] * 2}
    with Peer(a.door) as peer, Worker(a.door, double):
        keeps(peer, "c")
        until(lambda: has(peer, "double"))
        following = {"kwargs": {"name": "there"}}
        steps = [
            {"name": "next", "fun": "mpreg.queue.next", **following},
            {"name": "twice", "fun": "double", "args": [{"$ref": "next", "at": "/payload"}]},
        ]
        peer.send({"op": "graph", "id": "g", "steps": steps})
        peer.send({"op": "send", "id": "m", "queue": "there", "payload": 21})
        replies = peer.replies(2)
        assert replies["g"]["results"] == {"twice": 42}, replies
        told = stats(peer, "there")
        assert (told["ready"], told["in_flight"], told["counters"]["acked"]) == (0, 0, 1), told
        late = peer.call("mpreg.queue.next", kwargs={"name": "there", "timeout_ms": 50})
        assert late["error"]["code"] == "timeout", late
        peer.ask({"op": "send", "id": "m", "queue": "there", "payload": 5})
        taken = peer.call("mpreg.queue.next", **following)["result"]
        assert taken["payload"] == 5, taken
        acked = peer.ask({"op": "ack", "id": "k", "ids": [taken["id"]]})
        assert acked["ids"] == [taken["id"]], acked


def test_who_takes_goes_on_when_the_queues_broker_was_killed():
    """What was acked is not seen again, what was not is, and nobody has to ask anew."""
    with named("b") as b, named("a", b) as a:
        c = named("c", b)
        try:
            declare(c, "jobs")
            with Peer(a.door) as taker, Peer(a.door) as sender:
                keeps(sender, "c")
                taker.ask({"op": "consume", "id": "k", "queue": "jobs", "credit": 10})
                for number in range(100):
                    message = {"op": "send", "id": f"m{number}", "queue": "jobs"}
                    assert sender.ask({**message, "payload": number})["op"] == "sent"
                asked, done = set(), set()
                while len(done) < 50:
                    taken = taker.reply()
                    if taken["op"] == "deliver":
                        asked.add(taken["payload"])
                        taker.send({"op": "ack", "id": str(taken["payload"]), "ids": [taken["id"]]})
                    elif taken["op"] == "acked":
                        assert taken["ids"], taken
                        done.add(int(taken["id"]))
                c.kill()
                again = named("c", b, data=c.data)
                try:
                    # What was asked and not answered may be done or not.
                    seen = set()
                    while not seen >= set(range(100)) - asked:
                        taken = taker.reply()
                        if taken["op"] == "acked":
                            done.update({int(taken["id"])} if taken["ids"] else set())
                        elif taken["op"] == "deliver":
                            asked.discard(taken["payload"])
                            seen.add(taken["payload"])
                            taker.send({"op": "ack", "ids": [taken["id"]]})
                        else:
                            assert taken["error"]["code"] == "outcome_unknown", taken
                    assert not seen & done, seen & done
                finally:
                    again.kill()
        finally:
            c.__exit__()


def test_what_is_kept_for_another_broker_survives_a_kill_of_its_own():
    with named("c") as c:
        declare(c, "jobs")
        a = named("a", c)
        try:
            with Peer(a.door) as sender:
                keeps(sender, "c")
                c.process.send_signal(signal.SIGSTOP)
                for number in range(100):
                    message = {"op": "send", "id": f"m{number}", "queue": "jobs"}
                    assert sender.ask({**message, "payload": number})["at"] == "near"
            a.kill()
            c.process.send_signal(signal.SIGCONT)
            again = named("a", c, data=a.data)
            try:
                with Peer(c.door) as taker:
                    taker.send({"op": "consume", "queue": "jobs", "credit": 100})
                    found = set()
                    while len(found) < 100:
                        found.update(take(taker, 1))
            finally:
                again.kill()
        finally:
            a.__exit__()


def test_killing_the_broker_of_half_of_the_workers_moves_its_calls_at_once():
    """Idempotent calls in hand there go to the other half; nobody waits for a second."""
    def slowly(run, _):
        time.sleep(0.01)
        return run["args"][0]

    offer = {"functions": [{"name": "work", "idempotent": True}], "credit": 20}

    class Half(Worker):
        def __init__(self, door):
            super().__init__(door, {"work": slowly}, credit=20)
            self.peer.send({"op": "offer", **offer})

    with named("a") as a, named("b", a) as b, named("c", a) as c:
        knows(a, "b", "c")
        with Peer(a.door) as peer:
            workers = [Half(broker.door) for broker in (b, b, c, c)]
            for worker in workers:
                worker.__enter__()

            def both():
                rows = peer.call("mpreg.functions")["result"]
                return sum(row["name"] == "work" and row["idempotent"] for row in rows) == 2

            until(both)
            began, slowest = {}, 0.0
            for number in range(400):
                if number == 200:
                    b.kill()
                began[f"w{number}"] = now = time.monotonic()
                peer.send({"op": "call", "id": f"w{number}", "fun": "work", "args": [number]})
                # Half of what half of the workers can do, so that none waits for its turn.
                while peer.poll(max(now + 0.01 - time.monotonic(), 0)):
                    reply = peer.reply()
                    slowest = max(slowest, time.monotonic() - began.pop(reply["id"]))
                    assert reply["op"] == "result", reply
            while len(began) > 0:
                reply = peer.reply()
                slowest = max(slowest, time.monotonic() - began.pop(reply["id"]))
                assert reply["op"] == "result", reply
            print(f"slowest {slowest:.2f} s")
            assert slowest < 1.0, slowest
            for worker in workers:
                worker.stop = True


def test_a_restarted_neighbour_is_linked_again_within_2_seconds():
    port = free_port()
    with named("a", port=port) as a, named("b", a) as b:
        knows(b, "a")
        a.process.kill()
        a.process.wait()
        with named("a", port=port) as again, Peer(b.door) as peer:
            began = time.monotonic()
            until(lambda: "a" in nodes(peer))
            assert time.monotonic() - began < 2.0
            with Worker(again.door, {"f": lambda run, _: 5}):
                until(lambda: has(peer, "f"))
                assert peer.call("f")["result"] == 5


def test_two_that_dial_each_other_have_one_link():
    port = free_port()
    with named("b", port=port) as b:
        with named("a", b) as a, Peer(b.door) as peer, Peer(a.door) as other:
            assert peer.call("mpreg.link.add", kwargs={"address": a.door})["op"] == "result"
            knows(a, "b")
            knows(b, "a")
            for asker in (peer, other):
                def links():
                    return asker.call("mpreg.link.list")["result"]

                until(lambda: [link["state"] for link in links()] == ["up"])


def test_links_come_and_go_while_it_runs():
    with named("b") as b, named("a") as a, Peer(a.door) as peer:
        wrong = peer.call("mpreg.link.add", kwargs={"address": "nowhere"})
        assert wrong["error"]["code"] == "bad_args"
        peer.call("mpreg.link.add", kwargs={"address": b.door, "price_us": 70_000})
        until(lambda: nodes(peer).get("b", {}).get("cost_us", 0) >= 70_000)
        peer.call("mpreg.link.remove", kwargs={"address": b.door})
        until(lambda: "b" not in nodes(peer))
        error = peer.call("mpreg.route.explain", kwargs={"node": "x"})["error"]
        assert error["code"] == "unknown_node"


def test_the_bridge_is_for_brokers():
    with named("a") as a, Peer(a.banner["endpoints"]["bridge"]) as peer:
        error = peer.ask({"op": "call", "id": "c", "fun": "f"})["error"]
        assert error["code"] == "wrong_endpoint" and a.door in error["message"]
        peer.send(b"\xff\x00nonsense")
        assert peer.reply()["error"]["code"] == "wrong_endpoint"
        # It goes on.
        with named("b", a) as b:
            knows(b, "a")


def test_two_brokers_of_one_name_are_told_so():
    with named("a") as a, named("b", a) as b, named("b", a) as twin:
        knows(b, "a")
        with Peer(twin.door) as peer:
            def refused():
                links = peer.call("mpreg.link.list")["result"]
                return links and links[0].get("error", {}).get("code") == "node_taken"

            until(refused)
        knows(b, "a")


def test_a_broker_is_told_that_its_name_is_another_brokers_too():
    with named("twin") as first, named("b", first) as b, named("c", b) as c:
        knows(c, "b", "twin")
        with Peer(first.door) as peer, Sub(first, "mpreg.federation.*.taken") as sub:
            def state():
                told = peer.call("mpreg.nodes")["result"]["nodes"]
                return next(node["state"] for node in told if node["node"] == "twin")

            assert state() == "self"
            with named("twin", c):
                until(lambda: state() == "taken")
                _, topic, told, *_ = sub.recv()
                assert topic == "mpreg.federation.twin.taken"
                own = peer.call("mpreg.status")["result"]["epoch"]
                assert json.loads(told)["epoch"] > own


def test_a_partition_under_load_heals():
    """The broker in the middle stands still. Sends go on and lose nothing, topics tell their gap,
    and links are back soon after."""
    still_s = 60 if os.environ.get("MPREG_LONG") else 6
    with named("c") as c, named("b", c) as b, named("a", b) as a:
        knows(a, "b", "c")
        knows(c, "a", "b")
        declare(c, "jobs")
        sent, heard = [], []
        with Peer(a.door) as sender, Peer(c.door) as taker, Peer(a.door) as ear, Pub(c) as pub:
            keeps(sender, "c")
            ear.ask({"op": "subscribe", "id": "s", "patterns": ["t", "mpreg.federation.c.gap"]})
            until(lambda: nodes(taker)["a"]["patterns"])
            taker.send({"op": "consume", "queue": "jobs", "credit": 1_000})
            number = 0

            def publish_and_send():
                nonlocal number
                number += 1
                pub.send("t", b"%d" % number)
                send = {"op": "send", "id": f"m{number}", "queue": "jobs", "payload": number}
                assert sender.ask(send)["at"] == "near"
                sent.append(number)

            for _ in range(200):
                publish_and_send()
            b.process.send_signal(signal.SIGSTOP)
            end = time.monotonic() + still_s
            while time.monotonic() < end:
                publish_and_send()
                time.sleep(0.005)
            b.process.send_signal(signal.SIGCONT)
            began = time.monotonic()
            with Peer(a.door) as peer:
                until(lambda: "c" in nodes(peer))
            healed_s = time.monotonic() - began
            assert healed_s < 2.0, healed_s
            knows(c, "a")
            publish_and_send()
            gaps = []
            while not heard or heard[-1] != number:
                message, frames = ear.recv()
                if message["topic"] == "t":
                    heard.append(int(frames[0]))
                else:
                    gaps.append(message["payload"]["lost"])
            assert heard == sorted(set(heard)) and sum(gaps) == number - len(heard) > 0
            found = set()
            while len(found) < len(sent):
                found.update(take(taker, 1))
            assert found == set(sent)
            print(f"{number} sent, healed after {healed_s:.2f} s, {sum(gaps)} events lost and told")


def test_twenty_brokers_know_each_other_in_two_seconds_and_cost_nothing_idle():
    brokers = []
    try:
        for number in range(20):
            # A ring with two chords each, so that the ways differ.
            near = [brokers[at] for at in {number - 1, number // 2} if 0 <= at < number]
            brokers.append(named(f"n{number}", *near))
        began = time.monotonic()
        with Peer(brokers[0].door) as first, Peer(brokers[-1].door) as last:
            until(lambda: len(nodes(first)) == len(nodes(last)) == 19)
            with Worker(brokers[-1].door, {"far": lambda run, _: 1}):
                until(lambda: has(first, "far"))
                print(f"after {time.monotonic() - began:.2f} s")
                assert time.monotonic() - began < 2.0
                assert first.call("far")["result"] == 1
        for broker in brokers:
            with Peer(broker.door) as peer:
                until(lambda: len(nodes(peer)) == 19)
        # A machine with other work to do makes everything cost more: the best of three counts.
        spans = []
        while len(spans) < 3 and min(spans, default=1) >= 0.01:
            spans.append(used(brokers, 5))
        print(f"idle: {min(spans):.3%} of a core at most")
        assert min(spans) < 0.01, spans
    finally:
        for broker in brokers:
            broker.__exit__()


def used(brokers, span_s):
    """The most that one of them takes of a core."""
    before = [ticks(broker) for broker in brokers]
    time.sleep(span_s)
    return max((ticks(broker) - was) / span_s for broker, was in zip(brokers, before))


def ticks(broker):
    """Seconds of processor time it has used."""
    fields = open(f"/proc/{broker.process.pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
