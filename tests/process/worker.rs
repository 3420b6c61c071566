//! A worker in a process of its own, which a test may stop, kill or starve.
//!
//! It is this very test binary, started again to run the one test below.

use std::process::{Command, Stdio};
use std::time::Duration;

use mpreg_sockets::client::Worker;

use crate::rig::Process;

const DOOR: &str = "MPREG_TEST_DOOR";
const OPTIONS: &str = "MPREG_TEST_OPTIONS";

/// Starts a worker. Options: `credit=N`, `loc=NAME`. What it offers is idempotent; a call that is
/// not to be repeated says so itself.
pub(crate) fn spawn(door: &str, options: &str) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "worker::process", "--nocapture"]);
    command.env(DOOR, door).env(OPTIONS, options).stdout(Stdio::null());
    Process::spawn(&mut command)
}

fn options() -> (u32, Vec<String>) {
    let (mut credit, mut locs) = (64, Vec::new());
    for word in std::env::var(OPTIONS).unwrap_or_default().split_whitespace() {
        match word.split_once('=') {
            Some(("credit", number)) => credit = number.parse().unwrap(),
            Some(("loc", name)) => locs.push(name.to_owned()),
            _ => panic!("{word}"),
        }
    }
    (credit, locs)
}

/// Serves if this process was started as a worker; as a test it has nothing to do.
#[tokio::test]
async fn process() {
    let Ok(door) = std::env::var(DOOR) else { return };
    let (credit, locs) = options();
    let worker = Worker::new()
        .function("echo", async |job| {
            let (value,): (serde_json::Value,) = job.args()?;
            job.returns(&value)
        })
        .idempotent()
        .function("add", async |job| {
            let numbers: Vec<i64> = job.args()?;
            job.returns(&numbers.iter().sum::<i64>())
        })
        .idempotent()
        .function("rest", async |job| {
            let (ms,): (u64,) = job.args()?;
            tokio::time::sleep(Duration::from_millis(ms)).await;
            job.returns(&std::process::id())
        })
        .idempotent()
        .function("block", async |job| {
            let (ms,): (u64,) = job.args()?;
            std::thread::sleep(Duration::from_millis(ms));
            job.returns(&std::process::id())
        })
        .idempotent()
        .function("fail", async |job| {
            let (message,): (String,) = job.args()?;
            job.fails(&message)
        })
        .idempotent()
        .function("steps", async |job| {
            for percent in [25.0, 50.0, 75.0] {
                job.progress(Some(percent), Some("on the way"));
                tokio::task::yield_now().await;
            }
            job.returns(&"there")
        })
        .idempotent()
        .credit(credit)
        .locs(&locs);
    worker.serve(&door).await.unwrap();
}
