"""Ten thousand subscribers that come, change their minds and go, a third of them by kill -9."""
import subprocess
import sys

from peers import ROOT, Broker, Peer, Pub, Sub, topics, until

SUBS, DEALERS, PROCESSES, CHURNS = 1_000, 20, 10, 2
# Connections by the thousand are made and lost in one moment, on as few cores as there are.
PATIENCE = 30.0


class Crowd:
    """A process of many subscribers; see crowd.py."""

    def __init__(self, broker):
        command = [sys.executable, ROOT / "tests/conformance/crowd.py"]
        command += [broker.door, broker.subscribe, str(SUBS), str(DEALERS)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def leave(self):
        self.process.stdin.close()
        self.process.wait()

    def die(self):
        self.process.kill()
        self.process.wait()


def held(broker, pattern):
    """Who holds a pattern, asked on a connection of its own: in such a crowd one may be lost."""
    with Peer(broker.door) as peer:
        peer.send({"op": "call", "id": "t", "fun": "mpreg.topics", "kwargs": {"top": 10_000}})
        if not peer.poll(2):
            return 0, 0
        rows = {row["pattern"]: row for row in peer.reply()["result"]["top"]}
    row = rows.get(pattern, {"sockets": 0, "peers": 0})
    return row["sockets"], row["peers"]


def patterns(broker):
    with Peer(broker.door) as peer:
        peer.send({"op": "call", "id": "t", "fun": "mpreg.topics", "kwargs": {"top": 1}})
        return peer.reply()["result"]["patterns"] if peer.poll(2) else None


def test_a_crowd_leaves_nothing_behind():
    """As many as came are counted, each text of a socket once; when all are gone nothing is held,
    nothing more of memory is, and who comes then gets what is meant for it and nothing else."""
    sizes = []
    with Broker() as broker:
        for _ in range(CHURNS):
            crowds = [Crowd(broker) for _ in range(PROCESSES)]
            try:
                for crowd in crowds:
                    assert crowd.process.stdout.readline() == b"connected\n"
                subs, dealers = SUBS * PROCESSES, DEALERS * PROCESSES
                # A first packet that is lost is sent again after 1, 3, 7, 15, 31 s.
                until(lambda: held(broker, "crowd.all") == (subs, 0), 2 * PATIENCE)
                until(lambda: held(broker, "crowd.door") == (0, dealers), PATIENCE)
                assert held(broker, "crowd.left.#") == (0, 0)
                full = broker.resident()
            finally:
                for number, crowd in enumerate(crowds):
                    crowd.die() if number % 3 == 0 else crowd.leave()
            until(lambda: patterns(broker) == 0, PATIENCE)
            with Pub(broker) as pub, Sub(broker, "crowd.7.*", "crowd.all") as sub:
                for topic in ("crowd.7.a", "crowd.8.a", "crowd.7", "crowd.all", "crowd.left.a"):
                    pub.send(topic, b"")
                copies = [("crowd.7.*", "crowd.7.a", b""), ("crowd.all", "crowd.all", b"")]
                assert [sub.recv(), sub.recv()] == copies and not sub.socket.poll(10)
            # What libzmq has freed goes back to the system in the seconds behind.
            until(lambda: broker.resident() < full / 4, PATIENCE)
            sizes.append(broker.resident())
        with Peer(broker.door) as peer:
            assert topics(peer)["patterns"] == 0
    print(f"{subs} subscribers: {full >> 20} MiB; after each crowd {[s >> 20 for s in sizes]} MiB")
    assert sizes[-1] - sizes[0] < full / 8, sizes
