//! The documents tell the truth: codes, configuration, limits, messages and examples.
//!
//! `MPREG_DOCS=write cargo test --test docs` writes `docs/errors.md` anew. Blocks of Markdown are
//! marked by a comment on the line before them: `<!-- file: NAME -->` puts the block into a file,
//! `<!-- run -->` runs it beside those files with a broker of its own, `<!-- output -->` is what
//! the run before it must print, `<!-- from: PATH -->` stands in that file too.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mpreg::config::Config;
use mpreg_patterns::base::{Code, Limits};
use mpreg_patterns::federation::links::{Agreed, Ask, PROTOCOL};
use mpreg_sockets::envelope::{decode, decode_reply};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize as _;
use serde_json::Value as Json;

/// What PROTOCOL.md calls the door.
const DOOR: &str = "tcp://127.0.0.1:7400";
const PUBLISH: &str = "tcp://127.0.0.1:7401";
const SUBSCRIBE: &str = "tcp://127.0.0.1:7402";
const HTTP: &str = "http://127.0.0.1:7405";
/// Longer than any example takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Codes that nothing sends yet.
const UNUSED_CODES: &[&str] = &[];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `docs/errors.md`, from the registry.
fn errors_page() -> String {
    let mut page = String::from(
        "# Error codes\n\n\
         Written from `patterns/src/base/refusal.rs`; `mpreg errors CODE` prints the same.\n\n\
         A code is stable once released, the message beside it is not. The culprit has to change \
         something before the\n\
         same request can succeed; where it says *again*, it may succeed later, unchanged. \
         A worker may send codes of its\n\
         own: their culprit is `worker`.\n\n\
         | code | culprit | |\n|---|---|---|\n",
    );
    for code in Code::ALL {
        let again = if code.retry() { "again" } else { "" };
        let _ = writeln!(page, "| [{code}](#{code}) | {} | {again} |", code.culprit().as_str());
    }
    for code in Code::ALL {
        let _ = write!(page, "\n## {code}\n\n{}\n\n{}\n", code.meaning(), code.advice());
    }
    page
}

#[test]
fn every_code_is_documented() {
    let page = errors_page();
    if std::env::var_os("MPREG_DOCS").is_some_and(|wish| wish == "write") {
        fs::write(root().join("docs/errors.md"), &page).expect("docs can be written");
    }
    let same = read("docs/errors.md") == page;
    assert!(same, "docs/errors.md is old: MPREG_DOCS=write cargo test --test docs");
}

#[test]
fn the_protocol_says_where_each_code_comes_from() {
    let protocol = read("docs/PROTOCOL.md");
    let told = |code: &&Code| protocol.contains(&format!("`{code}`"));
    let unused = |code: &Code| UNUSED_CODES.contains(&code.as_str());
    let missing: Vec<_> = Code::ALL.iter().filter(|c| !unused(c) && !told(c)).collect();
    assert!(missing.is_empty(), "not in docs/PROTOCOL.md: {missing:?}");
}

/// First cells of the rows of all tables, and their second or third, by its number.
fn rows(text: &str, column: usize) -> Vec<(String, String)> {
    let cells = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let name = cells.first()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), (*cells.get(column)?).to_owned()))
    });
    cells.collect()
}

/// Names of the fields after the line `opening`, up to a line that closes it.
fn fields(text: &str, opening: &str) -> BTreeSet<String> {
    let inside = text.lines().skip_while(|line| *line != opening).skip(1);
    let inside = inside.take_while(|line| !line.starts_with('}'));
    let name = |line: &str| {
        let line = line.trim().trim_start_matches("pub ");
        let name = line.split_once(':')?.0;
        let plain = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        (plain && !name.is_empty()).then(|| name.to_owned())
    };
    inside.filter_map(name).collect()
}

#[test]
fn every_key_of_the_configuration_is_documented() {
    let source = read("src/config.rs");
    let mut keys = fields(&source, "pub struct Config {");
    keys.extend(fields(&source, "limits! {"));
    keys.extend(fields(&source, "pub struct RetainConfig {"));
    keys.extend(fields(&source, "pub struct QueuesConfig {"));
    keys.extend(fields(&source, "pub struct HttpConfig {"));
    keys.extend(fields(&source, "pub struct FederationConfig {"));
    keys.extend(fields(&source, "pub struct LinkConfig {"));
    keys.extend(fields(&source, "pub struct RuleConfig {"));
    let tables = ["limits", "topics", "http", "federation", "link", "rule"]
        .iter()
        .all(|table| keys.remove(*table));
    assert!(tables && keys.len() > 10, "keys found in src/config.rs: {keys:?}");
    let page = read("docs/config.md");
    let told: BTreeSet<String> = rows(&page, 0).into_iter().map(|(name, _)| name).collect();
    assert_eq!(told, keys, "docs/config.md, and src/config.rs");
}

