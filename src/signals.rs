//! What the system asks of the process, and tells it.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Resolves when the process is asked to stop, from now on: SIGTERM, or SIGINT from a keyboard.
pub fn stop() -> impl Future<Output = ()> {
    let mut terminate = signal(SignalKind::terminate()).ok();
    let mut interrupt = signal(SignalKind::interrupt()).ok();
    async move {
        tokio::select! {
            () = next(&mut terminate) => {}
            () = next(&mut interrupt) => {}
        }
    }
}

/// A file that may not grow is an error of the write, not the end of the process.
pub fn outlive_limits() {
    let beyond = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    if let Err(error) = signal(beyond) {
        log::warn!("a limit to the size of files would end the broker: {error}");
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
