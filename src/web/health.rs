//! `GET /health`: whether it serves, for whoever restarts it or sends it traffic.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::Site;
use super::answer::object;
use super::guest::{Guest, Op};

/// A core that has not answered by then does not serve.
const PATIENCE: Duration = Duration::from_secs(2);

/// 200 while it serves; 503 while it begins (`starting`), ends (`draining`) or is stuck (`stuck`).
pub(super) async fn health(State(site): State<Site>) -> Response {
    let stage = site.control.stage();
    if stage != "serving" {
        return object(StatusCode::SERVICE_UNAVAILABLE, &json!({ "stage": stage }));
    }
    let began = Instant::now();
    let asked = async { Guest::arrive(&site.lane).await?.ask(Op::new("ping", "health")).await };
    let core_ms = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(_)) => began.elapsed().as_secs_f64() * 1e3,
        _ => return object(StatusCode::SERVICE_UNAVAILABLE, &json!({ "stage": "stuck" })),
    };
    let core_ms = (core_ms * 1e3).round() / 1e3;
    object(StatusCode::OK, &json!({ "stage": stage, "core_ms": core_ms }))
}