#[test]
fn defaults_of_the_configuration_are_as_documented() {
    let limits = serde_json::to_value(Limits::default()).expect("limits are JSON");
    let config = Config::default();
    for (name, default) in rows(&read("docs/config.md"), 1) {
        if let Some(value) = limits.get(&name) {
            assert_eq!(default, value.to_string(), "{name} in docs/config.md");
        }
    }
    let flagged = rows(&read("docs/config.md"), 2);
    let told = |key: &str| {
        flagged.iter().find(|(name, _)| name == key).map(|(_, v)| v.as_str()).unwrap_or_default()
    };
    assert_eq!(told("port"), config.port.to_string());
    assert_eq!(told("bind"), format!("`{:?}`", config.bind));
    assert_eq!(told("drain_ms"), config.drain_ms.to_string());
    assert_eq!(told("insecure"), format!("`{}`", config.insecure));
}

#[test]
fn the_example_of_a_configuration_is_one() {
    let page = read("docs/config.md");
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mpreg.toml");
    fs::write(&path, example.expect("a toml block")).expect("the folder can be written");
    let config = Config::read(&path).expect("docs/config.md shows a configuration");
    assert_eq!(config.endpoint(), Config::default().endpoint());
}

#[test]
fn every_limit_stands_in_the_protocol() {
    let limits = serde_json::to_value(Limits::default()).expect("limits are JSON");
    let protocol = read("docs/PROTOCOL.md");
    let section = protocol.split("\n## ").find(|part| part.starts_with("13. Limits"));
    let told: BTreeSet<String> =
        rows(section.unwrap_or_default(), 0).into_iter().map(|(name, _)| name).collect();
    let known: BTreeSet<String> =
        limits.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    assert_eq!(told, known);
}

/// A fenced block, and the mark before it.
#[derive(Debug)]
struct Block {
    mark: String,
    language: String,
    text: String,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let (mut before, mut open) = ("", false);
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            open = !open;
            if open {
                let mark = before.strip_prefix("<!-- ").and_then(|mark| mark.strip_suffix(" -->"));
                let (mark, language) = (mark.unwrap_or_default().into(), language.into());
                found.push(Block { mark, language, text: String::new() });
            }
        } else if open && let Some(block) = found.last_mut() {
            block.text.push_str(line);
            block.text.push('\n');
        }
        before = line;
    }
    found
}

/// Whether it is what brokers say to agree on a link.
fn is_said_at_a_bridge(message: &Json) -> bool {
    match message["op"].as_str() {
        Some("link") => {
            Ask::deserialize(message).expect("a request at a bridge").protocol == PROTOCOL
        }
        Some("linked") => Agreed::deserialize(message).expect("its answer").protocol == PROTOCOL,
        _ => false,
    }
}

#[test]
fn messages_in_the_protocol_are_messages() {
    let limits = Limits::default();
    let mut messages = 0;
    for block in blocks(&read("docs/PROTOCOL.md")) {
        if block.language != "json" {
            continue;
        }
        let stream = serde_json::Deserializer::from_str(&block.text).into_iter::<Json>();
        for value in stream {
            let value = value.unwrap_or_else(|error| panic!("{error} in:\n{}", block.text));
            if value.get("op").is_none() || is_said_at_a_bridge(&value) {
                continue;
            }
            let (body, mut said, mut heard) = (Bytes::from(value.to_string()), 0, 0);
            let taken = decode(&body, Vec::new(), &limits, &mut |item| {
                said += usize::from(item.result.is_ok());
            });
            taken.unwrap_or_else(|refusal| panic!("{refusal}: {value}"));
            let _ = decode_reply(&body, Vec::new(), &limits, &mut |item| {
                heard += usize::from(item.result.is_ok());
            });
            assert!(said + heard > 0, "neither a peer nor the broker says {value}");
            messages += 1;
        }
    }
    assert!(messages > 8, "only {messages} messages in docs/PROTOCOL.md");
}

#[test]
fn quoted_code_stands_where_it_is_said_to() {
    for page in ["README.md", "docs/PROTOCOL.md"] {
        for block in blocks(&read(page)) {
            let Some(path) = block.mark.strip_prefix("from: ") else { continue };
            let squeeze = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
            let there = squeeze(&read(path)).contains(squeeze(&block.text).trim());
            assert!(there, "{page} quotes what is not in {path}:\n{}", block.text);
        }
    }
}

/// A process group that ends with the test.
struct Group(Child);

