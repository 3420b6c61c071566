//! `GET /metrics`: what `mpreg.status` and `mpreg.queues` tell, as Prometheus reads it.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde_json::{Value as Json, json};

use super::Site;
use super::answer::ended;
use super::guest::{Guest, Op, checked};

/// Queues with rows of their own, those with the most messages first.
const QUEUES: u32 = 1_000;

#[derive(Clone, Copy)]
enum Type {
    Counter,
    Gauge,
    Histogram,
}
use Type::{Counter, Gauge, Histogram};

/// Where a number stands in `mpreg.status`, and what it is called.
#[rustfmt::skip]
const OF_STATUS: [(&str, &str, Type, &str); 39] = [
    ("/uptime_ms", "uptime_ms", Gauge, "Milliseconds since the broker began"),
    ("/requests", "requests_in_flight", Gauge, "Requests in flight"),
    ("/calls/accepted", "calls_accepted_total", Counter, "Calls and steps that were accepted"),
    ("/calls/done", "calls_done_total", Counter, "Those that returned"),
    ("/calls/failed", "calls_failed_total", Counter, "Those that failed"),
    ("/calls/moved", "calls_moved_total", Counter, "Those that went to another worker"),
    ("/calls/stray", "calls_stray_total", Counter, "Answers of workers that nobody waited for"),
    ("/calls/lost_workers", "workers_lost_total", Counter, "Workers lost with calls in hand"),
    ("/graphs/started", "graphs_started_total", Counter, "Graphs that began"),
    ("/graphs/done", "graphs_done_total", Counter, "Graphs that returned"),
    ("/graphs/failed", "graphs_failed_total", Counter, "Graphs that failed"),
    ("/graphs/steps", "graph_steps_total", Counter, "Steps of graphs that ran"),
    ("/graphs/retried", "graph_steps_retried_total", Counter, "Steps that were tried again"),
    ("/graphs_in_flight", "graphs_in_flight", Gauge, "Graphs in flight"),
    ("/topics/published", "events_published_total", Counter, "Events that were published"),
    ("/topics/refused", "events_refused_total", Counter, "Events that were refused"),
    ("/topics/delivered", "events_delivered_total", Counter, "Deliveries of events"),
    ("/topics/dropped", "events_dropped_total", Counter, "Deliveries dropped for want of room"),
    ("/topics/missed", "events_missed_total", Counter, "Deliveries not made for want of credit"),
    ("/patterns", "patterns", Gauge, "Patterns that somebody holds"),
    ("/waiting", "topic_waits", Gauge, "Calls that wait for an event"),
    ("/queues/queues", "queues", Gauge, "Queues"),
    ("/queues/consumers", "consumers", Gauge, "Consumers of queues"),
    ("/queues/in_flight", "messages_in_flight", Gauge, "Messages in the hands of consumers"),
    ("/queues/unconfirmed", "unconfirmed", Gauge, "Answers that wait for the disk"),
    ("/queues/counters/enqueued", "messages_enqueued_total", Counter, "Sent to queues"),
    ("/queues/counters/delivered", "messages_delivered_total", Counter, "Deliveries of messages"),
    ("/queues/counters/redelivered", "messages_redelivered_total", Counter, "Repeated deliveries"),
    ("/queues/counters/acked", "messages_acked_total", Counter, "Messages done with"),
    ("/queues/counters/nacked", "messages_nacked_total", Counter, "Messages that were given back"),
    ("/queues/counters/dead", "messages_dead_total", Counter, "Dead letters made"),
    ("/queues/counters/dropped", "messages_dropped_total", Counter, "Dropped from full queues"),
    ("/queues/counters/unroutable", "messages_unroutable_total", Counter, "No queue took them"),
    ("/process/peers", "peers", Gauge, "Connections"),
    ("/process/stalled_peers", "stalled_peers", Gauge, "Connections that do not read"),
    ("/process/resident_bytes", "resident_bytes", Gauge, "Memory of the broker"),
    ("/process/traffic/messages_in", "frames_in_total", Counter, "Envelopes that came"),
    ("/process/traffic/messages_out", "frames_out_total", Counter, "Envelopes that left"),
    ("/process/traffic/replies_dropped", "replies_dropped_total", Counter, "Replies dropped"),
];

