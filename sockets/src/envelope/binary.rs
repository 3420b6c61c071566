//! The bincode batch: the byte 0x01, then bincode 1.3.3 (little endian, fixed width) of the ops.
//!
//! What two Rust peers speak: nothing is parsed, and values go through unread. It has no
//! attachments; bytes are values of their own kind.
//!
//! Ops are written by the `bincode` crate and read here by hand, which takes a third of the time:
//! a length is followed by so many bytes, an option and a variant by what it holds. The tests read
//! everything the crate writes.

use std::borrow::Cow;

use bincode::{DefaultOptions, Options};
use mpreg_patterns::base::{Code, Refusal, RunId};
use mpreg_patterns::values::Kind;

use super::common::Last;
use super::op::{
    Blame, CallOp, DeliverOp, EventOp, Failure, Id, Ids, Offered, Op, Past, PublishOp, Raw,
    ResultOp, RunOp, SendOp, SentOp, Step, Text, Wanted,
};

/// The first byte of a batch in this layout.
pub(super) const FIRST: u8 = 1;
/// Where the first op begins: after the first byte and the count.
pub(super) const HEAD: usize = 9;

/// Why a batch cannot be read.
pub(super) type Why = &'static str;

const SHORT: Why = "the frame ends inside an op";

fn refuse(why: Why) -> Refusal {
    Refusal::new(Code::BadEncoding, format!("not a bincode batch: {why}"))
}

/// Reads one op after the other out of a batch.
pub(super) struct Ops<'a> {
    rest: Rest<'a>,
    left: u64,
    last: Last,
}

impl<'a> Ops<'a> {
    /// Opens a batch, whose first byte has been seen, and tells how many ops it says it has.
    pub(super) fn open(frame: &'a [u8]) -> Result<(Self, u64), Refusal> {
        let mut rest = Rest(&frame[1..]);
        let left = rest.read().map_err(refuse)?;
        Ok((Self { rest, left, last: Last::default() }, left))
    }

    /// Whether another op follows; checks that nothing follows the last.
    #[inline]
    pub(super) fn more(&mut self) -> Result<bool, Refusal> {
        if self.left == 0 && !self.rest.0.is_empty() {
            return Err(refuse("bytes follow the last op"));
        }
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        Ok(more)
    }

    /// Reads any op.
    pub(super) fn op(&mut self) -> Result<Op<'a>, Refusal> {
        op(&mut self.rest).map_err(refuse)
    }

    /// What is left to read, for those ops that are not worth the way through [`Op`].
    #[inline]
    pub(super) const fn ahead(&mut self) -> (&mut &'a [u8], &mut Last) {
        (&mut self.rest.0, &mut self.last)
    }
}

/// What has not been read yet.
pub(super) struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    #[inline]
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Why> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Why> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*taken)
    }

    #[inline]
    fn read<T: Field<'a>>(&mut self) -> Result<T, Why> {
        T::read(self)
    }

    #[inline]
    fn run(&mut self) -> Result<&'a [u8], Why> {
        let length: u64 = self.read()?;
        self.take(usize::try_from(length).map_err(|_| SHORT)?)
    }
}

/// Something that stands in an op.
pub(super) trait Field<'a>: Sized {
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why>;
}

macro_rules! numbers {
    ($($number:ty)*) => {
        $(impl Field<'_> for $number {
            #[inline]
            fn read(rest: &mut Rest<'_>) -> Result<Self, Why> {
                rest.fixed().map(Self::from_le_bytes)
            }
        })*
    };
}

numbers! { u8 u32 u64 u128 f64 }

impl Field<'_> for bool {
    #[inline]
    fn read(rest: &mut Rest<'_>) -> Result<Self, Why> {
        match rest.read()? {
            0_u8 => Ok(false),
            1 => Ok(true),
            _ => Err("a truth value is 0 or 1"),
        }
    }
}

impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    #[inline]
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        if rest.read()? { rest.read().map(Some) } else { Ok(None) }
    }
}

impl<'a, T: Field<'a>> Field<'a> for Vec<T> {
    #[inline]
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        match rest.read()? {
            0_u64 => Ok(Self::new()),
            // Nothing is reserved on the word of a peer.
            length => (0..length).map(|_| rest.read()).collect(),
        }
    }
}

impl<'a, A: Field<'a>, B: Field<'a>> Field<'a> for (A, B) {
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        Ok((rest.read()?, rest.read()?))
    }
}

impl<'a> Field<'a> for Text<'a> {
    #[inline]
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        std::str::from_utf8(rest.run()?).map(Text::new).map_err(|_| "a string that is not UTF-8")
    }
}

impl<'a> Field<'a> for Raw<'a> {
    #[inline]
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        let kind = match rest.read()? {
            0_u8 => Kind::Bytes,
            1 => Kind::Json,
            2 => Kind::MsgPack,
            _ => return Err("a kind of value that is not 0, 1 or 2"),
        };
        Ok(Raw::borrowed(kind, rest.run()?))
    }
}

