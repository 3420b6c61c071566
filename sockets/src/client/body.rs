//! Reading results and arguments as Rust types.

use mpreg_patterns::base::{Code, Refusal};
use mpreg_patterns::values::{self, Body, Frames, Kind, Value};
use serde::de::DeserializeOwned;

use super::Error;

/// Reads a result as a Rust type.
pub trait ReadBody {
    /// Deserialises the value. Bytes that nobody encoded are read from their attachment.
    fn read<T: DeserializeOwned>(&self) -> Result<T, Error>;
}

impl ReadBody for Body {
    fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        read(&self.value).map_err(|refusal| Error::Refused(Box::new(refusal)))
    }
}

/// Reads the arguments of a run by position.
pub fn args_of<T: DeserializeOwned>(args: Option<&Value>) -> Result<T, Refusal> {
    match args {
        Some(args) => read(args),
        None => read(&Value::json(&b"[]"[..])),
    }
}

pub(super) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Refusal> {
    let wrong = |why: String| Refusal::new(Code::BadValue, why);
    match value.kind {
        Kind::Json => serde_json::from_slice(&value.bytes).map_err(|e| wrong(e.to_string())),
        Kind::Bytes | Kind::MsgPack => {
            let (mut text, mut frames) = (Vec::new(), Frames::new());
            let body = Body::plain(value.clone());
            values::append(&body, Kind::Json, false, &mut text, &mut frames)
                .map_err(|fault| fault.refusal())?;
            serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))
        }
    }
}
