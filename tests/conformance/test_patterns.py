"""Stock SUB sockets get exactly what their patterns match: 100,000 random topics against a
thousand patterns, and against a matcher that shares nothing with the broker's.

zeromq.js does the same with 10,000 (node/patterns.mjs): its sockets hand out one message a promise,
so the full number would take longer than all other tests of this folder.
"""
import pathlib
import random
import subprocess

import pytest
import zmq

from peers import ROOT, Broker, Pub, Sub, until

TOPICS, PATTERNS, SUBS = 100_000, 1_000, 8
# Events between two looks at what has come: less than the broker keeps for one subscriber.
BURST = 2_000
WORDS = ["a", "b", "c", "dd", "e", "ff"]
MISSING = not (ROOT / "node_modules/zeromq").exists()


class Matcher:
    """All patterns as one automaton: a bit for each place before or behind one of their words,
    one shift for each word of a topic."""

    def __init__(self, patterns):
        self.start, self.any, self.takes, self.ends = 0, 0, {}, {}
        place = 1
        for index, pattern in enumerate(patterns):
            self.start |= place
            for word in (pattern + "#" if pattern.endswith(".") else pattern or "#").split("."):
                if word == "#":
                    self.any |= place
                else:
                    self.takes[word] = self.takes.get(word, 0) | place
                place <<= 1
            self.ends[place] = index
            place <<= 1
        self.end = sum(self.ends)
        self.start = self.pass_any(self.start)

    def pass_any(self, places):
        """A `#` may take nothing, and so may the one behind it."""
        while more := (places & self.any) << 1 & ~places:
            places |= more
        return places

    def match(self, topic):
        places, star = self.start, self.takes.get("*", 0)
        for word in topic.split("."):
            taken = places & (self.takes.get(word, 0) | star)
            places = self.pass_any(places & self.any | taken << 1)
        places &= self.end
        while places:
            last = places & -places
            yield self.ends[last]
            places ^= last


@pytest.mark.parametrize(
    "pattern, yes, no",
    [
        ("a.*", ["a.b"], ["a", "a.b.c", "b.a"]),
        ("a.#", ["a", "a.b", "a.b.c"], ["b", "b.a"]),
        ("a.", ["a", "a.b"], ["aa"]),
        ("", ["a", "a.b"], []),
        ("#.a.#.#.b", ["a.b", "c.a.c.c.b"], ["b.a", "a", "b"]),
        ("*.#.*", ["a.b", "a.b.c"], ["a"]),
    ],
)
def test_the_matcher_itself(pattern, yes, no):
    matcher = Matcher(["x", pattern, "y.#"])
    assert all(list(matcher.match(topic)) == [1] for topic in yes)
    assert not any(list(matcher.match(topic)) for topic in no)


def some_patterns(rng):
    """A thousand different texts; some mean the same."""
    texts = {"", "#", "a.", "a.#", "a", "a.#.#", "#.*.#.*"}
    while len(texts) < PATTERNS:
        words = rng.choices([*WORDS, "*", "#"], [3] * len(WORDS) + [3, 2], k=rng.randint(3, 8))
        texts.add(".".join(words))
    return rng.sample(sorted(texts), PATTERNS)


def test_sub_sockets_get_exactly_what_they_match():
    rng = random.Random(1)
    texts = some_patterns(rng)
    matcher = Matcher(texts)
    topics = [".".join(rng.choices(WORDS, k=rng.randint(1, 8))) for _ in range(TOPICS)]
    # A socket that holds two texts which both match gets two copies, each under its text.
    expected = [set() for _ in range(SUBS)]
    heard = [[] for _ in range(SUBS)]

    with Broker() as broker, Pub(broker) as pub:
        subs = [Sub(broker, *texts[at::SUBS]) for at in range(SUBS)]
        sockets = [sub.socket for sub in subs]

        def complete():
            for socket, got in zip(sockets, heard):
                try:
                    while True:
                        got.append(b"\0".join(socket.recv_multipart(zmq.NOBLOCK)))
                except zmq.Again:
                    pass
            return sum(map(len, heard)) >= wanted

        for first in range(0, TOPICS, BURST):
            for number, topic in enumerate(topics[first : first + BURST], first):
                pub.send(topic, str(number).encode())
                for index in matcher.match(topic):
                    copy = f"{texts[index]}\0{topic}\0{number}".encode()
                    expected[index % SUBS].add(copy)
            wanted = sum(map(len, expected))
            until(complete)
        assert not any(socket.poll(20) for socket in sockets), "more than matches"
        [sub.socket.close() for sub in subs]
    for got, should in zip(heard, expected):
        assert len(got) == len(should) and set(got) == should
        numbers = [int(copy.rpartition(b"\0")[2]) for copy in got]
        assert numbers == sorted(numbers), "in the order they were published"
    print(f"{sum(map(len, heard))} messages")


@pytest.mark.skipif(MISSING, reason="no zeromq for node here: npm ci")
def test_so_do_those_of_zeromq_js(broker):
    script = pathlib.Path(__file__).parent / "node/patterns.mjs"
    endpoints = [broker.door, broker.publish, broker.subscribe]
    ran = subprocess.run(["node", script, *endpoints], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and ran.stdout.endswith("all is well\n"), ran.stderr
    print(ran.stdout)