impl<'a> Field<'a> for Id<'a> {
    #[inline]
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        match rest.read()? {
            0_u32 => rest.read().map(Self::Name),
            1 => rest.read().map(Self::Run),
            _ => Err("an id is a name or a run"),
        }
    }
}

impl<'a> Field<'a> for Failure<'a> {
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        Ok(Self {
            code: rest.read()?,
            message: rest.read()?,
            culprit: match rest.read()? {
                0_u32 => Blame::Caller,
                1 => Blame::Worker,
                2 => Blame::Broker,
                _ => return Err("a culprit that is not known"),
            },
            retry: rest.read()?,
            op: rest.read()?,
            field: rest.read()?,
            refused: rest.read()?,
        })
    }
}

impl<'a> Field<'a> for Offered<'a> {
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        Ok(Self {
            name: rest.read()?,
            version: rest.read()?,
            idempotent: rest.read()?,
            doc: rest.read()?,
            input: rest.read()?,
            output: rest.read()?,
            cache_ms: rest.read()?,
        })
    }
}

impl<'a> Field<'a> for Wanted<'a> {
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        match rest.read()? {
            0_u32 => Ok(Self::Sinks),
            1 => Ok(Self::All),
            2 => rest.read().map(Self::Names),
            _ => Err("a `return` that is not known"),
        }
    }
}

impl<'a> Field<'a> for Step<'a> {
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        Ok(Self { name: rest.read()?, state: rest.read()?, code: rest.read()? })
    }
}

impl<'a> Field<'a> for CallOp<'a> {
    #[inline]
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        Ok(Self {
            id: rest.read()?,
            fun: rest.read()?,
            args: rest.read()?,
            kwargs: rest.read()?,
            locs: rest.read()?,
            version: rest.read()?,
            timeout_ms: rest.read()?,
            idempotent: rest.read()?,
            wait: rest.read()?,
            progress: rest.read()?,
            track: rest.read()?,
        })
    }
}

impl<'a> Field<'a> for ResultOp<'a> {
    #[inline]
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        Ok(Self { id: rest.read()?, result: rest.read()?, track: rest.read()? })
    }
}

impl<'a> Field<'a> for RunOp<'a> {
    #[inline]
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        Ok(Self {
            id: rest.read()?,
            fun: rest.read()?,
            args: rest.read()?,
            kwargs: rest.read()?,
            deadline_ms: rest.read()?,
            attempt: rest.read()?,
        })
    }
}

impl<'a> Field<'a> for PublishOp<'a> {
    #[inline]
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        Ok(Self {
            id: rest.read()?,
            topic: rest.read()?,
            payload: rest.read()?,
            headers: rest.read()?,
            confirm: rest.read()?,
        })
    }
}

impl<'a> Field<'a> for EventOp<'a> {
    #[inline]
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        Ok(Self {
            pattern: rest.read()?,
            topic: rest.read()?,
            seq: rest.read()?,
            missed: rest.read()?,
            message: rest.read()?,
            payload: rest.read()?,
            headers: rest.read()?,
        })
    }
}

impl<'a> Field<'a> for SendOp<'a> {
    #[inline]
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        Ok(Self {
            id: rest.read()?,
            queue: rest.read()?,
            topic: rest.read()?,
            payload: rest.read()?,
            headers: rest.read()?,
            delay_ms: rest.read()?,
            priority: rest.read()?,
            key: rest.read()?,
            dedup: rest.read()?,
            confirm: rest.read()?,
        })
    }
}

impl<'a> Field<'a> for SentOp<'a> {
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        Ok(Self {
            id: rest.read()?,
            message: rest.read()?,
            fsync: rest.read()?,
            queues: rest.read()?,
        })
    }
}

impl<'a> Field<'a> for DeliverOp<'a> {
    #[inline]
    fn read(rest: &mut Rest<'a>) -> Result<Self, Why> {
        Ok(Self {
            queue: rest.read()?,
            id: rest.read()?,
            attempt: rest.read()?,
            message: rest.read()?,
            topic: rest.read()?,
            key: rest.read()?,
            priority: rest.read()?,
            payload: rest.read()?,
            headers: rest.read()?,
        })
    }
}

impl Field<'_> for RunId {
    #[inline]
    fn read(rest: &mut Rest<'_>) -> Result<Self, Why> {
        rest.read().map(Self)
    }
}

impl Field<'_> for Ids<'_> {
    fn read(rest: &mut Rest<'_>) -> Result<Self, Why> {
        rest.read().map(|ids| Self(Cow::Owned(ids)))
    }
}

impl Field<'_> for Past {
    fn read(rest: &mut Rest<'_>) -> Result<Self, Why> {
        match rest.read()? {
            0_u32 => Ok(Self::All),
            1 => rest.read().map(Self::Seq),
            2 => rest.read().map(Self::Ms),
            3 => rest.read().map(Self::Last),
            _ => Err("a `replay` that is not known"),
        }
    }
}

