// A peer over WebSocket: calls, graphs, topics, queues and functions of its own.
//
//   import { connect } from "/mpreg.js";
//   const broker = await connect();                  // or connect("ws://127.0.0.1:7405/ws")
//   await broker.call("math.add", [1, 2]);           // the result, or an Error with a code
//   await broker.subscribe("orders.#", (event) => console.log(event.topic, event.payload));
//
// JSON alone: values with attachments are for peers that read them (docs/PROTOCOL.md, section 17).

const CREDIT = 256;

export function connect(url = location.origin.replace(/^http/, "ws") + "/ws") {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url);
    socket.onopen = () => resolve(new Broker(socket));
    socket.onerror = () => reject(new Error(`${url} cannot be reached`));
  });
}

class Broker {
  #socket;
  #asked = new Map(); // id -> what waits for its reply
  #patterns = new Map(); // pattern -> who hears it
  #functions = new Map();
  #ids = 0;

  constructor(socket) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") [JSON.parse(data)].flat().forEach((op) => this.#heard(op));
    };
    socket.onclose = ({ reason }) => {
      const lost = { code: "outcome_unknown", message: `the connection ended: ${reason}` };
      this.#asked.forEach(({ reject }) => reject(failure(lost)));
      this.#asked.clear();
      this.onclose?.(reason);
    };
  }

  // Asks one op and gives its reply; `progress` hears what comes before.
  ask(op, progress) {
    const id = String(++this.#ids);
    this.#socket.send(JSON.stringify({ ...op, id }));
    return new Promise((resolve, reject) => this.#asked.set(id, { resolve, reject, progress }));
  }

  async call(fun, args = [], { progress, ...options } = {}) {
    const given = Array.isArray(args) ? { args } : { kwargs: args };
    const op = { op: "call", fun, ...given, ...options, progress: !!progress };
    return (await this.ask(op, progress)).result;
  }

  async graph(steps, { progress, ...options } = {}) {
    const op = { op: "graph", steps, ...options, progress: !!progress };
    return (await this.ask(op, progress)).results;
  }

  publish(topic, payload, headers) {
    return this.ask({ op: "publish", topic, payload, headers });
  }

  subscribe(pattern, hear, replay) {
    this.#patterns.set(pattern, hear);
    return this.ask({ op: "subscribe", patterns: [pattern], credit: CREDIT, replay });
  }

  send(queue, payload, options = {}) {
    return this.ask({ op: "send", queue, payload, ...options });
  }

  // Takes one message; `done(message.id)` once it is worked on.
  take(queue, options = {}) {
    return this.call("mpreg.queue.next", { name: queue }, options);
  }

  done(id) {
    return this.ask({ op: "ack", ids: [id] });
  }

  // Offers a function, which this page runs from now on.
  offer(name, run) {
    this.#functions.set(name, run);
    const functions = [...this.#functions.keys()].map((name) => ({ name }));
    return this.ask({ op: "offer", functions, credit: 16 });
  }

  close() {
    this.#socket.close();
  }

  #heard(op) {
    if (op.op === "event") {
      this.#patterns.get(op.pattern)?.(op);
      this.#socket.send('{"op":"ack","events":1}');
    } else if (op.op === "run") {
      this.#run(op);
    } else if (this.#asked.has(op.id)) {
      const { resolve, reject, progress } = this.#asked.get(op.id);
      if (op.op === "progress") return progress?.(op);
      this.#asked.delete(op.id);
      op.op === "error" ? reject(failure(op.error, op)) : resolve(op);
    }
  }

  async #run({ id, fun, args = [], kwargs = {} }) {
    try {
      const result = (await this.#functions.get(fun)(...args, kwargs)) ?? null;
      this.#socket.send(JSON.stringify({ op: "result", id, result }));
    } catch (error) {
      this.#socket.send(JSON.stringify({ op: "error", id, error: String(error) }));
    }
  }
}

function failure(error, reply) {
  return Object.assign(new Error(error.message), error, { reply });
}