impl Group {
    fn spawn(command: &mut Command) -> Self {
        let child = command.process_group(0).stdin(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.0.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// The program under test.
fn program() -> PathBuf {
    match std::env::var_os("MPREG_BIN") {
        Some(path) => root().join(path),
        None => env!("CARGO_BIN_EXE_mpreg").into(),
    }
}

/// A Python that has pyzmq: the project's own environment first.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("MPREG_PYTHON").map(PathBuf::from);
    let candidates = [root().join(".venv/bin/python"), PathBuf::from("python3")];
    named.into_iter().chain(candidates).find(|python| {
        let mut probe = Command::new(python);
        probe.args(["-c", "import zmq"]).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    })
}

/// Starts a broker; gives it and its endpoints.
fn broker(folder: &Path) -> (Group, Json) {
    let data = folder.join("data");
    let mut command = Command::new(program());
    command.args(["serve", "--port", "0", "--output", "json", "--data"]).arg(data);
    let mut broker = Group::spawn(command.stdout(Stdio::piped()));
    let mut line = String::new();
    let stdout = broker.0.stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut line).expect("the broker says where it is");
    let mut ready: Json = serde_json::from_str(&line).expect("a line of JSON");
    (broker, ready["endpoints"].take())
}

/// A command `mpreg` that knows the door, so that examples need not name it.
fn shim(folder: &Path, door: &str) {
    let program = program();
    let program = program.display();
    let script = format!(
        "#!/bin/sh\ncommand=$1; shift\ncase \" $* \" in\n\
         *\" --broker \"*) exec '{program}' $command \"$@\" ;;\nesac\ncase $command in\n\
         serve|demo|errors) exec '{program}' $command \"$@\" ;;\n\
         graph) verb=$1; shift; exec '{program}' graph $verb --broker {door} \"$@\" ;;\n\
         *) exec '{program}' $command --broker {door} \"$@\" ;;\nesac\n"
    );
    let path = folder.join("mpreg");
    fs::write(&path, script).expect("the folder can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// Runs one block beside `files`; what it printed.
fn run(block: &Block, files: &[(String, String)], python: Option<&Path>) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (_broker, endpoints) = broker(folder);
    let address = |endpoint: &str| endpoints[endpoint].as_str().expect("an address").to_owned();
    shim(folder, &address("door"));
    for (name, text) in files {
        let text = text.replace(DOOR, &address("door"));
        let text = text.replace(PUBLISH, &address("publish"));
        let text = text.replace(SUBSCRIBE, &address("subscribe"));
        fs::write(folder.join(name), text).expect("the folder can be written");
    }
    let paths = std::env::var("PATH").unwrap_or_default();
    let output = File::create(folder.join("stdout")).expect("the folder can be written");
    let errors = File::create(folder.join("stderr")).expect("the folder can be written");
    let script = block.text.replace(HTTP, &address("http"));
    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c", &script]).current_dir(folder).stdout(output).stderr(errors);
    shell.env("PATH", format!("{}:{paths}", folder.display()));
    shell.env("PYTHON", python.unwrap_or_else(|| Path::new("python3")));
    let mut shell = Group::spawn(&mut shell);
    let until = Instant::now() + PATIENCE;
    let status = loop {
        match shell.0.try_wait().expect("the shell can be waited for") {
            Some(status) => break Some(status),
            None if Instant::now() > until => break None,
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let printed = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let good = status.is_some_and(|status| status.success());
    assert!(good, "{status:?} of:\n{}\n{}{}", block.text, printed("stdout"), printed("stderr"));
    printed("stdout")
}

#[rstest::rstest]
#[case("README.md")]
#[case("docs/PROTOCOL.md")]
fn examples_do_what_they_say(#[case] page: &str) {
    let python = python();
    let (mut files, mut printed, mut runs) = (Vec::new(), None, 0);
    for block in blocks(&read(page)) {
        if let Some(name) = block.mark.strip_prefix("file: ") {
            files.retain(|(known, _)| known != name);
            files.push((name.to_owned(), block.text));
        } else if block.mark == "run" {
            let needs_python = block.text.contains("$PYTHON");
            printed = match needs_python && python.is_none() {
                true => None,
                false => Some(run(&block, &files, python.as_deref())),
            };
            runs += 1;
        } else if block.mark == "output"
            && let Some(printed) = printed.take()
        {
            assert_eq!(printed.trim_end(), block.text.trim_end(), "what {page} says is printed");
        }
    }
    assert!(runs > 0, "{page} has no example that is run");
    if python.is_none() {
        eprintln!("pyzmq was not found: the examples in Python were not run");
    }
}
