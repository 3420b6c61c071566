//! Which runs a frame that cannot be read was to be the outcomes of.
//!
//! A run whose answer cannot be read gets no other one, so that its caller would wait until its
//! deadline. Up to the fault, or to a bound where the frame is too large, the frame is read for
//! nothing but `op` and `id`; what is found is only ever compared with runs in hand.

use bytes::Bytes;
use mpreg_patterns::base::{Limits, RunId};
use mpreg_patterns::values::{Cursor, Fault, Kind};

use super::op::Op;
use super::{Encoding, binary, detect};

/// How much of the beginning and of the end is looked at, bytes, in a frame that is too large.
const REACH: usize = 4 << 10;

/// What a frame that cannot be read was about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// The runs it answers, as far as it could be read.
    pub runs: Vec<RunId>,
    /// Whether it may be the answer to a run that it could not be read for.
    pub may_answer: bool,
}

/// Looks for runs in a frame that was refused as a whole.
#[must_use]
pub fn salvage(body: &Bytes, limits: &Limits) -> Salvaged {
    let Some((encoding, batch)) = detect(body) else { return Salvaged::default() };
    let too_large = body.len() > limits.envelope_bytes;
    let Some(kind) = encoding.kind() else {
        // What stands before a fault in a bincode batch has happened.
        let runs = if too_large { in_binary(body) } else { Vec::new() };
        return Salvaged { may_answer: runs.is_empty(), runs };
    };
    let mut search = Search { runs: Vec::new(), others: false };
    let head = if too_large { &body[..body.len().min(REACH)] } else { &body[..] };
    let mut cursor = Cursor::new(kind, head, limits.depth);
    cursor.jump(head.iter().position(|byte| !b" \t\r\n".contains(byte)).unwrap_or(0));
    // The fault that the frame was refused for ends the search.
    let _ = if batch { search.batch(&mut cursor) } else { search.object(&mut cursor) };
    if search.runs.is_empty() && !search.others && !batch {
        search.runs.extend(at_the_end(encoding, &body[body.len().saturating_sub(REACH)..]));
    }
    Salvaged { may_answer: search.runs.is_empty() && !search.others, runs: search.runs }
}

struct Search {
    runs: Vec<RunId>,
    /// Whether it has asked or said something else.
    others: bool,
}

impl Search {
    fn batch(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        let mut array = cursor.array()?;
        while cursor.item(&mut array)? {
            self.object(cursor)?;
        }
        Ok(())
    }

    fn object(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        let (mut answers, mut run) = (None, None);
        let mut read = || {
            let mut map = cursor.map()?;
            while let Some(key) = cursor.any_key(&mut map)? {
                match key.as_deref() {
                    Some("op") => answers = Some(matches!(&*cursor.string()?, "result" | "error")),
                    Some("id") => run = RunId::parse(&cursor.string()?),
                    _ => {
                        cursor.skip()?;
                    }
                }
            }
            Ok(())
        };
        let end = read();
        self.others |= answers == Some(false);
        self.runs.extend(run.filter(|_| answers != Some(false)));
        end
    }
}

/// The run that the last `id` names.
fn at_the_end(encoding: Encoding, tail: &[u8]) -> Option<RunId> {
    let key: &[u8] = if encoding == Encoding::Json { b"\"id\"" } else { b"\xA2id" };
    let at = tail.windows(key.len()).rposition(|window| window == key)? + key.len();
    let kind = encoding.kind().unwrap_or(Kind::Json);
    let rest = tail[at..].trim_ascii_start();
    let rest = if kind == Kind::Json { rest.strip_prefix(b":")? } else { &tail[at..] };
    RunId::parse(&Cursor::new(kind, rest, 1).string().ok()?)
}

fn in_binary(body: &[u8]) -> Vec<RunId> {
    let mut runs = Vec::new();
    let start = body.iter().position(|&byte| byte == binary::FIRST).unwrap_or(0);
    if let Ok((mut ops, _)) = binary::Ops::open(&body[start..]) {
        while let (Ok(true), Ok(op)) = (ops.more(), ops.op()) {
            runs.extend(Op::run(&op));
        }
    }
    runs
}
