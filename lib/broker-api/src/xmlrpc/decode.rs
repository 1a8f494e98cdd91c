//! XML to values. Input is foreign and may be hostile.
//!
//! The caller limits the number of bytes. Here nesting and the number of values are limited, document type
//! declarations are refused (so that no entity can be declared), and only XML's five entities and character
//! references are expanded: memory stays proportional to the input.

use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

use super::{Fault, MethodCall, MethodResponse, Value};

/// Deepest nesting of arrays and structs. The verbs need 2.
pub const MAX_DEPTH: usize = 16;

/// Most values in one document. All blocks of a full cluster are 2002.
pub const MAX_VALUES: usize = 20_000;

/// Padding may be missing; Python's reader does not mind either.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a document is not XML-RPC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The XML itself is broken.
    #[error("not well-formed XML near byte {at}: {detail}")]
    Xml {
        /// Offset from the start of the document.
        at: u64,
        /// The parser's words.
        detail: String,
    },
    /// Something stands where something else must.
    #[error("expected {expected} near byte {at}, found {found}")]
    Unexpected {
        /// Offset from the start of the document.
        at: u64,
        /// What the grammar wants.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A value does not fit its type.
    #[error("{text:?} is not {kind}")]
    BadValue {
        /// The type that it claims to have.
        kind: &'static str,
        /// At most 40 characters of it.
        text: String,
    },
    /// A limit was passed.
    #[error("{0}")]
    Limit(&'static str),
}

/// Reads a request.
pub fn decode_call(document: &[u8]) -> Result<MethodCall, DecodeError> {
    let mut parser = Parser::new(document);
    parser.expect_open("methodCall")?;
    parser.expect_open("methodName")?;
    let name = parser.text()?.trim().to_owned();
    parser.expect_close("</methodName>")?;
    let mut params = Vec::new();
    match parser.next_tag()? {
        Token::Close => {}
        Token::Open(tag) if tag == "params" => {
            loop {
                match parser.next_tag()? {
                    Token::Open(tag) if tag == "param" => {
                        params.push(parser.value()?);
                        parser.expect_close("</param>")?;
                    }
                    Token::Close => break,
                    other => return Err(parser.unexpected("<param> or </params>", &other)),
                }
            }
            parser.expect_close("</methodCall>")?;
        }
        other => return Err(parser.unexpected("<params>", &other)),
    }
    parser.expect_end()?;
    Ok(MethodCall { name, params })
}

/// Reads an answer.
pub fn decode_response(document: &[u8]) -> Result<MethodResponse, DecodeError> {
    let mut parser = Parser::new(document);
    parser.expect_open("methodResponse")?;
    let response = match parser.next_tag()? {
        Token::Open(tag) if tag == "params" => {
            parser.expect_open("param")?;
            let value = parser.value()?;
            parser.expect_close("</param>")?;
            MethodResponse::Value(value)
        }
        Token::Open(tag) if tag == "fault" => MethodResponse::Fault(fault(parser.value()?)?),
        other => return Err(parser.unexpected("<params> or <fault>", &other)),
    };
    parser.expect_close("the end of the answer")?;
    parser.expect_close("</methodResponse>")?;
    parser.expect_end()?;
    Ok(response)
}

fn fault(value: Value) -> Result<Fault, DecodeError> {
    let bad = || DecodeError::BadValue { kind: "a fault", text: "its value".to_owned() };
    let Value::Struct(mut members) = value else { return Err(bad()) };
    match (members.remove("faultCode"), members.remove("faultString")) {
        (Some(Value::Int(code)), Some(Value::String(message))) => Ok(Fault { code, message }),
        _ => Err(bad()),
    }
}

/// What the grammar sees: comments, processing instructions and the declaration are gone, texts are whole.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Open(String),
    Close,
    Text(String),
    End,
}

