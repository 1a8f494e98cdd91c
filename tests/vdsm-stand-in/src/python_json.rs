//! JSON with the blanks that Python's `json.dumps` puts in, so that answers are VDSM's byte by byte.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, is_first: bool) -> io::Result<()> {
        if is_first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, is_first: bool) -> io::Result<()> {
        if is_first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// The value as Python writes it.
pub(crate) fn to_vec(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut bytes, Python))
        .expect("a value of texts and numbers is JSON");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_after_commas_and_colons() {
        let text = r#"{"a": [1, 2, {}], "b": true}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(to_vec(&value), text.as_bytes());
    }
}
