//! `mpreg work`: any shell command as a function.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mpreg_sockets::client::{Client, ReadBody};
use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::rig::{Broker, PATIENCE, Process, mpreg, program, turn, until};

/// Starts `mpreg work NAME OPTIONS -- sh -c SCRIPT` and waits until it is known.
async fn work(broker: &Broker, client: &Client, options: &[&str], script: &str) -> Process {
    let mut command = Command::new(program());
    command.args(["work", options[0], "--broker", &broker.door, "--output", "quiet"]);
    command.args(&options[1..]).args(["--", "sh", "-c", script]);
    let process = Process::spawn(command.stdin(Stdio::null()));
    until(client, "mpreg.functions", |functions| {
        functions.as_array().unwrap().iter().any(|function| function["name"] == options[0])
    })
    .await;
    process
}

async fn call(client: &Client, fun: &str, args: &[Json]) -> Result<Json, String> {
    match client.call(fun).args(args).send().await {
        Ok(body) => Ok(body.read().unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test]
async fn a_line_of_json_in_and_json_or_text_out() {
    let _turn = turn();
    let broker = Broker::start();
    let client = broker.client().await;
    let _line = work(&broker, &client, &["line"], "cat").await;
    let kwargs = json!({ "b": 2, "a": "\n" });
    let sent = client.call("line").args(&[json!([1]), json!("x")]).kwargs(&kwargs).send();
    let seen: Json = sent.await.unwrap().read().unwrap();
    assert_eq!(seen, json!({ "args": [[1], "x"], "kwargs": kwargs }));
    let _lines = work(&broker, &client, &["lines"], "wc -l").await;
    let spread =
        client.call("lines").args_value(mpreg_patterns::values::Value::json(&b"[\n1,\n2 ]"[..]));
    assert_eq!(spread.send().await.unwrap().read::<u32>().unwrap(), 1, "one line");
    let _text = work(&broker, &client, &["said"], "echo not json").await;
    assert_eq!(call(&client, "said", &[]).await.unwrap(), "not json");
    let _nothing = work(&broker, &client, &["nothing"], "true").await;
    assert_eq!(call(&client, "nothing", &[]).await.unwrap(), "");
}

#[tokio::test]
async fn text_hands_the_first_argument_over() {
    let _turn = turn();
    let broker = Broker::start();
    let client = broker.client().await;
    let _upper = work(&broker, &client, &["upper", "--text"], "tr a-z A-Z").await;
    assert_eq!(call(&client, "upper", &[json!("héllo")]).await.unwrap(), "HéLLO");
    assert_eq!(call(&client, "upper", &[json!({ "a": 1 })]).await.unwrap(), json!({ "A": 1 }));
    assert_eq!(call(&client, "upper", &[]).await.unwrap(), "");
}

#[tokio::test]
async fn an_exit_code_is_a_failure_with_the_end_of_stderr() {
    let _turn = turn();
    let broker = Broker::start();
    let client = broker.client().await;
    let script = "head -c 100000 /dev/zero | tr '\\0' a >&2; echo last words >&2; exit 3";
    let _worker = work(&broker, &client, &["fails"], script).await;
    let error = call(&client, "fails", &[]).await.unwrap_err();
    assert!(error.starts_with("failed: ") && error.ends_with("last words"), "{error}");
    assert!(error.contains('3'), "{error}");
    let kept = error.matches('a').count();
    assert!((4_000..=4_200).contains(&kept), "{kept} bytes of stderr");
    let _killed = work(&broker, &client, &["killed"], "kill -9 $$").await;
    let error = call(&client, "killed", &[]).await.unwrap_err();
    assert!(error.starts_with("failed: ") && error.contains("signal"), "{error}");
}

#[tokio::test]
async fn too_much_output_is_a_failure_and_no_stall() {
    let _turn = turn();
    let broker = Broker::start();
    let client = broker.client().await;
    let _worker = work(&broker, &client, &["floods"], "head -c 30000000 /dev/zero").await;
    let error = call(&client, "floods", &[]).await.unwrap_err();
    assert!(error.contains("more than"), "{error}");
}

/// A script that starts a grandchild, says who both are, and stays.
fn family(file: &std::path::Path) -> String {
    format!("sleep 600 & echo $$ $! > {0}.new; mv {0}.new {0}; wait", file.display())
}

/// The processes that the script above named, once it has.
async fn named(file: &std::path::Path) -> Vec<u32> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Ok(text) = std::fs::read_to_string(file) {
            std::fs::remove_file(file).unwrap();
            return text.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        }
        assert!(Instant::now() < until, "the command has not started");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until neither runs; a zombie that nobody has collected yet does not.
async fn ended(pids: &[u32]) {
    let until = Instant::now() + Duration::from_secs(3);
    let runs = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_some_and(|state| state != 'Z')
    };
    while pids.iter().any(runs) {
        assert!(Instant::now() < until, "{pids:?} still run");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn deadline_cancel_and_stop_end_the_whole_process_group() {
    let _turn = turn();
    let mut broker = Broker::start();
    let client = broker.client().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let mut worker = work(&broker, &client, &["family"], &family(&file)).await;
    let late = client.call("family").timeout(Duration::from_millis(400)).send();
    let (late, pids) = tokio::join!(late, named(&file));
    assert_eq!(late.unwrap_err().code(), Some("timeout"));
    ended(&pids).await;
    // The first call's future is dropped once the command runs, which cancels it.
    let pids = tokio::select! {
        pids = named(&file) => pids,
        _ = client.call("family").send() => panic!("it ended by itself"),
    };
    ended(&pids).await;
    // The broker dies: what runs is of no use to anybody.
    let call = tokio::spawn(client.call("family").send());
    let pids = named(&file).await;
    broker.process.kill();
    ended(&pids).await;
    assert_eq!(call.await.unwrap().unwrap_err().code(), Some("outcome_unknown"));
    assert!(worker.is_running(), "it waits for another broker");
}

#[tokio::test]
async fn credit_is_how_many_run_at_once() {
    let _turn = turn();
    let broker = Broker::start();
    let client = broker.client().await;
    let _four = work(&broker, &client, &["four", "--credit", "4"], "sleep 0.5").await;
    let begun = Instant::now();
    let calls: Vec<_> = (0..4).map(|_| tokio::spawn(client.call("four").send())).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_worker_that_is_terminated_finishes_what_it_has() {
    let _turn = turn();
    let broker = Broker::start();
    let client = broker.client().await;
    let mut worker = work(&broker, &client, &["slow"], "sleep 0.7; echo '\"done\"'").await;
    let call = tokio::spawn(client.call("slow").send());
    until(&client, "mpreg.workers", |workers| workers[0]["in_hand"] == 1).await;
    worker.signal(Signal::TERM);
    assert_eq!(call.await.unwrap().unwrap().read::<String>().unwrap(), "done");
    assert!(worker.wait(PATIENCE).success());
}

#[tokio::test]
async fn locs_version_and_idempotence_are_offered() {
    let _turn = turn();
    let broker = Broker::start();
    let client = broker.client().await;
    let options = ["f", "--loc", "a", "--loc", "b", "--version", "2.1.0", "--idempotent"];
    let _worker = work(&broker, &client, &options, "true").await;
    let functions = crate::rig::ask(&client, "mpreg.functions").await;
    let told = &functions[0];
    assert_eq!((&told["version"], &told["idempotent"]), (&json!("2.1.0"), &json!(true)));
    assert_eq!(told["locs"], json!(["a", "b"]));
    let workers = crate::rig::ask(&client, "mpreg.workers").await;
    assert_eq!(workers[0]["name"], "work f");
}

#[test]
fn what_cannot_be_offered_is_an_error() {
    let _turn = turn();
    let broker = Broker::start();
    for (args, code) in [
        (["work", "mpreg.mine", "--version", "1.0.0"], "reserved_name"),
        (["work", "f", "--version", "one"], "bad_version"),
        (["work", "a..b", "--version", "1.0.0"], "bad_name"),
    ] {
        let tail = ["--output", "json", "--broker", &broker.door, "--", "true"];
        let refused = mpreg(&[&args[..], &tail].concat());
        assert_eq!(refused.status.code(), Some(1), "{args:?}");
        let last = crate::rig::text(&refused.stderr).lines().last().unwrap_or_default();
        let error: Json = serde_json::from_str(last).unwrap();
        assert_eq!(error["error"]["code"], code, "{error}");
    }
    let missing = mpreg(&["work", "f", "--broker", &broker.door]);
    assert_eq!(missing.status.code(), Some(2), "a command is needed");
}

#[tokio::test]
async fn a_command_that_is_not_there_is_a_failure_that_names_it() {
    let _turn = turn();
    let broker = Broker::start();
    let client = broker.client().await;
    let mut command = Command::new(program());
    command.args(["work", "gone", "--broker", &broker.door, "--", "/no/such/command"]);
    let _worker = Process::spawn(command.stdin(Stdio::null()).stderr(Stdio::null()));
    let error = client.call("gone").wait().send().await.unwrap_err().to_string();
    assert!(error.contains("/no/such/command"), "{error}");
}