struct Parser<'a> {
    reader: Reader<&'a [u8]>,
    /// A token that was read too early.
    pending: Option<Token>,
    depth: usize,
    values: usize,
}

impl<'a> Parser<'a> {
    fn new(document: &'a [u8]) -> Self {
        let mut reader = Reader::from_reader(document);
        reader.config_mut().expand_empty_elements = true;
        Self { reader, pending: None, depth: 0, values: 0 }
    }

    fn next(&mut self) -> Result<Token, DecodeError> {
        if let Some(token) = self.pending.take() {
            return Ok(token);
        }
        let mut text: Option<String> = None;
        loop {
            let at = self.reader.buffer_position();
            let broken = |detail: String| DecodeError::Xml { at, detail };
            let event = self.reader.read_event().map_err(|e| broken(e.to_string()))?;
            let token = match event {
                Event::Text(part) => {
                    let part = part.xml10_content().map_err(|e| broken(e.to_string()))?;
                    text.get_or_insert_default().push_str(&part);
                    continue;
                }
                Event::CData(part) => {
                    let part = part.xml10_content().map_err(|e| broken(e.to_string()))?;
                    text.get_or_insert_default().push_str(&part);
                    continue;
                }
                Event::GeneralRef(reference) => {
                    let name = reference.decode().map_err(|e| broken(e.to_string()))?;
                    let resolved = reference.resolve_char_ref().map_err(|e| broken(e.to_string()))?;
                    let text = text.get_or_insert_default();
                    match (resolved, resolve_predefined_entity(&name)) {
                        (Some(c), _) => text.push(c),
                        (None, Some(entity)) => text.push_str(entity),
                        (None, None) => return Err(broken("unknown entity".to_owned())),
                    }
                    continue;
                }
                Event::Comment(_) | Event::PI(_) | Event::Decl(_) => continue,
                Event::DocType(_) => return Err(broken("document types are not accepted".to_owned())),
                // Empty elements are expanded, so a start is all there is.
                Event::Start(tag) | Event::Empty(tag) => {
                    Token::Open(String::from_utf8_lossy(tag.local_name().as_ref()).into_owned())
                }
                Event::End(_) => Token::Close,
                Event::Eof => Token::End,
            };
            return Ok(match text {
                None => token,
                Some(text) if text.chars().any(is_forbidden) => {
                    return Err(broken("a character that XML cannot carry".to_owned()));
                }
                Some(text) => {
                    self.pending = Some(token);
                    Token::Text(text)
                }
            });
        }
    }

    /// The next token that is not white space between tags.
    fn next_tag(&mut self) -> Result<Token, DecodeError> {
        match self.next()? {
            Token::Text(text) if is_blank(&text) => self.next(),
            token => Ok(token),
        }
    }

    /// The text up to the next tag; empty if there is none.
    fn text(&mut self) -> Result<String, DecodeError> {
        match self.next()? {
            Token::Text(text) => Ok(text),
            other => {
                self.pending = Some(other);
                Ok(String::new())
            }
        }
    }

    fn expect_open(&mut self, tag: &'static str) -> Result<(), DecodeError> {
        match self.next_tag()? {
            Token::Open(found) if found == tag => Ok(()),
            other => Err(self.unexpected(tag, &other)),
        }
    }

    fn expect_close(&mut self, expected: &'static str) -> Result<(), DecodeError> {
        match self.next_tag()? {
            Token::Close => Ok(()),
            other => Err(self.unexpected(expected, &other)),
        }
    }

    fn expect_end(&mut self) -> Result<(), DecodeError> {
        match self.next_tag()? {
            Token::End => Ok(()),
            other => Err(self.unexpected("the end of the document", &other)),
        }
    }

    fn unexpected(&self, expected: &'static str, found: &Token) -> DecodeError {
        let found = match found {
            Token::Open(tag) => format!("<{}>", clip(tag)),
            Token::Close => "a closing tag".to_owned(),
            Token::Text(text) => format!("the text {:?}", clip(text)),
            Token::End => "the end of the document".to_owned(),
        };
        DecodeError::Unexpected { at: self.reader.buffer_position(), expected, found }
    }

