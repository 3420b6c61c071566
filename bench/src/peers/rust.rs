//! Our Rust library at both ends: bincode batches.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use mpreg_patterns::ops::Run;
use mpreg_patterns::values::{Body, Value};
use mpreg_sockets::client::{Client, Worker};
use serde_json::value::RawValue;
use tokio::task::{LocalSet, spawn_local};

use crate::Outcome;
use crate::pacer::Beats;
use crate::plan::Load;
use crate::process::say;
use crate::role::Ready;
use crate::tally::{Measure, Tally, Watch};

/// One thread, as a small service would have it: with two cores for three processes, more threads
/// only take turns.
pub(crate) fn block_on<T>(future: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, future)
}

/// Connects, and waits until a worker can be reached.
pub(crate) async fn connect(at: &str) -> Outcome<Client> {
    let client = Client::connect(at).await?;
    client.call("echo").args(&[1]).wait().timeout(Duration::from_secs(10)).send().await?;
    Ok(client)
}

/// Offers the functions of a bench.
pub(crate) fn worker(at: &str, credit: u32) -> Outcome<()> {
    block_on(async {
        // The client waits for the offer with its first call.
        say(&Ready {})?;
        let worker = Worker::new()
            .quick("echo", |run| Ok(Body::plain(first(run))))
            .quick("add", |run| Ok(Body::plain(sum(run))))
            .quick("noop", |_| Ok(Body::plain(Value::null())))
            .credit(credit);
        Ok(worker.serve(at).await?)
    })
}

/// The first argument, as it came.
fn first(run: &Run) -> Value {
    let Some(args) = &run.args else { return Value::null() };
    match serde_json::from_slice::<(&RawValue,)>(&args.bytes) {
        Ok((first,)) => Value::json(args.bytes.slice_ref(first.get().as_bytes())),
        Err(_) => Value::null(),
    }
}

/// The sum of two numbers.
fn sum(run: &Run) -> Value {
    let args = run.args.as_ref().map(|args| serde_json::from_slice::<(u64, u64)>(&args.bytes));
    match args {
        Some(Ok((left, right))) => Value::json((left + right).to_string()),
        _ => Value::null(),
    }
}

/// Keeps `load.in_flight` tasks calling.
pub(crate) fn client(at: &str, load: Load, watch: Watch) -> Outcome<Measure> {
    block_on(async {
        let client = connect(at).await?;
        let args = Value::json(format!("[\"{}\"]", "x".repeat(load.size)));
        let tally = Rc::new(RefCell::new(Tally::new(load, watch)?));
        if load.rate.is_some() {
            call_on_time(&client, &args, &tally, load).await?;
            return Ok(tally.replace(Tally::new(load, watch)?).finish());
        }
        for slot in 0..load.in_flight {
            spawn_local(call_on(slot, client.clone(), args.clone(), Rc::clone(&tally)));
        }
        while tally.borrow_mut().open()? || !tally.borrow().settled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let tally = tally.replace(Tally::new(load, watch)?);
        Ok(tally.finish())
    })
}

/// Makes each call when it is due, whatever became of the others.
async fn call_on_time(
    client: &Client,
    args: &Value,
    tally: &Rc<RefCell<Tally>>,
    load: Load,
) -> Outcome<()> {
    let idle = Rc::new(RefCell::new((0..load.in_flight).collect::<Vec<usize>>()));
    let mut beats = Beats::start(load)?;
    while tally.borrow_mut().open()? || !tally.borrow().settled() {
        let now = tally.borrow().now();
        while tally.borrow().is_open() && !idle.borrow().is_empty() {
            let Some(due) = tally.borrow_mut().due(now) else { break };
            let Some(slot) = idle.borrow_mut().pop() else { break };
            tally.borrow_mut().sent(slot, due);
            let call = client.call("echo").args_value(args.clone());
            let (tally, idle) = (Rc::clone(tally), Rc::clone(&idle));
            spawn_local(async move {
                let outcome = call.send().await;
                tally.borrow_mut().answered(slot, outcome.is_ok());
                idle.borrow_mut().push(slot);
            });
        }
        beats.next().await;
    }
    Ok(())
}

/// Calls, one after the other, while the tally is open. The answer of one call is the moment the
/// next one is made, so the clock is read once a call.
async fn call_on(slot: usize, client: Client, args: Value, tally: Rc<RefCell<Tally>>) {
    let mut now = tally.borrow().now();
    while tally.borrow().is_open() {
        let call = client.call("echo").args_value(args.clone());
        tally.borrow_mut().sent(slot, now);
        let outcome = call.send().await;
        now = tally.borrow_mut().answered(slot, outcome.is_ok());
    }
}
