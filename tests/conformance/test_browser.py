"""A page in a browser as a peer: Chromium, driven over its debugging port."""
import functools
import http.server
import json
import shutil
import subprocess
import tempfile
import threading
import urllib.request

import pytest
import websocket

from peers import Peer, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


class Page:
    """One tab."""

    def __init__(self, address):
        self.socket = websocket.create_connection(address, timeout=30, suppress_origin=True)
        self.serial = 0

    def ask(self, method, **params):
        self.serial += 1
        self.socket.send(json.dumps({"id": self.serial, "method": method, "params": params}))
        while (reply := json.loads(self.socket.recv())).get("id") != self.serial:
            pass
        assert "error" not in reply, reply
        return reply["result"]

    def open(self, url):
        self.ask("Page.navigate", url=url)
        until(lambda: self.run("document.readyState + location.href") == "complete" + url)

    def run(self, script):
        """What an expression comes to; promises are waited for."""
        told = self.ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")


@pytest.fixture(scope="module")
def page():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        process = subprocess.Popen(
            [CHROMIUM, *options, "--disable-dev-shm-usage", f"--user-data-dir={folder}"],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            told = next(line for line in process.stderr if "DevTools listening on" in line)
            threading.Thread(target=process.stderr.read, daemon=True).start()
            port = told.split("127.0.0.1:")[1].split("/")[0]

            def tab():
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                    tabs = [of for of in json.load(answer) if of["type"] == "page"]
                return tabs and Page(tabs[0]["webSocketDebuggerUrl"])

            yield until(tab)
        finally:
            process.kill()
            process.wait()


def text(page, name):
    return page.run(f"document.getElementById('{name}').textContent")


def submit(page, form, **fields):
    for name, value in fields.items():
        page.run(f"document.querySelector('#{form} [name={name}]').value = {json.dumps(value)}")
    page.run(f"document.getElementById('{form}').requestSubmit()")


def test_the_page_calls_and_follows_a_graph_and_a_topic(broker, workers, page):
    workers({"double": lambda run, _: run["args"][0] * 2}, credit=4)
    page.open(broker.http + "/")
    until(lambda: text(page, "node") == broker.banner["node"])
    submit(page, "call", fun="double", args="[21]")
    until(lambda: text(page, "result") == "42")
    submit(page, "call", fun="nobody", args="[]")
    until(lambda: text(page, "result") == "unknown_function: no worker offers nobody")
    steps = [
        {"name": "first", "fun": "double", "args": [1]},
        {"name": "second", "fun": "double", "args": [{"$ref": "first"}]},
    ]
    submit(page, "graph", steps=json.dumps(steps))
    until(lambda: '"second": 4' in text(page, "progress"))
    followed = text(page, "progress").splitlines()
    assert followed.index("done first") < followed.index("done second"), followed
    submit(page, "topic", pattern="browser.*")
    with Peer(broker.door) as peer:
        until(lambda: "browser.*" in str(peer.call("mpreg.topics", kwargs={})["result"]))
        for number in range(3):
            event = {"op": "publish", "id": "p", "topic": "browser.x", "payload": number}
            assert peer.ask(event)["op"] == "published"
    until(lambda: text(page, "events") == "browser.x 0\nbrowser.x 1\nbrowser.x 2\n")
    submit(page, "publish", topic="browser.own", payload='{"a":1}')
    until(lambda: "browser.own" in text(page, "events"))


def test_a_page_is_a_worker_and_takes_messages(broker, page):
    page.open(broker.http + "/health")
    page.run(
        """import('/mpreg.js').then(async ({ connect }) => {
            window.broker = await connect();
            await broker.offer('shout', (text) => text.toUpperCase());
            await broker.offer('fail', () => { throw new Error('out of luck'); });
        })"""
    )
    with Peer(broker.door) as peer:
        assert peer.call("shout", "hello")["result"] == "HELLO"
        assert "out of luck" in peer.call("fail")["error"]["message"]
        sent = page.run("broker.send('browser.jobs', { image: 17 })")
        assert sent["durability"] == "fsync"
        script = """(async () => {
            const message = await broker.take('browser.jobs');
            const acked = await broker.done(message.id);
            broker.close();
            return [message.payload, acked.ids.length];
        })()"""
        assert page.run(script) == [{"image": 17}, 1]


def test_a_page_of_somebody_else_is_kept_out(broker, page, tmp_path):
    (tmp_path / "index.html").write_text("<!doctype html>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.open(f"http://127.0.0.1:{server.server_port}/")
        url = broker.http.replace("http", "ws", 1) + "/ws"
        script = f"""new Promise((resolve) => {{
            const socket = new WebSocket("{url}");
            socket.onopen = () => resolve("in");
            socket.onerror = () => resolve("out");
        }})"""
        assert page.run(script) == "out"
        with Peer(broker.door) as peer:
            before = peer.call("mpreg.status", kwargs={})["result"]["topics"]["published"]
            options = "{ method: 'POST', mode: 'no-cors', body: '1' }"
            page.run(f"fetch('{broker.http}/publish/browser.evil', {options}).catch(() => 0)")
            after = peer.call("mpreg.status", kwargs={})["result"]["topics"]["published"]
            assert before == after
        server.shutdown()
