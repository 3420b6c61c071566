"""Many subscribers in one process: `crowd.py DOOR SUBSCRIBE SUBS DEALERS`.

It says when it has connected them all, and closes them in order when its input ends.
"""
import itertools
import json
import os
import sys

import zmq

door, subscribe, subs, dealers = *sys.argv[1:3], *map(int, sys.argv[3:])
context = zmq.Context()
context.max_sockets = subs + dealers + 10
sockets = []


def connected(kind, address, texts=()):
    socket = context.socket(kind)
    socket.linger = 0
    for text in texts:
        socket.subscribe(text)
    socket.connect(address)
    sockets.append(socket)
    return socket


# A third holds its texts twice, a third changes its mind.
for number, manner in zip(range(subs), itertools.cycle(["once", "twice", "left"])):
    texts = ["crowd.all", f"crowd.{number}.*", f"crowd.{os.getpid()}.#"]
    sub = connected(zmq.SUB, subscribe, texts * 2 if manner == "twice" else texts)
    if manner == "left":
        sub.subscribe("crowd.left.#")
        sub.unsubscribe("crowd.left.#")
for number in range(dealers):
    patterns = ["crowd.door", "crowd.door", f"crowd.{number}.*", f"crowd.door.{number}.#"]
    dealer = connected(zmq.DEALER, door)
    dealer.send_string(json.dumps({"op": "subscribe", "patterns": patterns, "credit": 9}))
    if number % 3 == 0:
        dealer.send_string(json.dumps({"op": "unsubscribe", "patterns": patterns[2:3]}))

print("connected", flush=True)
sys.stdin.read()
context.destroy(linger=0)
