//! The command line: what each command prints in each format, and how it fails.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use serde_json::{Value as Json, json};

use crate::rig::{Broker, alone, json as parsed, mpreg, program, text, turn};

const STEPS: &str = r#"{"steps":[
    {"name":"load","fun":"echo","args":[[1,2]]},
    {"name":"one","fun":"echo","args":[{"$ref":"load","at":"/0"}]},
    {"name":"sum","fun":"add","args":[{"$ref":"one"},40]}]}"#;

/// Runs a command that reads its standard input.
fn fed(broker: &Broker, args: &[&str], input: &str) -> Output {
    let mut command = Command::new(program());
    command.args(args).args(["--broker", &broker.door]);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The failure a command printed as JSON.
fn failure(output: &Output) -> Json {
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    parsed(&output.stderr)["error"].take()
}

#[tokio::test]
async fn call_prints_the_result() {
    let _turn = turn();
    let broker = Broker::start();
    let _workers = broker.workers(1, "").await;
    let call = |args: &[&str]| broker.mpreg(&[&["call"], args].concat());
    assert_eq!(text(&call(&["echo", "hello"]).stdout), "hello");
    assert_eq!(text(&call(&["echo", "hello", "--output", "json"]).stdout), "\"hello\"");
    assert_eq!(text(&call(&["echo", "hello", "--output", "quiet"]).stdout), "");
    assert_eq!(text(&call(&["echo", "[1,{\"a\":2}]", "--output", "json"]).stdout), "[1,{\"a\":2}]");
    assert_eq!(text(&call(&["add", "40", "2"]).stdout), "42");
    let failed = failure(&call(&["fail", "no paper", "--output", "json"]));
    assert_eq!((&failed["code"], &failed["message"]), (&json!("failed"), &json!("no paper")));
    assert_eq!(failed["detail"]["culprit"], "worker");
    let failed = call(&["nobody"]);
    assert_eq!(failed.status.code(), Some(1));
    let words = text(&failed.stderr);
    assert!(words.contains("unknown_function") && words.contains("mpreg errors"), "{words}");
    let failed = call(&["nobody", "--output", "quiet"]);
    assert_eq!((failed.status.code(), text(&failed.stderr)), (Some(1), ""));
    let late = failure(&call(&["rest", "9000", "--timeout", "100ms", "--output", "json"]));
    assert_eq!(late["code"], "timeout");
    let wrong = failure(&call(&["echo", "--kwargs", "[1]", "--output", "json"]));
    assert_eq!(wrong["code"], "bad_kwargs");
    assert_eq!(call(&["echo", "--timeout", "soon"]).status.code(), Some(2));
    let version = failure(&call(&["echo", "1", "--version", "^9", "--output", "json"]));
    assert_eq!(version["code"], "no_version");
    let loc = failure(&call(&["echo", "1", "--loc", "moon", "--output", "json"]));
    assert_eq!(loc["code"], "no_location");
}

#[tokio::test]
async fn graph_runs_a_file_or_what_it_is_fed() {
    let _turn = turn();
    let broker = Broker::start();
    let _workers = broker.workers(1, "").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("graph.json");
    std::fs::write(&file, STEPS).unwrap();
    let file = file.to_str().unwrap();
    let ran = broker.mpreg(&["graph", "run", file, "--output", "json"]);
    assert_eq!(parsed(&ran.stdout)["results"], json!({ "sum": 41 }));
    let ran = fed(&broker, &["graph", "run", "-"], STEPS);
    assert!(text(&ran.stdout).contains("sum") && text(&ran.stdout).contains("41"));
    let ran = fed(&broker, &["graph", "run", "-", "--output", "quiet"], STEPS);
    assert!(ran.status.success() && ran.stdout.is_empty());
    let bad = r#"{"steps":[{"name":"a","fun":"fail","args":["broken"]}]}"#;
    let failed = failure(&fed(&broker, &["graph", "run", "-", "--output", "json"], bad));
    assert_eq!((&failed["code"], &failed["message"]), (&json!("failed"), &json!("broken")));
    assert_eq!(failed["detail"]["step"], "a");
    assert_eq!(failed["detail"]["steps"]["a"]["state"], "failed");
    for (input, named) in [("{", "-"), (r#"{"steps":[],"stepz":1}"#, "stepz"), ("{}", "steps")] {
        let failed = failure(&fed(&broker, &["graph", "run", "-", "--output", "json"], input));
        assert_eq!(failed["code"], "bad_file");
        assert!(failed["message"].as_str().unwrap().contains(named), "{failed}");
    }
    let failed = failure(&broker.mpreg(&["graph", "run", "/no/file", "--output", "json"]));
    assert_eq!(failed["code"], "cannot_read");
}

#[tokio::test]
async fn graph_check_runs_nothing_and_dot_draws() {
    let _turn = turn();
    let broker = Broker::start();
    let _workers = broker.workers(1, "").await;
    let check =
        fed(&broker, &["graph", "check", "-", "--impact", "load", "--output", "json"], STEPS);
    let report = parsed(&check.stdout);
    assert_eq!((&report["steps"], &report["levels"]), (&json!(3), &json!(3)));
    assert_eq!(report["impact"]["steps"], json!(["one", "sum"]));
    assert!(report["plan"][0]["worker"].is_string(), "{report}");
    let check = fed(&broker, &["graph", "check", "-", "--impact", "load"], STEPS);
    let words = text(&check.stdout);
    assert!(words.contains("3 steps in 3 levels") && words.contains("one,sum"), "{words}");
    let dot = fed(&broker, &["graph", "dot", "-"], STEPS);
    let words = text(&dot.stdout);
    assert!(words.starts_with("digraph") && words.contains("\"load\" -> \"one\""), "{words}");
    let cycle = r#"{"steps":[{"name":"a","fun":"echo","args":[{"$ref":"b"}]},
        {"name":"b","fun":"echo","args":[{"$ref":"a"}]}]}"#;
    let failed = failure(&fed(&broker, &["graph", "check", "-", "--output", "json"], cycle));
    assert_eq!(failed["code"], "cycle");
    let gone = ["graph", "check", "-", "--impact", "gone", "--output", "json"];
    assert_eq!(failure(&fed(&broker, &gone, STEPS))["code"], "unknown_step");
    let status = parsed(&broker.mpreg(&["status", "--output", "json"]).stdout);
    assert_eq!(status["calls"]["accepted"], 0, "a check calls nobody");
}