/// The same in a row of `mpreg.queues`.
const OF_QUEUES: [(&str, &str, Type, &str); 7] = [
    ("/ready", "queue_ready", Gauge, "Messages that wait for a consumer"),
    ("/in_flight", "queue_in_flight", Gauge, "Messages in the hands of consumers"),
    ("/delayed", "queue_delayed", Gauge, "Messages that wait for their time"),
    ("/dead", "queue_dead", Gauge, "Dead letters"),
    ("/bytes", "queue_bytes", Gauge, "Bytes of all of them"),
    ("/consumers", "queue_consumers", Gauge, "Consumers"),
    ("/counters/enqueued", "queue_enqueued_total", Counter, "Messages it took"),
];

/// Where a histogram stands in `mpreg.status`, and what it is called.
const HISTOGRAMS: [(&str, &str, &str); 4] = [
    ("/latency/calls", "call", "From when a call came to when its outcome left"),
    ("/latency/graphs", "graph", "The same of graphs"),
    ("/latency/sends", "send", "The same of sends that wait for the disk"),
    ("/process/turns", "turn", "Turns of the broker's loop: what comes meanwhile waits as long"),
];

/// Where it stands what somebody keeps in memory, and who that is.
const MEMORY: [(&str, &str); 6] = [
    ("/process/waiting_bytes", "outboxes"),
    ("/memory/graphs", "graphs"),
    ("/memory/logs", "logs"),
    ("/memory/queue_fronts", "queue_fronts"),
    ("/memory/queue_in_flight", "queue_in_flight"),
    ("/memory/brokers", "brokers"),
];

