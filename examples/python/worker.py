"""A worker with pyzmq alone: `python worker.py`, then `mpreg call upper hello`."""
import sys
import time

import zmq

FUNCTIONS = {"upper": lambda text: text.upper(), "add": lambda *numbers: sum(numbers)}
OFFER = {"op": "offer", "functions": [{"name": name, "idempotent": True} for name in FUNCTIONS]}

door = zmq.Context().socket(zmq.DEALER)
door.connect(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:7400")
offered = 0.0
while True:
    if time.monotonic() - offered >= 2:  # repeated, so that a broker that restarts knows us again
        door.send_json(OFFER)
        offered = time.monotonic()
    if not door.poll(1000):
        continue
    message = door.recv_json()
    if message["op"] == "run":
        reply = {"op": "result", "id": message["id"]}
        try:
            function = FUNCTIONS[message["fun"]]
            reply["result"] = function(*message.get("args", []), **message.get("kwargs", {}))
        except Exception as error:
            reply |= {"op": "error", "error": repr(error)}
        door.send_json(reply)
