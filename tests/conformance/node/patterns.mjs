// Stock SUB sockets of zeromq.js get exactly what a regular expression says their patterns match:
// `node patterns.mjs DOOR PUBLISH SUBSCRIBE`. What differs ends it with an error.
import assert from "node:assert/strict"
import { Dealer, Publisher, Subscriber } from "zeromq"

const [door, publish, subscribe] = process.argv.slice(2)
const TOPICS = 10_000
const PATTERNS = 1_000
const SUBS = 4
// Events between two looks at what has come: less than the broker keeps for one subscriber.
const BURST = 1_000
const WORDS = ["a", "b", "c", "dd", "e", "ff"]

// Numerical Recipes' generator: the same topics in every run.
let seed = 1
const below = (most) => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) % 65_521 % most
const words = (least, most, choices) =>
  Array.from({ length: least + below(most - least + 1) }, () => choices[below(choices.length)])

// Behind a dot each: `*` is one word, `#` any number of them.
const part = { "*": "\\.[^.]+", "#": "(?:\\.[^.]+)*" }
const expression = (pattern) => {
  const whole = pattern.endsWith(".") ? pattern + "#" : pattern || "#"
  const parts = whole.split(".").map((word) => part[word] ?? `\\.${word}`)
  return new RegExp(`^${parts.join("")}$`)
}
assert(expression("a.#").test(".a") && !expression("a.*").test(".a"))

const texts = new Set(["", "#", "a.", "a.#", "a", "a.#.#"])
const choices = [...WORDS, ...WORDS, ...WORDS, "*", "*", "*", "#", "#"]
while (texts.size < PATTERNS) texts.add(words(3, 8, choices).join("."))
const patterns = [...texts].map((text) => ({ text, matches: expression(text) }))

const caller = new Dealer({ linger: 0, receiveTimeout: 10_000 })
caller.connect(door)
const call = async (fun, kwargs) => {
  await caller.send(JSON.stringify({ op: "call", id: "1", fun, kwargs }))
  return JSON.parse((await caller.receive())[0].toString()).result
}
const until = async (wanted) => {
  const end = Date.now() + 20_000
  while (!(await wanted())) assert(Date.now() < end, "it never came to be")
}

const subs = Array.from({ length: SUBS }, (_, at) => {
  const held = patterns.filter((_, index) => index % SUBS === at)
  // With more than a thousand texts each, a stock SUB would lose some where it connects.
  const socket = new Subscriber({ linger: 0, receiveHighWaterMark: 0, receiveTimeout: 10_000 })
  held.forEach(({ text }) => socket.subscribe(text))
  // Subscriptions come in order, so all are there once the last is.
  socket.subscribe(`known.${at}`)
  socket.connect(subscribe)
  return { socket, held, expected: new Map(), number: 0 }
})
await until(async () => {
  const { top } = await call("mpreg.topics", { top: 10_000 })
  return top.filter(({ pattern }) => pattern.startsWith("known.")).length === SUBS
})

// What a PUB sends before the broker listens to it is lost: say hello until it is heard.
const pub = new Publisher({ linger: 0, sendHighWaterMark: 0 })
pub.connect(publish)
const heard = (async () => {
  const socket = new Subscriber({ linger: 0 })
  socket.subscribe("hello.js")
  socket.connect(subscribe)
  await socket.receive()
  socket.close()
  return true
})()
let introduced = false
heard.then(() => (introduced = true))
while (!introduced) {
  await pub.send(["hello.js", ""])
  await new Promise((done) => setTimeout(done, 5))
}

// Those that hold everything got the greetings as well; behind this one come the events.
await pub.send(["begin", ""])
for (const { socket, held } of subs) {
  const copies = held.filter(({ matches }) => matches.test(".begin"))
  for (let begun = 0; begun < copies.length; ) {
    begun += (await socket.receive())[0].toString().endsWith("\0begin")
  }
}

let messages = 0
for (let first = 0; first < TOPICS; first += BURST) {
  const topics = Array.from({ length: BURST }, () => words(1, 8, WORDS).join("."))
  for (const [at, topic] of topics.entries()) await pub.send([topic, String(first + at)])
  for (const sub of subs) {
    let wanted = 0
    topics.forEach((topic, at) => {
      for (const { text, matches } of sub.held) {
        if (!matches.test("." + topic)) continue
        sub.expected.set(`${text}\0${topic}\0${first + at}`, 0)
        wanted += 1
      }
    })
    for (; wanted > 0; wanted -= 1) {
      const [head, payload] = await sub.socket.receive()
      const copy = `${head}\0${payload}`
      assert.equal(sub.expected.get(copy), 0, `${copy} does not match, or came twice`)
      sub.expected.set(copy, 1)
      messages += 1
    }
    sub.expected.clear()
  }
}

// Nothing is left over: the next is the end.
await pub.send(["end", ""])
for (const { socket, held } of subs) {
  if (!held.some(({ matches }) => matches.test(".end"))) continue
  assert((await socket.receive())[0].toString().endsWith("\0end"))
}
subs.forEach(({ socket }) => socket.close())
pub.close()
caller.close()
console.log(`${messages} messages; all is well`)
