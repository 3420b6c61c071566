// A stock zeromq.js peer that says what it hears: `node peer.mjs DOOR`.
// Each block is one thing a binding must get right; what differs ends it with an error.
import assert from "node:assert/strict"
import { Dealer, Request } from "zeromq"

const door = process.argv[2]
const open = (Socket, options = {}) => {
  const socket = new Socket({ linger: 0, receiveTimeout: 10_000, ...options })
  socket.connect(door)
  return socket
}
const json = (body) => JSON.parse(body.toString())
const say = (socket, message, ...frames) => socket.send([JSON.stringify(message), ...frames])
const hear = async (socket) => json((await socket.receive())[0])

// Ping before hello, and hello.
const caller = open(Dealer)
await say(caller, { op: "ping" })
assert.deepEqual(await hear(caller), { op: "pong" })
await say(caller, { op: "hello", id: "h", name: "node" })
const welcome = await hear(caller)
assert.equal(welcome.op, "welcome")
assert.equal(welcome.endpoints.door, door)

// A worker, a call, a failure.
const worker = open(Dealer)
await say(worker, { op: "offer", functions: [{ name: "node.f" }], credit: 4 })
assert.equal((await hear(worker)).op, "offered")
await say(caller, { op: "call", id: "1", fun: "node.f", args: [{ b: 1, a: "ä" }] })
let run = await hear(worker)
assert.deepEqual(run.args, [{ b: 1, a: "ä" }])
await say(worker, { op: "result", id: run.id, result: [run.attempt] })
assert.deepEqual(await hear(caller), { op: "result", id: "1", result: [1] })
await say(caller, { op: "call", id: "2", fun: "node.f" })
run = await hear(worker)
await say(worker, { op: "error", id: run.id, error: "no paper" })
assert.equal((await hear(caller)).error.message, "no paper")

// Attachments both ways.
const bytes = Buffer.from([0, 255])
await say(caller, { op: "call", id: "3", fun: "node.f", args: [{ $frame: 1 }] }, bytes)
const [body, attachment] = await worker.receive()
assert.deepEqual(json(body).args, [{ $frame: 1 }])
assert.deepEqual([...attachment], [0, 255])
await say(worker, { op: "result", id: json(body).id, result: { $frame: 1 } }, Buffer.from("back"))
const [reply, back] = await caller.receive()
assert.deepEqual(json(reply).result, { $frame: 1 })
assert.equal(back.toString(), "back")

// A graph, with progress.
const steps = [
  { name: "a", fun: "node.f", args: [1] },
  { name: "b", fun: "node.f", args: [{ $ref: "a" }] },
]
await say(caller, { op: "graph", id: "g", steps, progress: true })
for (let runs = 0; runs < 2; runs++) {
  const { op, id, args } = await hear(worker)
  assert.equal(op, "run")
  await say(worker, { op: "result", id, result: args[0] + 1 })
}
const told = []
do told.push(await hear(caller))
while (told.at(-1).op === "progress")
assert.deepEqual(told.at(-1).results, { b: 3 })
assert.equal(told[0].event, "accepted")
assert.deepEqual(told.filter(({ event }) => event === "done").map(({ step }) => step), ["a", "b"])

// A batch is answered item by item, in any grouping.
await say(caller, [{ op: "ping", id: "x" }, { op: "dance", id: "y" }, 7])
const items = []
while (items.length < 3) items.push(...[await hear(caller)].flat())
assert.equal(items.length, 3)
assert.equal(items.find((item) => item.id === "y").error.code, "unknown_op")
assert.equal(items.find((item) => item.item === 2).error.code, "bad_field")

// A REQ gets one message for each it sends.
for (const options of [{}, { correlate: true }, { correlate: true, relaxed: true }]) {
  const req = open(Request, options)
  await say(req, [{ op: "ping", id: "1" }, { op: "cancel", id: "2" }])
  const told = await hear(req)
  assert.deepEqual(told.map((item) => item.op), ["pong", "error"])
  await say(req, { op: "call", id: "1", fun: "nobody" })
  assert.equal((await hear(req)).error.code, "unknown_function")
  req.close()
}

// Leaving.
await say(worker, { op: "bye" })
assert.deepEqual(await hear(worker), { op: "bye" })
caller.close()
worker.close()
console.log("all is well")
