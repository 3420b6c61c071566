//! `/ws`: a peer over WebSocket. Text is JSON, a binary message is MessagePack, the bincode batch,
//! or several frames in one.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use mpreg_patterns::base::refusal::cut;
use mpreg_patterns::node::Envelope;
use mpreg_sockets::parts;

use super::Site;
use super::answer::ended;
use super::lane::{Connection, Hearing, Talk};

/// How often a peer is asked whether it is there.
const PING: Duration = Duration::from_secs(20);
/// How long it may say nothing, not even that it is there.
const SILENCE: Duration = Duration::from_secs(60);

/// What a connection reads at once. Each has a buffer of that size for all its life, and most are
/// idle.
const READ_BYTES: usize = 8 << 10;

/// How long a goodbye may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);
/// What a control frame has room for.
const REASON_BYTES: usize = 123;

/// Makes a peer of a connection.
pub(super) async fn upgrade(State(site): State<Site>, upgrade: WebSocketUpgrade) -> Response {
    let most = site.limits.envelope_bytes + site.limits.attachment_bytes;
    let connection = match site.lane.connect().await {
        Ok(connection) => connection,
        Err(why) => return ended(why),
    };
    let upgrade = upgrade.max_message_size(most).max_frame_size(most).read_buffer_size(READ_BYTES);
    upgrade.on_upgrade(move |socket| converse(socket, connection)).into_response()
}

async fn converse(socket: WebSocket, connection: Connection) {
    let Connection { talk, hearing } = connection;
    let (mut sink, stream) = socket.split();
    // Neither waits for the other; whichever ends first ends both.
    let goodbye = tokio::select! {
        goodbye = listen(stream, talk) => goodbye,
        goodbye = speak(&mut sink, hearing) => goodbye,
    };
    if let Some(frame) = goodbye {
        let _ = tokio::time::timeout(GOODBYE, sink.send(Message::Close(Some(frame)))).await;
    }
}

/// Hands what the peer says to the core. Tells why it stops, unless the peer knows.
async fn listen(mut stream: SplitStream<WebSocket>, talk: Talk) -> Option<CloseFrame> {
    loop {
        let Ok(next) = tokio::time::timeout(SILENCE, stream.next()).await else {
            let reason = format!("silent for {} s", SILENCE.as_secs());
            return Some(CloseFrame { code: close_code::AWAY, reason: reason.into() });
        };
        let whole = match next? {
            Ok(Message::Text(text)) => Bytes::from(text),
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
            Ok(Message::Close(_)) => return None,
            Err(why) => {
                let reason = cut(&why.to_string(), REASON_BYTES).to_owned();
                return Some(CloseFrame { code: close_code::PROTOCOL, reason: reason.into() });
            }
        };
        // What does not add up is refused by the core, as everything that cannot be decoded.
        let (body, frames) = parts::split(whole).unwrap_or_else(|whole| (whole, Vec::new()));
        if talk.say(body, frames).await.is_err() {
            return Some(away());
        }
    }
}

fn away() -> CloseFrame {
    CloseFrame { code: close_code::AWAY, reason: "the broker hangs up".into() }
}

/// Hands what the core says to the peer. Tells why it stops, unless the peer has.
async fn speak(
    sink: &mut SplitSink<WebSocket, Message>,
    mut hearing: Hearing,
) -> Option<CloseFrame> {
    let mut pulse = tokio::time::interval(PING);
    pulse.tick().await;
    loop {
        let sent = tokio::select! {
            heard = hearing.next() => match heard {
                Some(envelope) => write(sink, envelope, &mut hearing).await,
                None => return Some(away()),
            },
            _ = pulse.tick() => sink.send(Message::Ping(Bytes::new())).await,
        };
        sent.ok()?;
    }
}

/// Writes one message, and with it those that wait already.
async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    first: Envelope,
    hearing: &mut Hearing,
) -> Result<(), axum::Error> {
    sink.feed(message(first)).await?;
    while !hearing.is_empty() {
        let Some(envelope) = hearing.next().await else { break };
        sink.feed(message(envelope)).await?;
    }
    sink.flush().await
}

fn message(envelope: Envelope) -> Message {
    let Envelope { body, frames } = envelope;
    match body.first() {
        Some(b'{' | b'[') if frames.is_empty() => match body.try_into() {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(Bytes::new()),
        },
        _ => Message::Binary(parts::join(body, &frames)),
    }
}
