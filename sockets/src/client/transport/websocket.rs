//! A WebSocket, which the driver's task polls itself.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use mpreg_patterns::base::limits::FRAME_BYTES;
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, Sleep, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as Fault, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{HEARTBEAT, Heard, LINGER, LONGEST_RECONNECT, RECONNECT, SILENCE};
use crate::{envelope, parts};

/// Where a broker's peers are.
const PATH: &str = "/ws";
/// Pulses without a word before the connection counts as lost.
const PULSES: u32 = (SILENCE.as_millis() / HEARTBEAT.as_millis()) as u32;

type Stream = WebSocketStream<TcpStream>;
type Dialling = Pin<Box<dyn Future<Output = Result<Stream, Fault>> + Send>>;

enum State {
    Dialling(Dialling),
    Open(Box<Stream>),
    /// Until it dials again.
    Resting(Pin<Box<Sleep>>),
}

pub(in crate::client) struct WebSocket {
    /// `HOST:PORT`.
    at: String,
    url: String,
    state: State,
    /// What came in and was not received yet: one message, or the news of its end.
    heard: Option<Heard>,
    /// There was no room for a message.
    is_full: bool,
    /// Something was sent that may not have left yet.
    unflushed: bool,
    pulse: Interval,
    /// Pulses since the last word of the broker.
    quiet: u32,
    pause: Duration,
    /// What a server said that did not let it in.
    refusal: Option<String>,
}

impl WebSocket {
    pub(super) fn connect(address: &str) -> Result<Self, &'static str> {
        let rest = address.strip_prefix("ws://").unwrap_or(address);
        let (at, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if matches!(path, "" | "/") { PATH } else { path };
        match at.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
            Some((host, Ok(1..))) if !host.is_empty() => {}
            _ => return Err("it takes ws://HOST:PORT"),
        }
        let mut pulse = interval(HEARTBEAT);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (at, url) = (at.to_owned(), format!("ws://{at}{path}"));
        let state = State::Dialling(dial(&at, &url));
        Ok(Self {
            at,
            url,
            state,
            heard: None,
            is_full: false,
            unflushed: false,
            pulse,
            quiet: 0,
            pause: RECONNECT,
            refusal: None,
        })
    }

    pub(super) fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    pub(super) fn receive(&mut self) -> Option<Heard> {
        if self.heard.is_none() {
            let _ = self.poll(&mut now());
        }
        self.heard.take()
    }

    pub(super) fn send(&mut self, message: &envelope::Message) -> bool {
        let State::Open(stream) = &mut self.state else {
            self.is_full = true;
            return false;
        };
        self.is_full = stream.poll_ready_unpin(&mut now()).is_pending();
        if self.is_full {
            return false;
        }
        // Bytes are shared, unless there are attachments to put behind them.
        let whole = Message::Binary(parts::join(message.body.clone(), &message.frames));
        // One that fails is noticed when it is read from.
        let _ = stream.start_send_unpin(whole);
        self.unflushed = true;
        true
    }

    pub(super) fn flush(&mut self) {
        if let State::Open(stream) = &mut self.state
            && self.unflushed
        {
            self.unflushed = stream.poll_flush_unpin(&mut now()).is_pending();
        }
    }

    pub(super) fn is_ready(&mut self, wants_room: bool) -> bool {
        if self.heard.is_none() {
            let _ = self.poll(&mut now());
        }
        self.heard.is_some() || wants_room && !self.is_full
    }

    /// Goes on until something is heard, or there is room again.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.heard.is_some() {
                return Poll::Ready(());
            }
            match &mut self.state {
                State::Resting(rest) => {
                    ready!(rest.as_mut().poll(context));
                    self.state = State::Dialling(dial(&self.at, &self.url));
                }
                State::Dialling(dialling) => match ready!(dialling.as_mut().poll(context)) {
                    Ok(stream) => {
                        self.state = State::Open(Box::new(stream));
                        (self.quiet, self.pause) = (0, RECONNECT);
                        self.refusal = None;
                        self.pulse.reset();
                        if std::mem::take(&mut self.is_full) {
                            return Poll::Ready(());
                        }
                    }
                    Err(fault) => {
                        log::debug!("{}: {fault}", self.url);
                        self.refusal = refusal(&fault);
                        self.rest();
                    }
                },
                State::Open(stream) => match poll_open(stream, context, self.unflushed) {
                    Turn::Pulse if self.pulse.poll_tick(context).is_pending() => {
                        if self.is_full {
                            let room = stream.poll_ready_unpin(context);
                            self.is_full = room.is_pending();
                            return room.map(drop);
                        }
                        return Poll::Pending;
                    }
                    Turn::Pulse if self.quiet < PULSES => {
                        self.quiet += 1;
                        if stream.poll_ready_unpin(&mut now()).is_ready() {
                            let _ = stream.start_send_unpin(Message::Ping(Bytes::new()));
                            self.unflushed = true;
                        }
                    }
                    Turn::Pulse | Turn::Over => {
                        self.rest();
                        self.heard = Some(Heard::Lost);
                    }
                    Turn::Flushed => self.unflushed = false,
                    Turn::Heard(whole) => {
                        self.quiet = 0;
                        self.heard = whole.map(heard);
                    }
                },
            }
        }
    }

    fn rest(&mut self) {
        self.state = State::Resting(Box::pin(sleep(self.pause)));
        self.pause = (self.pause * 2).min(LONGEST_RECONNECT);
        self.unflushed = false;
    }
}

