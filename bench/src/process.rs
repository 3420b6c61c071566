//! Child processes: this executable again, in another role.
//!
//! A child says what it has to say as JSON lines on its standard output. It ends when its standard
//! input closes, which the system does even when the parent was killed, so none outlives a bench.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;
use std::{io, process, thread};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Outcome;
use crate::role::Role;

/// Lines a child may be ahead; none says more than one.
const LINES: usize = 16;

/// A running child; ended by its own pid when dropped.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    what: String,
}

impl Process {
    /// Starts this executable as `role`.
    pub(crate) fn start(role: &Role) -> Outcome<Self> {
        let what = serde_json::to_string(role)?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("role")
            .arg(&what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("the child has no standard output")?;
        let (sender, lines) = sync_channel(LINES);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines, what })
    }

    /// The child's pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line the child says.
    pub(crate) fn hear<T: DeserializeOwned>(&self, within: Duration) -> Outcome<T> {
        match self.lines.recv_timeout(within) {
            Ok(line) => Ok(serde_json::from_str(&line)?),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("nothing from {} within {within:?}", self.what).into())
            }
            Err(RecvTimeoutError::Disconnected) => Err(format!("{} ended early", self.what).into()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a child that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says one line to the parent.
pub(crate) fn say(line: &impl Serialize) -> Outcome<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, line)?;
    stdout.write_all(b"\n")?;
    Ok(stdout.flush()?)
}

/// Ends this process as soon as its standard input closes.
pub(crate) fn end_with_parent() {
    thread::spawn(|| {
        let mut stdin = io::stdin().lock();
        let mut ignored = [0; 64];
        while matches!(stdin.read(&mut ignored), Ok(read) if read > 0) {}
        process::exit(0);
    });
}
