"""Messages for a queue with pyzmq alone: `python producer.py thumbnails '["cat.png","dog.png"]'`.

A PUSH socket at port 7403 needs less, `send_multipart([queue, payload])`, but hears nothing."""
import json
import sys

import zmq

queue, payloads = sys.argv[1], json.loads(sys.argv[2])
door = zmq.Context().socket(zmq.DEALER)
door.connect(sys.argv[3] if len(sys.argv) > 3 else "tcp://127.0.0.1:7400")
for number, payload in enumerate(payloads):  # none waits for the one before: they share a sync
    door.send_json({"op": "send", "id": str(number), "queue": queue, "payload": payload})
for _ in payloads:
    reply = door.recv_json()
    if reply["op"] == "sent":
        print(payloads[int(reply["id"])], "is safe:", reply["durability"])
    else:
        print("failed:", reply["error"]["code"], reply["error"]["message"])
