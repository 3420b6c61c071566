//! Many connections in one process that say one thing each and are idle from then on.
//!
//! Those to a ROUTER speak ZMTP by themselves, as a DEALER does: ten thousand sockets of libzmq
//! would need more memory than what is measured.

use std::rc::Rc;

use futures_util::{SinkExt, StreamExt};
use mpreg::files;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{LocalSet, spawn_local};
use tokio_tungstenite::tungstenite::Message;

use crate::Outcome;
use crate::baseline::websocket;
use crate::process::say;
use crate::role::Ready;

/// Connections that are being made at once.
const AT_ONCE: usize = 64;
/// The greeting of ZMTP 3.0 with the NULL mechanism, up to the mechanism's name.
const GREETING: [u8; 16] = *b"\xff\0\0\0\0\0\0\0\0\x7f\x03\0NULL";
const GREETING_BYTES: usize = 64;
const READY: &[u8] = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0";
/// Flags of a frame: it is a command, its length has eight bytes.
const COMMAND: u8 = 4;
const LONG: u8 = 2;

/// What each connection says.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Saying {
    /// A `ping`.
    Ping,
    /// An offer of one function, another for each.
    Offer,
}

impl Saying {
    fn text(self, number: usize) -> String {
        match self {
            Self::Ping => r#"{"op":"ping","id":"1"}"#.to_owned(),
            Self::Offer => {
                let functions = format!(r#"[{{"name":"crowd.f{number}"}}]"#);
                format!(r#"{{"op":"offer","id":"1","functions":{functions}}}"#)
            }
        }
    }
}

/// Connects `count` times, says that all have been answered, and stays until one of them ends.
pub(crate) fn gather(at: &str, count: usize, saying: Saying) -> Outcome<()> {
    files::raise();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let (tell, mut told) = mpsc::unbounded_channel();
        let room = Rc::new(Semaphore::new(AT_ONCE));
        for number in 0..count {
            let (at, tell, room) = (at.to_owned(), tell.clone(), room.clone());
            spawn_local(async move {
                let turn = room.acquire().await;
                let connected = Connection::make(&at, saying.text(number)).await;
                drop(turn);
                match connected {
                    Ok(connection) => {
                        let _ = tell.send(Ok(()));
                        let ended = connection.idle().await;
                        let closed = || "the hub closed a connection".into();
                        let _ = tell.send(Err(ended.err().unwrap_or_else(closed)));
                    }
                    Err(why) => drop(tell.send(Err(why))),
                }
            });
        }
        for _ in 0..count {
            told.recv().await.ok_or("nobody answers")??;
        }
        say(&Ready {})?;
        told.recv().await.ok_or("nobody is left")?
    })
}

/// A connection that has been answered once.
enum Connection {
    Zmtp(TcpStream),
    Websocket(Box<websocket::Socket>),
}

impl Connection {
    async fn make(at: &str, says: String) -> Outcome<Self> {
        if at.starts_with("ws://") {
            let mut socket = websocket::connect(at).await?;
            socket.send(Message::text(says)).await?;
            socket.next().await.ok_or("the hub closed a connection")??;
            return Ok(Self::Websocket(Box::new(socket)));
        }
        let mut stream = TcpStream::connect(at.trim_start_matches("tcp://")).await?;
        let mut greeting = [0; GREETING_BYTES];
        greeting[..GREETING.len()].copy_from_slice(&GREETING);
        stream.write_all(&greeting).await?;
        stream.read_exact(&mut greeting).await?;
        write(&mut stream, COMMAND, READY).await?;
        write(&mut stream, 0, says.as_bytes()).await?;
        while read(&mut stream).await?.0 & COMMAND != 0 {}
        Ok(Self::Zmtp(stream))
    }

    /// Answers heartbeats until the hub ends it.
    async fn idle(self) -> Outcome<()> {
        match self {
            Self::Zmtp(mut stream) => loop {
                let (flags, body) = read(&mut stream).await?;
                if flags & COMMAND != 0 && body.starts_with(b"\x04PING") {
                    write(&mut stream, COMMAND, b"\x04PONG").await?;
                }
            },
            // Its library answers a ping as it is read.
            Self::Websocket(mut socket) => {
                while let Some(message) = socket.next().await {
                    message?;
                    socket.flush().await?;
                }
                Ok(())
            }
        }
    }
}

async fn write(stream: &mut TcpStream, flags: u8, body: &[u8]) -> Outcome<()> {
    let length = u8::try_from(body.len())?;
    Ok(stream.write_all(&[&[flags, length][..], body].concat()).await?)
}

/// A frame: its flags and its body.
async fn read(stream: &mut TcpStream) -> Outcome<(u8, Vec<u8>)> {
    let flags = stream.read_u8().await?;
    let length = match flags & LONG {
        0 => u64::from(stream.read_u8().await?),
        _ => stream.read_u64().await?,
    };
    let mut body = vec![0; usize::try_from(length)?];
    stream.read_exact(&mut body).await?;
    Ok((flags, body))
}