#[inline]
fn op<'a>(rest: &mut Rest<'a>) -> Result<Op<'a>, Why> {
    Ok(match rest.read::<u32>()? {
        4 => Op::Call(rest.read()?),
        5 => Op::Result(rest.read()?),
        9 => Op::Run(rest.read()?),
        15 => Op::Publish(rest.read()?),
        20 => Op::Event(rest.read()?),
        22 => Op::Send(rest.read()?),
        26 => Op::Deliver(rest.read()?),
        other => return rare_op(other, rest),
    })
}

fn rare_op<'a>(variant: u32, rest: &mut Rest<'a>) -> Result<Op<'a>, Why> {
    Ok(match variant {
        0 => Op::Ping { id: rest.read()? },
        1 => Op::Pong { id: rest.read()? },
        2 => Op::Hello {
            id: rest.read()?,
            batch: rest.read()?,
            name: rest.read()?,
            token: rest.read()?,
        },
        3 => Op::Welcome { id: rest.read()?, about: rest.read()? },
        6 => Op::Error {
            id: rest.read()?,
            item: rest.read()?,
            error: rest.read()?,
            track: rest.read()?,
        },
        7 => Op::Offer {
            id: rest.read()?,
            functions: rest.read()?,
            locs: rest.read()?,
            credit: rest.read()?,
        },
        8 => Op::Offered {
            id: rest.read()?,
            epoch: rest.read()?,
            functions: rest.read()?,
            credit: rest.read()?,
        },
        10 => Op::Progress {
            id: rest.read()?,
            event: rest.read()?,
            step: rest.read()?,
            step_id: rest.read()?,
            percent: rest.read()?,
            note: rest.read()?,
            track: rest.read()?,
        },
        11 => Op::Cancel { id: rest.read()? },
        12 => Op::Bye { id: rest.read()? },
        13 => graph(rest)?,
        14 => Op::GraphReply {
            id: rest.read()?,
            results: rest.read()?,
            steps: rest.read()?,
            error: rest.read()?,
            step: rest.read()?,
            part: rest.read()?,
            more: rest.read()?,
            track: rest.read()?,
        },
        other => return topic_op(other, rest),
    })
}

fn topic_op<'a>(variant: u32, rest: &mut Rest<'a>) -> Result<Op<'a>, Why> {
    Ok(match variant {
        16 => Op::Published { id: rest.read()?, message: rest.read()? },
        17 => Op::Subscribe {
            id: rest.read()?,
            patterns: rest.read()?,
            credit: rest.read()?,
            replay: rest.read()?,
        },
        18 => Op::Subscribed {
            id: rest.read()?,
            epoch: rest.read()?,
            patterns: rest.read()?,
            credit: rest.read()?,
        },
        19 => Op::Unsubscribe { id: rest.read()?, patterns: rest.read()? },
        21 => Op::Ack { events: rest.read()? },
        other => return queue_op(other, rest),
    })
}

fn queue_op<'a>(variant: u32, rest: &mut Rest<'a>) -> Result<Op<'a>, Why> {
    Ok(match variant {
        23 => Op::Sent(rest.read()?),
        24 => Op::Consume {
            id: rest.read()?,
            queue: rest.read()?,
            group: rest.read()?,
            credit: rest.read()?,
        },
        25 => Op::Consumed {
            id: rest.read()?,
            epoch: rest.read()?,
            queue: rest.read()?,
            group: rest.read()?,
            credit: rest.read()?,
        },
        27 => Op::AckIds { id: rest.read()?, ids: rest.read()? },
        28 => Op::Nack {
            id: rest.read()?,
            ids: rest.read()?,
            delay_ms: rest.read()?,
            reason: rest.read()?,
            dead: rest.read()?,
        },
        29 => Op::Extend { id: rest.read()?, ids: rest.read()? },
        30 => Op::Acked { id: rest.read()?, ids: rest.read()?, unknown: rest.read()? },
        31 => Op::DeliverFor(rest.read()?, rest.read()?),
        32 => Op::SentNear(rest.read()?),
        33 => Op::CallIn(rest.read()?, rest.read()?),
        _ => return Err("an op that is not known"),
    })
}

fn graph<'a>(rest: &mut Rest<'a>) -> Result<Op<'a>, Why> {
    Ok(Op::Graph {
        id: rest.read()?,
        steps: rest.read()?,
        part: rest.read()?,
        more: rest.read()?,
        returns: rest.read()?,
        on_error_continue: rest.read()?,
        refs_by_name: rest.read()?,
        timeout_ms: rest.read()?,
        progress: rest.read()?,
        track: rest.read()?,
    })
}

/// Appends one op.
pub(super) fn put(op: &Op<'_>, out: &mut Vec<u8>) {
    // Writing into memory cannot fail, and every type here has a fixed layout.
    let _ = DefaultOptions::new().with_fixint_encoding().serialize_into(out, op);
}

/// Begins a batch whose count is not known yet.
pub(super) fn open(out: &mut Vec<u8>) {
    out.push(FIRST);
    out.extend_from_slice(&[0; 8]);
}

/// Writes the count of a batch that begins at `start`.
pub(super) fn close(out: &mut [u8], start: usize, count: u64) {
    out[start + 1..start + HEAD].copy_from_slice(&count.to_le_bytes());
}
