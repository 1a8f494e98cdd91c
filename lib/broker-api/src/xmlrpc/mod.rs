//! XML-RPC with the `nil` and `i8` extensions, as Python's `xmlrpc` package reads and writes it.
//!
//! Bytes in, values out, and back; no I/O. Input is foreign: everything has a limit, nothing panics, document type
//! declarations (and with them entities of one's own) are refused.

mod decode;
mod encode;

use std::collections::BTreeMap;

pub use self::decode::{DecodeError, MAX_DEPTH, MAX_VALUES, decode_call, decode_response};
pub use self::encode::{encode_call, encode_fault, encode_response};

/// Codes of the faults that our broker answers with.
pub mod fault {
    /// No such verb. The only fault of the Python broker.
    pub const UNKNOWN_METHOD: i64 = 1;
    /// An argument is missing, of the wrong type, or out of range; or the request is not XML-RPC.
    pub const BAD_ARGUMENT: i64 = 2;
    /// This host does not hold the lease that the verb needs.
    pub const NOT_HELD: i64 = 3;
    /// Shared storage did not take it.
    pub const STORAGE: i64 = 4;
    /// The lock manager refused or could not be asked.
    pub const LOCKSPACE: i64 = 5;
    /// The calling user may not use this verb.
    pub const NOT_PERMITTED: i64 = 6;
    /// The broker is shutting down or broke while it worked on the verb.
    pub const INTERRUPTED: i64 = 7;
}

/// A value of XML-RPC.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `<nil/>`
    Nil,
    /// `<boolean>`
    Bool(bool),
    /// `<int>`, `<i4>`, or `<i8>` when it does not fit into 32 bits.
    Int(i64),
    /// `<double>`
    Double(f64),
    /// `<string>`, or text without a type.
    String(String),
    /// `<base64>`
    Bytes(Vec<u8>),
    /// `<dateTime.iso8601>`, as it is written.
    DateTime(String),
    /// `<array>`
    Array(Vec<Value>),
    /// `<struct>`; of two members with one name the last counts.
    Struct(BTreeMap<String, Value>),
}

impl Value {
    /// What kind of value it is, for error texts.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Double(_) => "a double",
            Self::String(_) => "a text",
            Self::Bytes(_) => "base64",
            Self::DateTime(_) => "a date",
            Self::Array(_) => "an array",
            Self::Struct(_) => "a struct",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodCall {
    /// The verb.
    pub name: String,
    /// Its arguments.
    pub params: Vec<Value>,
}

/// A failure that the server reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// One of [`fault`].
    pub code: i64,
    /// Why, in words.
    pub message: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum MethodResponse {
    /// The result.
    Value(Value),
    /// There is none.
    Fault(Fault),
}
