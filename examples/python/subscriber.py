"""A subscriber with pyzmq alone: `python subscriber.py 'orders.#'`, then `mpreg pub orders.new 1`.

The subscription is the pattern: `*` is one word, `#` any number."""
import sys

import zmq

events = zmq.Context().socket(zmq.SUB)
events.setsockopt(zmq.SNDHWM, 0)  # or subscriptions beyond a thousand at once are lost
events.connect(sys.argv[2] if len(sys.argv) > 2 else "tcp://127.0.0.1:7402")
events.subscribe(sys.argv[1] if len(sys.argv) > 1 else "#")
while True:
    head, payload = events.recv_multipart()
    pattern, topic = head.decode().split("\0")
    print(topic, payload.decode(), flush=True)
