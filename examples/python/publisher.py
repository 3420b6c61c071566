"""A publisher with pyzmq alone, confirmed: `python publisher.py orders.new '{"n":1}'`.

A PUB socket at port 7401 needs less, `send_multipart([topic, payload])`, but hears nothing."""
import json
import sys

import zmq

door = zmq.Context().socket(zmq.REQ)
door.connect(sys.argv[3] if len(sys.argv) > 3 else "tcp://127.0.0.1:7400")
topic, payload = sys.argv[1], json.loads(sys.argv[2])
door.send_json({"op": "publish", "id": "1", "topic": topic, "payload": payload})
print(door.recv_json())