#[tokio::test]
async fn status_workers_and_functions_tell_what_is() {
    let _turn = turn();
    let broker = Broker::start();
    let shown = |command: &str, format: &str| broker.mpreg(&[command, "--output", format]);
    assert!(text(&shown("workers", "table").stdout).contains("no workers"));
    assert_eq!(text(&shown("functions", "json").stdout), "[]");
    let _workers = broker.workers(1, "loc=north").await;
    let status = parsed(&shown("status", "json").stdout);
    assert_eq!(status["endpoints"]["door"], broker.door);
    assert!(text(&shown("status", "table").stdout).contains("endpoints.door"));
    let workers = parsed(&shown("workers", "json").stdout);
    assert_eq!((&workers[0]["locs"], &workers[0]["credit"]), (&json!(["north"]), &json!(64)));
    assert!(text(&shown("workers", "table").stdout).starts_with("WORKER"));
    let functions = parsed(&shown("functions", "json").stdout);
    assert!(functions.as_array().unwrap().iter().any(|function| function["name"] == "echo"));
    assert!(text(&shown("functions", "table").stdout).starts_with("NAME"));
    for command in ["status", "workers", "functions"] {
        let quiet = shown(command, "quiet");
        assert!(quiet.status.success() && quiet.stdout.is_empty(), "{command}");
    }
}

/// Whoever reads no further has what it wanted; what cannot be written is an error.
#[test]
fn output_that_nobody_reads() {
    let _turn = turn();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let run = |to: Stdio| {
        let mut command = Command::new(program());
        command.args(["errors"]).stdout(to).stderr(Stdio::piped()).output().unwrap()
    };
    let closed = run(writer.into());
    assert_eq!((closed.status.code(), text(&closed.stderr)), (Some(0), ""));
    let full = run(std::fs::File::create("/dev/full").unwrap().into());
    assert_eq!(full.status.code(), Some(1));
    assert!(text(&full.stderr).contains("cannot be written"), "{}", text(&full.stderr));
}

