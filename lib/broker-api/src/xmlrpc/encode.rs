//! Values to XML, in the form that Python's `xmlrpc.client` reads.
//!
//! Characters that XML 1.0 cannot carry become U+FFFD, so that an answer can always be parsed by its reader.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::decode::is_forbidden;
use super::{Fault, Value};

const DECLARATION: &str = "<?xml version='1.0'?>\n";

/// A request.
pub fn encode_call(method: &str, params: &[Value]) -> Vec<u8> {
    let mut out = String::from(DECLARATION);
    out.push_str("<methodCall>\n<methodName>");
    escape(method, &mut out);
    out.push_str("</methodName>\n<params>\n");
    for param in params {
        encode_param(param, &mut out);
    }
    out.push_str("</params>\n</methodCall>\n");
    out.into_bytes()
}

/// An answer with a result.
pub fn encode_response(value: &Value) -> Vec<u8> {
    let mut out = String::with_capacity(DECLARATION.len() + 100 + size_hint(value));
    out.push_str(DECLARATION);
    out.push_str("<methodResponse>\n<params>\n");
    encode_param(value, &mut out);
    out.push_str("</params>\n</methodResponse>\n");
    out.into_bytes()
}

/// An answer that says why there is no result.
pub fn encode_fault(fault: &Fault) -> Vec<u8> {
    let mut out = String::from(DECLARATION);
    out.push_str("<methodResponse>\n<fault>\n<value><struct>\n<member>\n<name>faultCode</name>\n");
    encode_value(&Value::Int(fault.code), &mut out);
    out.push_str("</member>\n<member>\n<name>faultString</name>\n<value><string>");
    escape(&fault.message, &mut out);
    out.push_str("</string></value>\n</member>\n</struct></value>\n</fault>\n</methodResponse>\n");
    out.into_bytes()
}

fn encode_param(value: &Value, out: &mut String) {
    out.push_str("<param>\n");
    encode_value(value, out);
    out.push_str("</param>\n");
}

/// The values that we write are our own, so their depth is small.
fn encode_value(value: &Value, out: &mut String) {
    out.push_str("<value>");
    match value {
        Value::Nil => out.push_str("<nil/>"),
        Value::Bool(truth) => write_tag(out, "boolean", u8::from(*truth)),
        Value::Int(number) if i32::try_from(*number).is_ok() => write_tag(out, "int", number),
        Value::Int(number) => write_tag(out, "i8", number),
        Value::Double(number) => write_tag(out, "double", format_args!("{number:?}")),
        Value::String(text) => {
            out.push_str("<string>");
            escape(text, out);
            out.push_str("</string>");
        }
        Value::Bytes(bytes) => {
            out.push_str("<base64>\n");
            STANDARD.encode_string(bytes, out);
            out.push_str("\n</base64>");
        }
        Value::DateTime(text) => {
            out.push_str("<dateTime.iso8601>");
            escape(text, out);
            out.push_str("</dateTime.iso8601>");
        }
        Value::Array(values) => {
            out.push_str("<array><data>\n");
            for value in values {
                encode_value(value, out);
            }
            out.push_str("</data></array>");
        }
        Value::Struct(members) => {
            out.push_str("<struct>\n");
            for (name, value) in members {
                out.push_str("<member>\n<name>");
                escape(name, out);
                out.push_str("</name>\n");
                encode_value(value, out);
                out.push_str("</member>\n");
            }
            out.push_str("</struct>");
        }
    }
    out.push_str("</value>\n");
}

fn write_tag(out: &mut String, tag: &str, content: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = write!(out, "<{tag}>{content}</{tag}>");
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // A parser would turn a bare one into a line feed.
            '\r' => out.push_str("&#13;"),
            c if is_forbidden(c) => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
}

/// About how many bytes a value takes, so that a large answer is not moved while it grows.
fn size_hint(value: &Value) -> usize {
    match value {
        Value::Bytes(bytes) => bytes.len() / 3 * 4 + 50,
        Value::String(text) => text.len() + 40,
        Value::Array(values) => values.iter().map(size_hint).sum::<usize>() + 40,
        Value::Struct(members) => members.values().map(|value| size_hint(value) + 60).sum::<usize>() + 40,
        Value::Nil | Value::Bool(_) | Value::Int(_) | Value::Double(_) | Value::DateTime(_) => 50,
    }
}
