//! Reading results, arguments and payloads as Rust types, and writing payloads from them.

use bytes::Bytes;
use mpreg_patterns::base::{Code, Refusal, RunId};
use mpreg_patterns::ops::Event;
use mpreg_patterns::values::{self, Body, Frames, Kind, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;

use super::Error;

/// A payload and headers that are being put together.
#[derive(Debug)]
pub(super) struct Draft {
    payload: Value,
    headers: Option<Value>,
    fault: Option<Error>,
}

impl Draft {
    /// A payload of null.
    pub(super) fn new() -> Self {
        Self { payload: Value::null(), headers: None, fault: None }
    }

    pub(super) fn payload<T: Serialize + ?Sized>(&mut self, payload: &T) {
        if let Some(payload) = self.value(payload, "payload") {
            self.payload = payload;
        }
    }

    pub(super) fn payload_value(&mut self, payload: Value) {
        self.payload = payload;
    }

    pub(super) fn bytes(&mut self, bytes: Bytes) {
        self.payload = Value::new(Kind::Bytes, bytes);
    }

    pub(super) fn headers<T: Serialize + ?Sized>(&mut self, headers: &T) {
        self.headers = self.value(headers, "headers");
    }

    fn value<T: Serialize + ?Sized>(&mut self, of: &T, field: &'static str) -> Option<Value> {
        match serde_json::to_vec(of) {
            Ok(text) => Some(Value::json(text)),
            Err(error) => {
                let refusal = Refusal::field(Code::BadField, field, error.to_string());
                self.fault = Some(Error::Refused(Box::new(refusal)));
                None
            }
        }
    }

    /// What is sent, without an id of its own; or what could not be serialised.
    pub(super) fn event(self, topic: SmolStr) -> Result<Event, Error> {
        let Self { payload, headers, fault } = self;
        match fault {
            Some(fault) => Err(fault),
            None => Ok(Event { topic, payload, headers, message: RunId(0) }),
        }
    }
}

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
