// A call and a graph with zeromq.js alone; worker.mjs runs them: `node client.mjs`.
import { Dealer } from "zeromq"

const door = new Dealer()
door.connect(process.argv[2] ?? "tcp://127.0.0.1:7400")

// `wait` is for a worker that is not there yet; without it the call is refused at once.
const call = { op: "call", id: "1", fun: "upper", args: ["hello"], wait: true }
const steps = [
  { name: "a", fun: "add", args: [1, 2], wait: true },
  { name: "b", fun: "add", args: [{ $ref: "a" }, 39], wait: true },
]
await door.send(JSON.stringify(call))
await door.send(JSON.stringify({ op: "graph", id: "2", steps }))
for (let replies = 0; replies < 2; replies++) {
  const [body] = await door.receive() // in any order: the id tells which
  const { id, op, result, results, error } = JSON.parse(body)
  if (op === "error") console.log(id, "failed:", error.code, error.message)
  else console.log(id, JSON.stringify(result ?? results))
}
door.close()
