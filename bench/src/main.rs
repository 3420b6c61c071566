//! Measures mpreg beside what it replaces: libzmq's own proxy and a WebSocket relay, in one run,
//! each role in its own process. `bench/README.md` says how to read the numbers.
//!
//! One executable is all of it: it starts itself again for every role, so one cargo command
//! suffices and every process was compiled with the same settings.
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]

mod baseline;
mod broker;
mod calls;
mod compare;
mod dealer;
mod disk;
mod events;
mod graph_tally;
mod hot;
mod machine;
mod pacer;
mod peers;
mod plan;
mod plot;
mod process;
mod report;
mod role;
mod statistics;
mod tally;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use plan::Options;

/// What the `mpreg` executable uses: the broker is measured as it is delivered.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Any reason to stop: a bench has nothing to recover.
type Fault = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T> = Result<T, Fault>;

/// Measures mpreg beside libzmq's proxy and a WebSocket relay.
#[derive(Parser)]
#[command(name = "mpreg-bench", version)]
struct Arguments {
    /// One JSON document instead of tables.
    #[arg(long, global = true)]
    json: bool,
    /// Writes that document to a file, whatever is printed.
    #[arg(long, global = true, value_name = "FILE")]
    save: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Echo calls at saturation and one at a time, beside both baselines.
    Rpc(Options),
    /// Dependency graphs: independent steps, a chain, a tree, a million steps.
    Graph(Options),
    /// Events to one subscriber and to eight, beside both baselines.
    #[command(mut_arg("in_flight", |arg| {
        arg.default_value("4096").help("Events on their way to the slowest subscriber, at most")
    }))]
    Pubsub(Options),
    /// A queue, durable and in memory, with confirms and acks, beside LMDB alone.
    #[command(
        mut_arg("in_flight", |arg| {
            arg.default_value("4096").help("Messages on their way to the consumer, and its credit")
        }),
        mut_arg("size", |arg| arg.hide(true))
    )]
    Queue(workloads::queue::Options),
    /// Echo calls through one broker, and through two with a link between them.
    Federation(Options),
    /// The pattern index: memory, matches and pauses with millions of patterns.
    Patterns(workloads::patterns::Options),
    /// Echo calls at fixed rates, however long answers take: latency against rate.
    Latency(workloads::latency::Options),
    /// Two documents of one bench beside each other.
    Compare {
        /// What `--save` wrote, or `--json` printed.
        before: PathBuf,
        /// The same of another day, or another build.
        after: PathBuf,
    },
    /// Memory of what is idle (connections, workers, queues, events of a log), and what it does to
    /// one peer that is not.
    Scale(workloads::scale::Options),
    /// The rules alone with so many calls, for scripts/instructions.
    #[command(hide = true)]
    Calls {
        /// How many.
        count: u64,
    },
    /// A hot path without sockets, so often, for scripts/instructions.
    #[command(hide = true)]
    Hot {
        /// Which.
        path: hot::Path,
        /// How often.
        count: u64,
    },
    /// One process of a measurement; started by the bench itself.
    #[command(hide = true)]
    Role {
        /// What to be, as JSON.
        role: String,
    },
}

fn main() -> ExitCode {
    let Arguments { json, save, command } = Arguments::parse();
    let done = match command {
        Command::Rpc(options) => workloads::rpc::run(&options).map(Some),
        Command::Graph(options) => workloads::graph::run(&options).map(Some),
        Command::Pubsub(options) => workloads::pubsub::run(&options).map(Some),
        Command::Queue(options) => workloads::queue::run(&options).map(Some),
        Command::Federation(options) => workloads::federation::run(&options).map(Some),
        Command::Patterns(options) => workloads::patterns::run(&options).map(Some),
        Command::Latency(options) => workloads::latency::run(&options).map(Some),
        Command::Compare { before, after } => compare::run(&before, &after).map(Some),
        Command::Scale(options) => workloads::scale::run(&options).map(Some),
        Command::Calls { count } => calls::run(count).map(|()| None),
        Command::Hot { path, count } => hot::run(path, count).map(|_| None),
        Command::Role { role } => role::play(&role).map(|()| None),
    };
    match done {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(told)) => {
            println!("{}", if json { &told.json } else { &told.text });
            match save.map(|path| std::fs::write(path, told.json)) {
                Some(Err(error)) => {
                    eprintln!("mpreg-bench: {error}");
                    ExitCode::FAILURE
                }
                _ => ExitCode::SUCCESS,
            }
        }
        Err(error) => {
            eprintln!("mpreg-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
