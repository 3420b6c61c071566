// A stock zeromq.js PULL at a queue's outlet: `node outlet.mjs OUTLET COUNT` prints what came.
import { Pull } from "zeromq"

const [outlet, count] = process.argv.slice(2)
const pull = new Pull({ linger: 0, receiveTimeout: 10_000 })
pull.connect(outlet)
const taken = []
while (taken.length < Number(count)) {
  taken.push((await pull.receive()).map(String))
}
console.log(JSON.stringify(taken))
process.exit(0)
