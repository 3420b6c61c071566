//! Processes that end with their test, and what is asked of them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use mpreg_sockets::client::{Client, ReadBody};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;

/// Longer than anything here takes on a slow machine: what is awaited has failed by then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The program under test.
pub(crate) fn program() -> PathBuf {
    match std::env::var_os("MPREG_BIN") {
        // Tests run in the folder of their package, whoever calls them.
        Some(path) => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path),
        None => env!("CARGO_BIN_EXE_mpreg").into(),
    }
}

/// The first of six free ports in a row, for a broker that comes back where it was: below those
/// that the system gives to connections, which may take any of them meanwhile.
pub(crate) fn free_port() -> u16 {
    let first = 20_000 + (std::process::id() % 1_000) as u16 * 12;
    let is_free = |port: &u16| {
        let mut ports = *port..*port + 6;
        ports.all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok())
    };
    (first..32_000).chain(20_000..first).step_by(6).find(is_free).expect("six free ports in a row")
}

/// Whether figures that only an optimised program reaches can be demanded.
pub(crate) fn is_release() -> bool {
    program().components().any(|part| part.as_os_str() == "release")
}

/// Whether there is time for what is long.
pub(crate) fn is_long() -> bool {
    std::env::var_os("MPREG_LONG").is_some_and(|value| value != "0")
}

/// A right to run: many tests at once, or one alone that measures time.
#[must_use]
pub(crate) struct Turn {
    _lock: File,
}

fn lock_file() -> File {
    File::create(concat!(env!("CARGO_TARGET_TMPDIR"), "/process.lock")).unwrap()
}

/// Runs beside other tests.
pub(crate) fn turn() -> Turn {
    let lock = lock_file();
    lock.lock_shared().unwrap();
    Turn { _lock: lock }
}

/// Runs while no other test of this binary does.
pub(crate) fn alone() -> Turn {
    let lock = lock_file();
    lock.lock().unwrap();
    Turn { _lock: lock }
}

/// A process that is killed by its id when the test is through with it.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self { child: command.spawn().unwrap() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self, patience: Duration) -> ExitStatus {
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "{} has not ended", self.child.id());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn stdout(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.child.stdout.take().unwrap())
    }

    pub(crate) fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A broker that serves.
pub(crate) struct Broker {
    pub(crate) process: Process,
    /// What it printed when it was ready.
    pub(crate) banner: Json,
    pub(crate) door: String,
    /// Where PUB sockets publish.
    pub(crate) publish: String,
    /// Where SUB sockets subscribe.
    pub(crate) subscribe: String,
    /// Its folder, if that goes with it.
    data: Option<tempfile::TempDir>,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::with(&["--port", "0"])
    }

    pub(crate) fn with(args: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut broker = Self::at(args, data.path());
        broker.data = Some(data);
        broker
    }

    /// A broker with a configuration file.
    pub(crate) fn configured(text: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("mpreg.toml");
        std::fs::write(&file, text).unwrap();
        let config = ["--port", "0", "--config", file.to_str().unwrap()];
        let mut broker = Self::at(&config, data.path());
        broker.data = Some(data);
        broker
    }

    /// A broker whose data outlives it.
    pub(crate) fn at(args: &[&str], data: &Path) -> Self {
        Self::run(&mut serve(args, data))
    }

    /// A broker by a command that serves.
    pub(crate) fn run(command: &mut Command) -> Self {
        let mut process = Process::spawn(command.stdout(Stdio::piped()).env("RUST_LOG", "warn"));
        let mut line = String::new();
        process.stdout().read_line(&mut line).unwrap();
        let banner: Json = serde_json::from_str(&line).expect("a line of JSON when ready");
        let [door, publish, subscribe] = ["door", "publish", "subscribe"]
            .map(|name| banner["endpoints"][name].as_str().unwrap().to_owned());
        Self { process, banner, door, publish, subscribe, data: None }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.door).await.unwrap()
    }

    /// Starts worker processes and waits until the broker knows them.
    pub(crate) async fn workers(&self, count: usize, args: &str) -> Vec<Process> {
        let client = self.client().await;
        let before = ask(&client, "mpreg.workers").await.as_array().unwrap().len();
        let workers = (0..count).map(|_| crate::worker::spawn(&self.door, args)).collect();
        until(&client, "mpreg.workers", |now| now.as_array().unwrap().len() == before + count)
            .await;
        workers
    }

    /// Memory it holds, bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.process.pid());
        let statm = std::fs::read_to_string(path).unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * rustix::param::page_size() as u64
    }

    /// Memory of it that no file stands behind, bytes.
    pub(crate) fn anonymous_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.pid());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Processor time its threads have used.
    pub(crate) fn processor_time(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.pid())).unwrap();
        let nanos = tasks.flatten().map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Runs a command of the program against this broker.
    pub(crate) fn mpreg(&self, args: &[&str]) -> Output {
        mpreg(&[args, &["--broker", &self.door]].concat())
    }
}

/// The command of a broker whose data outlives it.
pub(crate) fn serve(args: &[&str], data: &Path) -> Command {
    let mut command = Command::new(program());
    command.args(["serve", "--output", "json", "--data"]).arg(data).args(args);
    command
}

/// Runs a command of the program.
pub(crate) fn mpreg(args: &[&str]) -> Output {
    Command::new(program()).args(args).stdin(Stdio::null()).output().unwrap()
}

/// The result of a built-in without arguments.
pub(crate) async fn ask(client: &Client, fun: &str) -> Json {
    client.call(fun).send().await.unwrap().read().unwrap()
}

/// Asks a built-in until its answer is as wanted.
pub(crate) async fn until(client: &Client, fun: &str, wanted: impl Fn(&Json) -> bool) -> Json {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = ask(client, fun).await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < end, "{fun} never became as wanted: {answer}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The median, sorted in place.
pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// What a command printed, as text.
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap().trim_end()
}

/// What a command printed, as JSON.
pub(crate) fn json(bytes: &[u8]) -> Json {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {:?}", text(bytes)))
}
