"""A call and a graph with pyzmq alone; worker.py runs them: `python client.py`."""
import sys

import zmq

door = zmq.Context().socket(zmq.DEALER)
door.connect(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:7400")

# "wait" is for a worker that is not there yet; without it the call is refused at once.
door.send_json({"op": "call", "id": "1", "fun": "upper", "args": ["hello"], "wait": True})
steps = [
    {"name": "a", "fun": "add", "args": [1, 2], "wait": True},
    {"name": "b", "fun": "add", "args": [{"$ref": "a"}, 39], "wait": True},
]
door.send_json({"op": "graph", "id": "2", "steps": steps})
for _ in range(2):
    reply = door.recv_json()  # in any order: the id tells which
    if reply["op"] == "error":
        print(reply["id"], "failed:", reply["error"]["code"], reply["error"]["message"])
    else:
        print(reply["id"], reply.get("result", reply.get("results")))
