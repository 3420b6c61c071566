//! HTTP and WebSocket: a thread of its own, whose peers reach the core over a lane and speak the
//! same envelope as those at the door.
//!
//! In reading order: `lane` (to the core and back), `guard` (who may come in), `socket` (`/ws`),
//! `guest` (one request as a peer), `http` (what is asked with plain HTTP), `events` (topics as
//! server-sent events), `answer` (refusals as HTTP), `metrics` and `health`,
//! `page` (for browsers).

mod answer;
mod events;
mod guard;
mod guest;
mod health;
mod http;
mod lane;
mod metrics;
mod page;
mod query;
mod socket;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mpreg_patterns::base::Limits;
use smol_str::{SmolStr, format_smolstr};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::config::{Bind, HttpConfig};
use crate::core::Control;
pub(crate) use lane::{Arrival, Arrivals, ConnectionId, Line};

/// How long requests that are being answered may take once the broker has ended.
const GRACE: Duration = Duration::from_millis(500);

/// How long the head of a request may take, and a connection may ask for nothing.
const HEADERS: Duration = Duration::from_secs(30);
/// How long no connection is taken after one could not be.
const NOT_TAKEN: Duration = Duration::from_millis(100);

/// What every request is answered with.
#[derive(Clone)]
struct Site {
    lane: lane::Lane,
    limits: Arc<Limits>,
    control: Arc<Control>,
    http: Arc<HttpConfig>,
}

impl Site {
    /// The largest body: an envelope, or an attachment.
    fn body_bytes(&self) -> usize {
        self.limits.envelope_bytes.max(self.limits.attachment_bytes)
    }
}

/// A bound endpoint, before it serves.
pub(crate) enum Listener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

impl Listener {
    /// Binds the HTTP endpoint. Errors are the system's: EADDRINUSE when somebody has the port.
    pub(crate) fn bind(at: &Bind) -> std::io::Result<Self> {
        match at.http() {
            Ok(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
            Err(path) => {
                // A socket that nobody listens at is what a broker left that was killed.
                let is_dead = std::os::unix::net::UnixStream::connect(&path).is_err();
                if is_dead && path.exists() {
                    std::fs::remove_file(&path)?;
                }
                let listener = std::os::unix::net::UnixListener::bind(&path)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener, path))
            }
        }
    }

    /// Where it is, as `welcome` tells it.
    pub(crate) fn endpoint(&self) -> SmolStr {
        match self {
            Self::Tcp(listener) => {
                let address = listener.local_addr().map(|at| at.to_string());
                format_smolstr!("http://{}", address.unwrap_or_default())
            }
            Self::Unix(_, path) => format_smolstr!("http+unix://{}", path.display()),
        }
    }
}

/// The thread that serves it. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Web {
    stop: Option<oneshot::Sender<()>>,
    /// The file of a Unix socket, which nothing else takes away.
    file: Option<PathBuf>,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    /// Begins to serve; what comes waits in the lane until the core reads it.
    pub(crate) fn start(
        listener: Listener,
        control: Arc<Control>,
        limits: &Limits,
        http: HttpConfig,
    ) -> std::io::Result<(Self, Arrivals)> {
        let (lane, arrivals) = lane::lane(control.clone());
        let (limits, http) = (Arc::new(limits.clone()), Arc::new(http));
        let site = Site { lane: lane.clone(), limits, control, http };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let file = match &listener {
            Listener::Tcp(_) => None,
            Listener::Unix(_, path) => Some(path.clone()),
        };
        let thread = std::thread::Builder::new().name("mpreg-web".into()).spawn(move || {
            runtime.block_on(async move {
                let most = site.limits.peers;
                let room = Arc::new(Semaphore::new(most));
                let (ending, end) = watch::channel(());
                tokio::select! {
                    served = serve(listener, site, &room, &end) => if let Err(error) = served {
                        log::error!("HTTP is not served any more: {error}");
                    },
                    _ = stopped => {}
                }
                drop(ending);
                let quiet = async {
                    let _all = room.acquire_many(most as u32).await;
                    lane.empty().await;
                };
                let _ = tokio::time::timeout(GRACE, quiet).await;
            });
            runtime.shutdown_background();
        })?;
        Ok((Self { stop: Some(stop), file, thread: Some(thread) }, arrivals))
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Takes connections, no more than there may be peers.
async fn serve(
    listener: Listener,
    site: Site,
    room: &Arc<Semaphore>,
    end: &watch::Receiver<()>,
) -> std::io::Result<()> {
    let routes = routes(site);
    match listener {
        Listener::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let Ok(free) = room.clone().acquire_owned().await else { return Ok(()) };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        // Answers are small and waited for.
                        let _ = stream.set_nodelay(true);
                        tokio::spawn(connection(stream, routes.clone(), free, end.clone()));
                    }
                    Err(error) => not_taken(&error).await,
                }
            }
        }
        Listener::Unix(listener, _) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            loop {
                let Ok(free) = room.clone().acquire_owned().await else { return Ok(()) };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        _ = tokio::spawn(connection(stream, routes.clone(), free, end.clone()))
                    }
                    Err(error) => not_taken(&error).await,
                }
            }
        }
    }
}

/// Out of descriptors, most likely: others end and give theirs back.
async fn not_taken(error: &std::io::Error) {
    log::warn!("a connection to the HTTP endpoint was not taken: {error}");
    tokio::time::sleep(NOT_TAKEN).await;
}

async fn connection<S>(
    stream: S,
    routes: Router,
    _free: OwnedSemaphorePermit,
    mut end: watch::Receiver<()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .with_upgrades();
    tokio::pin!(served);
    let served = tokio::select! {
        served = served.as_mut() => served,
        _ = end.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = served {
        log::debug!("a connection to the HTTP endpoint ended: {error}");
    }
}

fn routes(site: Site) -> Router {
    Router::new()
        .route("/ws", any(socket::upgrade))
        .route("/call/{function}", post(http::call))
        .route("/graph", post(http::graph))
        .route("/publish/{topic}", post(http::publish))
        .route("/queues/{queue}", post(http::send))
        .route("/queues/{queue}/next", get(http::next))
        .route("/topics/{pattern}", get(events::listen))
        .route("/", get(page::index))
        .route("/mpreg.js", get(page::module))
        .route("/health", get(health::health))
        .route("/metrics", get(metrics::metrics))
        .fallback(answer::unknown_path)
        .method_not_allowed_fallback(answer::wrong_method)
        // The guard has looked.
        .layer(DefaultBodyLimit::disable())
        .layer(axum::middleware::from_fn_with_state(site.clone(), guard::guard))
        .with_state(site)
}
