"""The examples in other languages, as their readers would run them, mixed in all ways."""
import subprocess
import sys

import pytest

from peers import ROOT, Broker

EXAMPLES = {
    "python": [sys.executable, ROOT / "examples/python"],
    "node": ["node", ROOT / "examples/node"],
}
SUFFIX = {"python": "py", "node": "mjs"}


def command(language, what, door):
    if language == "node" and not (ROOT / "node_modules/zeromq").exists():
        pytest.skip("no zeromq for node here: npm ci")
    program, folder = EXAMPLES[language]
    return [program, folder / f"{what}.{SUFFIX[language]}", door]


@pytest.mark.parametrize("worker", EXAMPLES)
@pytest.mark.parametrize("client", EXAMPLES)
def test_a_client_and_a_worker(client, worker):
    with Broker() as broker:
        serving = subprocess.Popen(command(worker, "worker", broker.door))
        try:
            ran = subprocess.run(
                command(client, "client", broker.door), capture_output=True, text=True, timeout=20
            )
        finally:
            serving.kill()
            serving.wait()
        assert ran.returncode == 0, ran.stderr
        lines = sorted(ran.stdout.replace("'", '"').replace(" ", "").splitlines())
        # Each prints values in its own language's way.
        hello = {"python": "1HELLO", "node": '1"HELLO"'}[client]
        assert lines == [hello, '2{"b":42}']
        assert serving.returncode == -9, "the worker served until it was ended"


def test_a_producer_and_a_consumer():
    folder = ROOT / "examples/python"
    with Broker() as broker:
        consumer = subprocess.Popen(
            [sys.executable, folder / "consumer.py", "pets", broker.door],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            ran = subprocess.run(
                [sys.executable, folder / "producer.py", "pets", '["cat","dog"]', broker.door],
                capture_output=True,
                text=True,
                timeout=20,
            )
            assert (ran.returncode, ran.stdout) == (0, "cat is safe: fsync\ndog is safe: fsync\n")
            taken = [consumer.stdout.readline() for _ in range(2)]
        finally:
            consumer.kill()
            consumer.wait()
        assert taken == ["cat attempt 1\n", "dog attempt 1\n"]
        assert consumer.returncode == -9, "the consumer served until it was ended"
