//! What can be wrong with a value.
//!
//! A fault knows where in the value it is. Which request and which step it belongs to is known to
//! whoever asked, who makes a [`Refusal`] of it.

use std::fmt;

use crate::base::{Code, Refusal};

/// One thing that is wrong with a value. Nothing has changed when one is returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are not what their encoding allows.
    BadEncoding {
        /// Offset of the first byte that cannot stand there.
        at: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Arrays and maps are nested deeper than the limit.
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// The other encoding cannot hold what is at `path`.
    Unencodable {
        /// The step whose result it is, if it is one's.
        step: Option<u32>,
        /// JSON pointer to it; empty for the whole value.
        path: Box<str>,
        /// What it is.
        why: &'static str,
    },
    /// A value has another type than what reads it takes, or is not valid in its encoding.
    BadValue(Box<str>),
    /// A tag holds what such a tag cannot.
    BadTag(&'static str),
    /// A pointer leads nowhere.
    MissingPath {
        /// The step whose result it points into, if it is one's.
        step: Option<u32>,
        /// The whole pointer.
        path: Box<str>,
        /// How many bytes of `path` do exist.
        reached: usize,
        /// The type found there.
        found: &'static str,
    },
    /// A reference names no step.
    UnknownStep(Box<str>),
    /// An attachment is unused, missing, or named twice.
    BadFrame(Box<str>),
}

impl Fault {
    /// The code of the registry.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::BadEncoding { .. } => Code::BadEncoding,
            Self::TooDeep { .. } => Code::TooDeep,
            Self::Unencodable { .. } => Code::UnencodableValue,
            Self::BadValue(_) => Code::BadValue,
            Self::BadTag(_) => Code::BadField,
            Self::MissingPath { .. } => Code::MissingPath,
            Self::UnknownStep(_) => Code::UnknownStep,
            Self::BadFrame(_) => Code::BadFrame,
        }
    }

    /// Words for a person.
    #[must_use]
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// The step whose result is at fault, where the fault lies in one.
    #[must_use]
    pub const fn step(&self) -> Option<u32> {
        match self {
            Self::Unencodable { step, .. } | Self::MissingPath { step, .. } => *step,
            _ => None,
        }
    }

    /// The refusal with the registry's culprit and retry.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal::new(self.code(), self.message())
    }

    pub(super) const fn syntax(at: usize, why: &'static str) -> Self {
        Self::BadEncoding { at, why }
    }

    pub(super) fn unencodable(why: &'static str) -> Self {
        Self::Unencodable { step: None, path: Box::default(), why }
    }

    pub(super) fn shape(expected: &str, found: &str) -> Self {
        Self::BadValue(format!("expected {expected}, found {found}").into())
    }

    /// The same fault seen from the container that holds it under `key`.
    pub(super) fn within(self, key: &str) -> Self {
        match self {
            Self::Unencodable { step, path, why } => {
                let key = key.replace('~', "~0").replace('/', "~1");
                Self::Unencodable { step, path: format!("/{key}{path}").into(), why }
            }
            other => other,
        }
    }

    /// The same fault in the result of `step`.
    pub(super) fn of_step(mut self, of: u32) -> Self {
        if let Self::Unencodable { step, .. } | Self::MissingPath { step, .. } = &mut self {
            *step = Some(of);
        }
        self
    }

    /// A value that was to be passed on and cannot be read: the fault of who sent it.
    pub(super) fn in_value(self) -> Self {
        match self {
            Self::BadEncoding { at, why } => Self::BadValue(format!("byte {at}: {why}").into()),
            other => other,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadEncoding { at, why } => write!(f, "byte {at}: {why}"),
            Self::TooDeep { limit } => write!(f, "nested deeper than {limit}"),
            Self::Unencodable { path, why, .. } if path.is_empty() => f.write_str(why),
            Self::Unencodable { path, why, .. } => write!(f, "`{path}`: {why}"),
            Self::BadValue(text) | Self::BadFrame(text) => f.write_str(text),
            Self::BadTag(text) => f.write_str(text),
            Self::MissingPath { path, reached, found, .. } => {
                let prefix = path.get(..*reached).unwrap_or_default();
                match prefix {
                    "" => write!(f, "`{path}` is not there: the value is {found}"),
                    _ => write!(f, "`{path}` is not there: `{prefix}` is {found}"),
                }
            }
            Self::UnknownStep(name) => write!(f, "there is no step `{name}`"),
        }
    }
}

impl std::error::Error for Fault {}
