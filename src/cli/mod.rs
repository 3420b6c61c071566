//! The command line: what there is to say, and how answers are printed.

mod bench;
mod call;
mod demo;
mod errors;
mod graph;
mod link;
mod output;
mod queue;
mod route;
mod serve;
mod show;
mod store;
mod topics;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use output::{Failure, Format};

/// A message broker on ZeroMQ: calls, dependency graphs, topics and queues for any ZeroMQ binding.
#[derive(Parser, Debug)]
#[command(
    name = "mpreg",
    version,
    about,
    max_term_width = 100,
    after_help = "Example: mpreg demo\n         mpreg serve & mpreg work upper -- tr a-z A-Z & \
                  mpreg call upper hello"
)]
struct Cli {
    /// How answers are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

/// Where a broker's door is unless it was told otherwise.
const BROKER: &str = "tcp://127.0.0.1:7400";

/// Where the broker is.
#[derive(Args, Clone, Debug)]
struct Target {
    /// Address of the broker: its door, or ws:// and its HTTP endpoint; several with commas between
    #[arg(long, default_value = BROKER, value_name = "ADDRESS")]
    broker: String,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Start a broker
    #[command(after_help = "Example: mpreg serve --port 7400\n         \
        mpreg serve --port 0 --output json    one line with all endpoints when ready\n         \
        mpreg serve --bind ipc:///tmp/mpreg   sockets /tmp/mpreg.door …")]
    Serve(serve::Serve),
    /// See it work: a broker, workers, and a graph over the files of a folder
    #[command(after_help = "Example: mpreg demo\n         mpreg demo --input /usr/share/doc")]
    Demo(demo::Demo),
    /// Make a shell command a function
    #[command(after_help = "Example: mpreg work upper --text -- tr a-z A-Z\n         \
        mpreg work thumb --credit 4 -- ./thumb.sh")]
    Work(work::Work),
    /// Call a function
    #[command(after_help = "Example: mpreg call upper hello\n         \
        mpreg call resize '{\"w\":64}' --kwargs '{\"keep\":true}' --timeout 5s")]
    Call(call::Call),
    /// Run, check or draw a graph from a JSON file
    #[command(after_help = "Example: mpreg graph run pipeline.json\n         \
        mpreg graph check pipeline.json --impact load\n         \
        mpreg graph dot pipeline.json | dot -Tsvg > pipeline.svg")]
    Graph(graph::Graph),
    /// Publish an event
    #[command(after_help = "Example: mpreg pub orders.eu.created '{\"n\":1}'\n         \
        tail -f app.log | mpreg pub logs.app -")]
    Pub(topics::Pub),
    /// Print events as they come
    #[command(after_help = "Example: mpreg sub 'orders.*.created' 'alarms.#'\n         \
        mpreg sub 'orders.#' --replay last:10 --count 10 --output json")]
    Sub(topics::Sub),
    /// Which patterns are subscribed to, and what goes through them
    #[command(after_help = "Example: mpreg topics --top 10")]
    Topics(topics::Topics),
    /// Send to queues, take from them, and look after them
    #[command(after_help = "Example: mpreg queue send jobs '{\"n\":1}'\n         \
        mpreg queue take jobs --count 1\n         \
        mpreg queue take jobs -- ./work.sh    for each message; acks what succeeds\n         \
        mpreg queue list")]
    Queue(queue::Queue),
    /// Lead topics to queues, by what messages say
    #[command(after_help = "Example: mpreg route add eu --bind 'orders.#' --to eu-1 --to eu-2 \
        --strategy least_loaded --when \"payload.region == 'eu'\"\n         \
        mpreg route add slim --bind 'logs.#' --to logs --set payload=payload.text\n         \
        mpreg route list")]
    Route(route::Route),
    /// Join brokers, and see how they are joined
    #[command(after_help = "Example: mpreg link add tcp://far:7400\n         mpreg link list")]
    Link(link::Link),
    /// Every broker that is known here, and the way to it
    #[command(after_help = "Example: mpreg nodes --output json")]
    Nodes(Target),
    /// What the broker is doing
    #[command(after_help = "Example: mpreg status --output json")]
    Status(Target),
    /// Who works here
    #[command(after_help = "Example: mpreg workers")]
    Workers(Target),
    /// What can be called
    #[command(after_help = "Example: mpreg functions")]
    Functions(Target),
    /// Look after what is kept on disk, while no broker uses it
    #[command(
        after_help = "Example: mpreg store check --data ./data --salvage rescued.mdb\n         \
        mpreg store compact --data ./data"
    )]
    Store(store::Store),
    /// Measure it beside libzmq's own proxy and a WebSocket relay
    #[command(after_help = "Example: mpreg bench rpc\n         \
        mpreg bench latency --svg latency.svg\n         mpreg bench help")]
    Bench(bench::Bench),
    /// What an error code means and what to do
    #[command(after_help = "Example: mpreg errors outcome_unknown\n         mpreg errors")]
    Errors(errors::Errors),
}

/// Runs the program; the exit code says how it went.
#[must_use]
pub fn main() -> ExitCode {
    crate::core::begin_small();
    let cli = Cli::parse();
    let format = cli.output;
    let outcome = match cli.command {
        Command::Serve(serve) => serve.run(format),
        Command::Demo(demo) => demo.run(format),
        Command::Work(work) => work.run(format),
        Command::Call(call) => call.run(format),
        Command::Graph(graph) => graph.run(format),
        Command::Pub(event) => event.run(format),
        Command::Sub(events) => events.run(format),
        Command::Topics(topics) => topics.run(format),
        Command::Queue(queue) => queue.run(format),
        Command::Route(route) => route.run(format),
        Command::Link(link) => link.run(format),
        Command::Nodes(target) => link::nodes(&target, format),
        Command::Status(target) => show::status(&target, format),
        Command::Workers(target) => show::workers(&target, format),
        Command::Functions(target) => show::functions(&target, format),
        Command::Store(store) => store.run(format),
        Command::Bench(bench) => bench.run(format),
        Command::Errors(errors) => errors.run(format),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.print(format),
    }
}

/// A runtime for commands that talk to a broker.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("no_runtime", error.to_string()))?;
    runtime.block_on(future)
}

/// Reads a duration such as `250ms`, `5s`, `2m`; a bare number is seconds.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    let (digits, unit_ms) = match text {
        text if text.ends_with("ms") => (&text[..text.len() - 2], 1.0),
        text if text.ends_with('s') => (&text[..text.len() - 1], 1e3),
        text if text.ends_with('m') => (&text[..text.len() - 1], 6e4),
        text if text.ends_with('h') => (&text[..text.len() - 1], 3.6e6),
        text => (text, 1e3),
    };
    match digits.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => {
            Ok(std::time::Duration::from_millis((number * unit_ms).ceil() as u64))
        }
        _ => Err("a duration is a number with ms, s, m or h, such as 250ms or 5s".into()),
    }
}

/// Reads a file, or standard input for `-`.
fn read_input(path: &PathBuf) -> Result<String, Failure> {
    let read = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    read.map_err(|error| Failure::new("cannot_read", format!("{}: {error}", path.display())))
}
