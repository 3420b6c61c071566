# A worker of the demo in plain pyzmq: it counts and merges beside those in Rust.
import json, os, sys, threading, zmq

threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
door = zmq.Context().socket(zmq.DEALER)
door.connect(sys.argv[1])
offer = {"op": "offer", "credit": 4, "functions": [
    {"name": "demo.count", "idempotent": True}, {"name": "demo.merge", "idempotent": True}]}


def run(fun, args):
    counts = {}
    if fun == "demo.count":
        for word in args[0]:
            counts[word] = counts.get(word, 0) + 1
    for some in args if fun == "demo.merge" else []:
        for word, times in some.items():
            counts[word] = counts.get(word, 0) + times
    return counts


door.send_json({"op": "hello", "name": "demo in Python"})
while True:
    door.send_json(offer)  # again every 2 s: a broker that restarted has forgotten it
    while door.poll(2000):
        message = door.recv_json()
        if message["op"] == "run":
            result = run(message["fun"], message["args"])
            door.send_json({"op": "result", "id": message["id"], "result": result})
