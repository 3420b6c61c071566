"""Takes what is in a queue with pyzmq alone: `python consumer.py thumbnails`."""
import sys

import zmq

queue = sys.argv[1]
door = zmq.Context().socket(zmq.DEALER)
door.connect(sys.argv[2] if len(sys.argv) > 2 else "tcp://127.0.0.1:7400")
while True:
    # Again after two quiet seconds, so that a broker that restarts knows us again.
    door.send_json({"op": "consume", "queue": queue, "credit": 16})
    while door.poll(2000):
        message = door.recv_json()
        if message["op"] == "error":
            sys.exit(message["error"]["message"])
        if message["op"] == "deliver":
            print(message["payload"], "attempt", message["attempt"], flush=True)
            # Only what is acked is done; `nack` gives it back.
            door.send_json({"op": "ack", "ids": [message["id"]]})