/// It becomes the program that measures, if that is there.
#[test]
fn bench_runs_the_program_beside_it() {
    // A program that is being written cannot be run, and a child of another test may hold it open.
    let _turn = alone();
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("mpreg");
    std::fs::copy(program(), &own).unwrap();
    let run = |args: &[&str]| {
        Command::new(&own).arg("bench").args(args).env("PATH", folder.path()).output().unwrap()
    };
    let missing = run(&["rpc"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("cargo build --release -p mpreg-bench"));
    let script = "#!/bin/sh\necho \"$*\"; exit 3\n";
    let beside = folder.path().join("mpreg-bench");
    std::fs::write(&beside, script).unwrap();
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755)).unwrap();
    let ran = run(&["rpc", "--rounds", "3", "--help"]);
    assert_eq!((ran.status.code(), text(&ran.stdout)), (Some(3), "rpc --rounds 3 --help"));
    let json = Command::new(&own).args(["--output", "json", "bench", "rpc"]).output().unwrap();
    assert_eq!(text(&json.stdout), "rpc --json");
}

#[test]
fn errors_are_explained() {
    let _turn = turn();
    let all = parsed(&mpreg(&["errors", "--output", "json"]).stdout);
    for about in all.as_array().unwrap() {
        let code = about["code"].as_str().unwrap();
        assert_eq!(parsed(&mpreg(&["errors", code, "--output", "json"]).stdout), *about);
    }
    assert!(text(&mpreg(&["errors"]).stdout).contains("outcome_unknown"));
    assert!(text(&mpreg(&["errors", "cycle"]).stdout).contains("circle"));
    assert_eq!(failure(&mpreg(&["errors", "bogus", "--output", "json"]))["code"], "unknown_code");
}

/// Where there is no broker, every command says so and fails.
#[test]
fn no_broker_is_an_error_of_every_command() {
    let _turn = turn();
    // An address that nobody listens at, found without racing for a port.
    let nowhere = "ipc:///nonexistent/mpreg.door";
    let commands: [&[&str]; 6] = [
        &["call", "f"],
        &["status"],
        &["workers"],
        &["functions"],
        &["graph", "check", "-"],
        &["work", "f"],
    ];
    let run = |args: &[&str]| {
        let mut command = Command::new(program());
        command.args(args).args(["--output", "json", "--broker", nowhere]);
        if args[0] == "work" {
            command.args(["--", "true"]);
        }
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        child.stdin.take().unwrap().write_all(STEPS.as_bytes()).ok();
        child
    };
    // Each waits five seconds for an answer, so they wait together.
    let running: Vec<_> = commands.iter().map(|args| (args, run(args))).collect();
    for (args, child) in running {
        let failed = failure(&child.wait_with_output().unwrap());
        assert_eq!(failed["code"], "no_broker", "{args:?}");
        assert!(failed["message"].as_str().unwrap().contains(nowhere), "{failed}");
    }
    let failed = failure(&mpreg(&["status", "--output", "json", "--broker", "nonsense"]));
    assert_eq!(failed["code"], "no_broker");
}

#[test]
fn every_command_has_an_example() {
    let _turn = turn();
    let commands: [&[&str]; 14] = [
        &[],
        &["serve"],
        &["demo"],
        &["work"],
        &["call"],
        &["graph"],
        &["graph", "run"],
        &["graph", "check"],
        &["graph", "dot"],
        &["status"],
        &["workers"],
        &["functions"],
        &["store"],
        &["errors"],
    ];
    for command in commands {
        let help = mpreg(&[command, &["--help"]].concat());
        assert!(help.status.success());
        assert!(text(&help.stdout).contains("Example: mpreg "), "{command:?}");
    }
    assert_eq!(mpreg(&["sevre"]).status.code(), Some(2));
    assert_eq!(text(&mpreg(&["--version"]).stdout), concat!("mpreg ", env!("CARGO_PKG_VERSION")));
}