    /// A whole `<value>` element.
    fn value(&mut self) -> Result<Value, DecodeError> {
        self.expect_open("value")?;
        self.value_content()
    }

    /// What follows `<value>`, up to and with `</value>`.
    fn value_content(&mut self) -> Result<Value, DecodeError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(DecodeError::Limit("more than 20000 values"));
        }
        let text = self.text()?;
        let tag = match self.next()? {
            Token::Close => return Ok(Value::String(text)),
            Token::Open(tag) if is_blank(&text) => tag,
            other => return Err(self.unexpected("</value> or a type", &other)),
        };
        let value = match tag.as_str() {
            "array" | "struct" if self.depth == MAX_DEPTH => {
                return Err(DecodeError::Limit("nested deeper than 16 levels"));
            }
            "array" => self.nested(Self::array)?,
            "struct" => self.nested(Self::members)?,
            kind => {
                let text = self.text()?;
                let value = scalar(kind, text)
                    .unwrap_or_else(|| Err(self.unexpected("a type of XML-RPC", &Token::Open(tag))))?;
                self.expect_close("the end of the type")?;
                value
            }
        };
        self.expect_close("</value>")?;
        Ok(value)
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, DecodeError>) -> Result<Value, DecodeError> {
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn array(&mut self) -> Result<Value, DecodeError> {
        self.expect_open("data")?;
        let mut values = Vec::new();
        loop {
            match self.next_tag()? {
                Token::Open(tag) if tag == "value" => values.push(self.value_content()?),
                Token::Close => break,
                other => return Err(self.unexpected("<value> or </data>", &other)),
            }
        }
        self.expect_close("</array>")?;
        Ok(Value::Array(values))
    }

    fn members(&mut self) -> Result<Value, DecodeError> {
        let mut members = BTreeMap::new();
        loop {
            match self.next_tag()? {
                Token::Open(tag) if tag == "member" => {
                    self.expect_open("name")?;
                    let name = self.text()?;
                    self.expect_close("</name>")?;
                    let value = self.value()?;
                    self.expect_close("</member>")?;
                    members.insert(name, value);
                }
                Token::Close => return Ok(Value::Struct(members)),
                other => return Err(self.unexpected("<member> or </struct>", &other)),
            }
        }
    }
}

/// The value of a simple type; `None` when there is no such type.
fn scalar(tag: &str, text: String) -> Option<Result<Value, DecodeError>> {
    let bad = |kind, text: &str| DecodeError::BadValue { kind, text: clip(text) };
    let word = text.trim();
    Some(match tag {
        "string" => Ok(Value::String(text)),
        "int" | "i1" | "i2" | "i4" | "i8" => {
            word.parse().map(Value::Int).map_err(|_| bad("an integer of 64 bits", word))
        }
        "boolean" => match word {
            "0" => Ok(Value::Bool(false)),
            "1" => Ok(Value::Bool(true)),
            _ => Err(bad("a boolean, 0 or 1", word)),
        },
        "double" | "float" => word.parse().map(Value::Double).map_err(|_| bad("a double", word)),
        "base64" => {
            let packed: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
            BASE64.decode(packed).map(Value::Bytes).map_err(|_| bad("base64", word))
        }
        "dateTime.iso8601" => Ok(Value::DateTime(word.to_owned())),
        "nil" if word.is_empty() => Ok(Value::Nil),
        "nil" => Err(bad("nil, which has no content", word)),
        _ => return None,
    })
}

/// Not a character of XML 1.0, raw or as a reference. Python's parser refuses them too.
pub(super) const fn is_forbidden(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// XML's white space only: a no-break space is text.
fn is_blank(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

/// The beginning of a foreign text, short enough for an error.
fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}
