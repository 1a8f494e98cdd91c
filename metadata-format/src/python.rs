//! JSON spelled as Python's `json.dumps` spells it, because host blocks and `--vm-status --json` are read by programs
//! (and compared by people) that grew up with that spelling: `", "` and `": "` between things, and nothing but
//! printable ASCII, so that a length in characters is a length in bytes.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

/// `value` as one line of JSON in Python's spelling.
///
/// # Errors
/// When `value` itself cannot be JSON, for example a map whose keys are no text.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    let mut out = Vec::with_capacity(128);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonSpelling))?;
    String::from_utf8(out).map_err(|error| serde_json::Error::io(io::Error::other(error)))
}

struct PythonSpelling;

impl Formatter for PythonSpelling {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain_from = 0;
        for (at, c) in fragment.char_indices() {
            if matches!(c, ' '..='~') {
                continue;
            }
            out.write_all(&fragment.as_bytes()[plain_from..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            plain_from = at + c.len_utf8();
        }
        out.write_all(&fragment.as_bytes()[plain_from..])
    }
}

/// `True` or `False`.
pub const fn bool_word(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// A boolean as configuration files and the cluster block spell it: the first letter decides, t, y or 1 against
/// f, n or 0, in any case. `None` for anything else.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().bytes().next()?.to_ascii_lowercase() {
        b't' | b'y' | b'1' => Some(true),
        b'f' | b'n' | b'0' => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_spelled_as_python_spells_it() {
        let value =
            serde_json::json!({"a": [1, true, null], "b": "ü\u{7f}\u{1f600}\n\"\\/", "c": {}, "d": []});
        // The line that json.dumps prints for the same value.
        let python = r#"{"a": [1, true, null], "b": "\u00fc\u007f\ud83d\ude00\n\"\\/", "c": {}, "d": []}"#;
        assert_eq!(to_json(&value).unwrap(), python);
    }

    #[test]
    fn booleans_go_by_their_first_letter() {
        for (text, expected) in [
            ("True", Some(true)),
            ("yes", Some(true)),
            (" 1", Some(true)),
            ("no", Some(false)),
            ("0", Some(false)),
        ] {
            assert_eq!(parse_bool(text), expected, "{text}");
        }
        assert_eq!(parse_bool(""), None);
        assert_eq!(parse_bool("maybe"), None);
    }
}