pub(super) async fn metrics(State(site): State<Site>) -> Response {
    let told = async {
        let mut guest = Guest::arrive(&site.lane).await?;
        let mut told = Vec::new();
        for (fun, kwargs) in
            [("mpreg.status", json!({})), ("mpreg.queues", json!({ "top": QUEUES }))]
        {
            let mut op = Op::new("call", fun);
            op.put("fun", fun);
            op.put("kwargs", &kwargs);
            told.push(guest.ask(op).await?);
        }
        Ok(told)
    };
    let mut values = Vec::new();
    match told.await {
        Err(why) => return ended(why),
        Ok(told) => {
            for envelope in told {
                match checked(&envelope) {
                    Ok(reply) => {
                        let text = reply.result.map_or("null", |result| result.get());
                        values.push(serde_json::from_str(text).unwrap_or_default());
                    }
                    Err(response) => return *response,
                }
            }
        }
    }
    let mut response = Response::new(text(&values[0], &values[1]).into());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn text(status: &Json, queues: &Json) -> String {
    let mut text = String::new();
    for (at, name, kind, help) in OF_STATUS {
        if let Some(number) = status.pointer(at).filter(|value| value.is_number()) {
            head(&mut text, name, kind, help);
            let _ = writeln!(text, "mpreg_{name} {number}");
        }
    }
    HISTOGRAMS.iter().for_each(|of| histogram(&mut text, status, of));
    memory(&mut text, status);
    let rows: &[Json] = queues["queues"].as_array().map_or(&[], |rows| rows);
    for (at, name, kind, help) in OF_QUEUES.into_iter().filter(|_| !rows.is_empty()) {
        head(&mut text, name, kind, help);
        for row in rows {
            if let (Some(queue), Some(number)) = (row["queue"].as_str(), row.pointer(at)) {
                let queue = escaped(queue);
                let _ = writeln!(text, "mpreg_{name}{{queue=\"{queue}\"}} {number}");
            }
        }
    }
    let refused = status["refused"].as_object().into_iter().flatten();
    let mut refused = refused.peekable();
    if refused.peek().is_some() {
        head(&mut text, "refused_total", Counter, "Messages of plain sockets that were refused");
    }
    for (endpoint, codes) in refused {
        for (code, number) in codes.as_object().into_iter().flatten() {
            let (endpoint, code) = (escaped(endpoint), escaped(code));
            let labels = format!("endpoint=\"{endpoint}\",code=\"{code}\"");
            let _ = writeln!(text, "mpreg_refused_total{{{labels}}} {number}");
        }
    }
    text
}

fn histogram(text: &mut String, status: &Json, (at, name, help): &(&str, &str, &str)) {
    let Some(told) = status.pointer(at).filter(|told| told["count"].as_u64() > Some(0)) else {
        return;
    };
    let name = format!("{name}_seconds");
    head(text, &name, Histogram, help);
    let seconds = |us: &Json| us.as_f64().unwrap_or(0.0) / 1e6;
    for pair in told["up_to"].as_array().into_iter().flatten() {
        let le = seconds(&pair[0]);
        let _ = writeln!(text, "mpreg_{name}_bucket{{le=\"{le}\"}} {}", pair[1]);
    }
    let (count, sum) = (&told["count"], seconds(&told["sum_us"]));
    let _ = writeln!(text, "mpreg_{name}_bucket{{le=\"+Inf\"}} {count}");
    let _ = writeln!(text, "mpreg_{name}_sum {sum}\nmpreg_{name}_count {count}");
}

fn memory(text: &mut String, status: &Json) {
    let held = MEMORY.map(|(at, owner)| (owner, status.pointer(at).and_then(Json::as_u64)));
    if held.iter().all(|(_, bytes)| bytes.is_none()) {
        return;
    }
    head(text, "memory_bytes", Gauge, "Bytes that peers sent or wait for, by who keeps them");
    for (owner, bytes) in held {
        let bytes = bytes.unwrap_or(0);
        let _ = writeln!(text, "mpreg_memory_bytes{{owner=\"{owner}\"}} {bytes}");
    }
}

fn head(text: &mut String, name: &str, kind: Type, help: &str) {
    let kind = match kind {
        Counter => "counter",
        Gauge => "gauge",
        Histogram => "histogram",
    };
    let _ = writeln!(text, "# HELP mpreg_{name} {help}.\n# TYPE mpreg_{name} {kind}");
}

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_and_owners() {
        let calls = json!({ "count": 3, "sum_us": 1500, "up_to": [[50, 0], [1_000, 2]] });
        let status = json!({
            "latency": { "calls": calls, "sends": { "count": 0, "up_to": [] } },
            "memory": { "logs": 7 },
        });
        let text = text(&status, &json!({}));
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(
            lines[..6],
            [
                "# TYPE mpreg_call_seconds histogram",
                "mpreg_call_seconds_bucket{le=\"0.00005\"} 0",
                "mpreg_call_seconds_bucket{le=\"0.001\"} 2",
                "mpreg_call_seconds_bucket{le=\"+Inf\"} 3",
                "mpreg_call_seconds_sum 0.0015",
                "mpreg_call_seconds_count 3",
            ]
        );
        assert!(lines.contains(&"mpreg_memory_bytes{owner=\"logs\"} 7"));
        assert!(!text.contains("send_seconds"));
    }

    #[test]
    fn numbers_are_named() {
        let status = json!({ "requests": 2, "refused": { "push": { "bad_name": 3 } } });
        let row = json!({ "queue": "a\"b", "ready": 7, "counters": { "enqueued": 9 } });
        let text = text(&status, &json!({ "queues": [row] }));
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "mpreg_requests_in_flight 2",
                "mpreg_queue_ready{queue=\"a\\\"b\"} 7",
                "mpreg_queue_enqueued_total{queue=\"a\\\"b\"} 9",
                "mpreg_refused_total{endpoint=\"push\",code=\"bad_name\"} 3",
            ]
        );
    }
}
