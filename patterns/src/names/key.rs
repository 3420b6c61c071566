//! What a SUB socket asked for: its subscription's text, read.

use smol_str::SmolStr;

use super::Pattern;
use crate::base::{Code, Refusal};

/// Behind a pattern: send the frame of headers too.
const HEADERS: &str = "?headers";

/// The text of a subscription. Equal patterns in different spelling are different keys: a SUB
/// filters by the text it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The whole text, as it was subscribed.
    pub text: SmolStr,
    /// The pattern it means.
    pub pattern: Pattern,
    /// Whether the third frame is wanted.
    pub headers: bool,
}

impl Key {
    /// Reads a subscription's text: a pattern, and `?headers` behind it where they are wanted.
    ///
    /// `bad_encoding` if it is not UTF-8, else what [`Pattern::parse`] says.
    pub fn parse(text: &[u8]) -> Result<Self, Refusal> {
        let Ok(text) = std::str::from_utf8(text) else {
            return Err(Refusal::new(Code::BadEncoding, "a subscription is text in UTF-8"));
        };
        let (pattern, headers) = match text.strip_suffix(HEADERS) {
            Some(pattern) => (pattern, true),
            None => (text, false),
        };
        Ok(Self { text: SmolStr::new(text), pattern: Pattern::parse(pattern)?, headers })
    }
}
