//! VDSM's verbs as methods of [`crate::Client`], each with a deadline of its own.
//!
//! Parameters are VDSM's; results are read tolerantly and keep what came in `raw`. Source: `vdsm-api.yml` of VDSM 4.5.

pub mod host;
pub mod network;
pub mod pool;
pub mod storage;
pub mod vm;

use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::CallError;
use crate::value;

/// For verbs that answer from memory.
pub(crate) const QUICK: Duration = Duration::from_secs(30);
/// For verbs that touch storage or wait for QEMU. VDSM's own clients wait that long for anything.
pub(crate) const SLOW: Duration = Duration::from_mins(3);

pub(crate) fn misunderstood(method: &str, expected: &str, got: &Value) -> CallError {
    CallError::Answer {
        method: method.to_owned(),
        detail: format!("expected {expected}, got {}", value::kind(got)),
    }
}

/// The answer of a verb that must be an object.
pub(crate) fn object<'a>(method: &str, answer: &'a Value) -> Result<&'a Map<String, Value>, CallError> {
    answer.as_object().ok_or_else(|| misunderstood(method, "an object", answer))
}

/// A list of texts, bare or in an object under one of its old names.
pub(crate) fn texts(method: &str, answer: &Value, name: &str) -> Result<Vec<String>, CallError> {
    let expected = "a list of texts";
    let list = answer
        .get(name)
        .unwrap_or(answer)
        .as_array()
        .ok_or_else(|| misunderstood(method, expected, answer))?;
    list.iter()
        .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| misunderstood(method, expected, item)))
        .collect()
}