impl Drop for WebSocket {
    /// What was sent still leaves, and the broker is told.
    fn drop(&mut self) {
        let rest = State::Resting(Box::pin(sleep(Duration::ZERO)));
        if let State::Open(mut stream) = std::mem::replace(&mut self.state, rest)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { timeout(LINGER, stream.as_mut().close(None)).await });
        }
    }
}

/// What an open connection brings.
enum Turn {
    /// Nothing; whether its pulse is due is to be seen.
    Pulse,
    /// What was sent has left.
    Flushed,
    /// A message, or a sign of life.
    Heard(Option<Bytes>),
    Over,
}

fn poll_open(stream: &mut Stream, context: &mut Context<'_>, unflushed: bool) -> Turn {
    if unflushed {
        match stream.poll_flush_unpin(context) {
            Poll::Ready(Ok(())) => return Turn::Flushed,
            Poll::Ready(Err(_)) => return Turn::Over,
            Poll::Pending => {}
        }
    }
    match stream.poll_next_unpin(context) {
        Poll::Pending => Turn::Pulse,
        Poll::Ready(Some(Ok(Message::Text(text)))) => Turn::Heard(Some(text.into())),
        Poll::Ready(Some(Ok(Message::Binary(bytes)))) => Turn::Heard(Some(bytes)),
        Poll::Ready(Some(Ok(Message::Close(_))) | Some(Err(_)) | None) => Turn::Over,
        Poll::Ready(Some(Ok(_))) => Turn::Heard(None),
    }
}

/// What cannot be split is left to the decoder, which refuses it.
fn heard(whole: Bytes) -> Heard {
    let (body, frames) = parts::split(whole).unwrap_or_else(|whole| (whole, Vec::new()));
    Heard::Message(body, frames)
}

/// What a server answered instead of opening a WebSocket: its status, and why if it is one of ours.
fn refusal(fault: &Fault) -> Option<String> {
    let Fault::Http(response) = fault else { return None };
    let body = response.body().as_deref().unwrap_or_default();
    let told: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let why = told.as_ref().and_then(|told| told["error"]["message"].as_str());
    let why = why.map(|why| format!(", {why}")).unwrap_or_default();
    Some(format!("HTTP {}{why}", response.status()))
}

/// For a look that is not to wake anybody: [`WebSocket::poll`] comes after it.
fn now() -> Context<'static> {
    Context::from_waker(std::task::Waker::noop())
}

fn dial(at: &str, url: &str) -> Dialling {
    let (at, url) = (at.to_owned(), url.to_owned());
    Box::pin(async move {
        let connect = async {
            let stream = TcpStream::connect(at).await?;
            stream.set_nodelay(true)?;
            // Envelope and attachments are one message here.
            let most = Some(2 * FRAME_BYTES);
            let config = WebSocketConfig::default().max_message_size(most).max_frame_size(most);
            Ok(client_async_with_config(url, stream, Some(config)).await?.0)
        };
        let late = || Err(Fault::Io(std::io::ErrorKind::TimedOut.into()));
        timeout(SILENCE, connect).await.unwrap_or_else(|_| late())
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("ws://localhost:7405", "localhost:7405 ws://localhost:7405/ws")]
    #[case("ws://localhost:7405/", "localhost:7405 ws://localhost:7405/ws")]
    #[case("ws://[::1]:7405/ws", "[::1]:7405 ws://[::1]:7405/ws")]
    #[case(
        "ws://broker.example:80/behind/ws",
        "broker.example:80 ws://broker.example:80/behind/ws"
    )]
    #[case("ws://localhost", "it takes ws://HOST:PORT")]
    #[case("ws://:7405", "it takes ws://HOST:PORT")]
    #[case("ws://localhost:0", "it takes ws://HOST:PORT")]
    #[case("ws://localhost:door", "it takes ws://HOST:PORT")]
    #[tokio::test]
    async fn what_an_address_says(#[case] address: &str, #[case] told: &str) {
        let found = match WebSocket::connect(address) {
            Ok(socket) => format!("{} {}", socket.at, socket.url),
            Err(why) => why.to_owned(),
        };
        assert_eq!(found, told);
    }
}
