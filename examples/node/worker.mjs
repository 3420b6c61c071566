// A worker with zeromq.js alone: `npm install zeromq`, `node worker.mjs`, `mpreg call upper hello`.
import { Dealer } from "zeromq"

const functions = {
  upper: (text) => text.toUpperCase(),
  add: (...numbers) => numbers.reduce((sum, number) => sum + number, 0),
}
const offer = {
  op: "offer",
  functions: Object.keys(functions).map((name) => ({ name, idempotent: true })),
}

const door = new Dealer()
door.connect(process.argv[2] ?? "tcp://127.0.0.1:7400")

// A socket takes one send at a time, so they wait for each other.
let sent = Promise.resolve()
const send = (message) => (sent = sent.then(() => door.send(JSON.stringify(message))))

send(offer)
setInterval(() => send(offer), 2000) // repeated, so that a broker that restarts knows us again
for await (const [body] of door) {
  const { op, id, fun, args = [] } = JSON.parse(body)
  if (op !== "run") continue
  try {
    send({ op: "result", id, result: await functions[fun](...args) })
  } catch (error) {
    send({ op: "error", id, error: String(error) })
  }
}
