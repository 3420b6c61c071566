// Stock zeromq.js peers of a queue: `node queues.mjs DOOR PUSH QUEUE` prints what was taken.
import assert from "node:assert/strict"
import { Dealer, Push } from "zeromq"

const [door, pushTo, queue] = process.argv.slice(2)
const open = (Socket, address, options = {}) => {
  const socket = new Socket({ linger: 0, ...options })
  socket.connect(address)
  return socket
}
const say = (socket, message) => socket.send(JSON.stringify(message))
const hear = async (socket) => {
  const [body, ...frames] = await socket.receive()
  return [JSON.parse(body.toString()), frames]
}

const sender = open(Dealer, door, { receiveTimeout: 10_000 })
for (let n = 0; n < 5; n++) {
  await say(sender, { op: "send", id: `s${n}`, queue, payload: n })
  const [sent] = await hear(sender)
  assert.deepEqual([sent.op, sent.id, sent.durability], ["sent", `s${n}`, "fsync"])
}
const push = open(Push, pushTo)
await push.send([queue, "pushed"])

const consumer = open(Dealer, door, { receiveTimeout: 10_000 })
await say(consumer, { op: "consume", queue, credit: 2 })
assert.equal((await hear(consumer))[0].op, "consumed")
const taken = []
let open_acks = 0
while (taken.length < 6 || open_acks > 0) {
  const [message, frames] = await hear(consumer)
  if (message.op === "acked") {
    open_acks--
    continue
  }
  assert.equal(message.op, "deliver")
  taken.push(frames.length ? frames[0].toString() : message.payload)
  await say(consumer, { op: "ack", id: message.id, ids: [message.id] })
  open_acks++
}
console.log(JSON.stringify(taken))
process.exit(0)
