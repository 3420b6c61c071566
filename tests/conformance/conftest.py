"""One broker for all tests that do it no harm; each test has its own connections and names."""
import pytest
import zmq

from peers import TRANSPORT, Broker, Json, Packed, Peer, Worker, until

SOCKETS = {
    "dealer": (zmq.DEALER, {}),
    "req": (zmq.REQ, {}),
    "req_correlate": (zmq.REQ, {"req_correlate": 1}),
    "req_relaxed": (zmq.REQ, {"req_correlate": 1, "req_relaxed": 1}),
}
if TRANSPORT == "ws":
    SOCKETS = {"dealer": SOCKETS["dealer"]}


@pytest.fixture(scope="session")
def broker():
    with Broker() as broker:
        yield broker


@pytest.fixture(autouse=True)
def serving(request):
    """Whatever a test has done, the broker it shares serves on, and its workers are gone: another
    test may have functions of the same names."""
    yield
    if "broker" in request.fixturenames:
        broker = request.getfixturevalue("broker")
        assert broker.process.poll() is None, "the broker has ended"
        with Peer(broker.door) as peer:
            assert peer.silent()
            until(lambda: not peer.call("mpreg.workers")["result"])


@pytest.fixture(params=[Json, Packed], ids=lambda encoding: encoding.name)
def encoding(request):
    return request.param


@pytest.fixture(params=SOCKETS)
def asker(request, broker, encoding):
    """A peer of every kind that may call, in both encodings."""
    kind, options = SOCKETS[request.param]
    with Peer(broker.door, kind, encoding, **options) as peer:
        yield peer


@pytest.fixture
def dealer(broker, encoding):
    with Peer(broker.door, encoding=encoding) as peer:
        yield peer


@pytest.fixture
def peer(broker):
    """A DEALER that speaks JSON."""
    with Peer(broker.door) as peer:
        yield peer


@pytest.fixture
def workers(broker):
    """Starts workers that end with the test."""
    started = []

    def start(functions, encoding=Json, **offer):
        started.append(Worker(broker.door, functions, encoding, **offer).__enter__())
        return started[-1]

    yield start
    for worker in started:
        worker.__exit__()
