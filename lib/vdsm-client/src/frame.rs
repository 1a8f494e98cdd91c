//! Frames of STOMP 1.2 as VDSM reads and writes them: the codec of both sides, without I/O.
//!
//! ```text
//! COMMAND LF  *( name ":" value LF )  LF  body NUL  *LF
//! ```
//!
//! A line may also end with CR LF. Names and values are UTF-8 in which `\r`, `\n`, `\c` and `\\` stand for CR, LF, colon
//! and backslash. The body has as many bytes as the header `content-length` says, or, without one, ends before the
//! first NUL. A line end between frames is a heart-beat.
//!
//! Two deviations from the specification, both because of VDSM: escapes are used in `CONNECT` and `CONNECTED`
//! too, as its servers do; and a colon in a value may stand unescaped, as other servers write it.
//!
//! Everything that a peer can make long has a limit here.
//!
//! Source: <https://stomp.github.io/stomp-specification-1.2.html>.

use bytes::{Buf, BytesMut};
use thiserror::Error;

/// Longest body, in bytes. A host with some hundred virtual machines answers with less than a mebibyte.
pub const MAX_BODY: usize = 16 << 20;
/// Most headers of a frame; VDSM sends five.
pub const MAX_HEADERS: usize = 64;
/// Longest header line, in bytes, without its line end.
pub const MAX_LINE: usize = 8 << 10;
/// Longest command; the longest of STOMP is `UNSUBSCRIBE`.
pub const MAX_COMMAND: usize = 32;

const CONTENT_LENGTH: &str = "content-length";

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The command: ASCII letters, 1 to [`MAX_COMMAND`].
    pub command: String,
    /// Names and values in the order of the wire, unescaped; at most [`MAX_HEADERS`].
    pub headers: Vec<(String, String)>,
    /// The body: any bytes, at most [`MAX_BODY`].
    pub body: Vec<u8>,
}

impl Frame {
    /// A frame of a command and headers, without a body.
    pub fn new(command: &str, headers: &[(&str, &str)]) -> Frame {
        Frame {
            command: command.to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: Vec::new(),
        }
    }

    /// The same frame with a body.
    #[must_use]
    pub fn with_body(mut self, body: Vec<u8>) -> Frame {
        self.body = body;
        self
    }

    /// The first header of a name: the specification says that repeated ones are history.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The bytes on the wire. The header `content-length` is written here, last, when there is a body; one among
    /// [`Frame::headers`] is left out, so that it can never contradict the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.body.len() + 256);
        wire.extend_from_slice(self.command.as_bytes());
        wire.push(b'\n');
        for (name, value) in &self.headers {
            if name != CONTENT_LENGTH {
                escape(&mut wire, name);
                wire.push(b':');
                escape(&mut wire, value);
                wire.push(b'\n');
            }
        }
        if !self.body.is_empty() {
            let line = format!("{CONTENT_LENGTH}:{}\n", self.body.len());
            wire.extend_from_slice(line.as_bytes());
        }
        wire.push(b'\n');
        wire.extend_from_slice(&self.body);
        wire.push(0);
        wire
    }
}

/// What the decoder understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A whole frame.
    Frame(Frame),
    /// A line end between frames.
    HeartBeat,
}

/// Why bytes are no frames. The stream cannot be read on after it: there is no way to find the next frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The first line is no command: most likely the peer does not speak STOMP at all, or speaks TLS.
    #[error(
        "not a STOMP frame: it begins with {0:?}, where a command of 1 to {MAX_COMMAND} letters was expected"
    )]
    Command(String),
    /// A header line goes on and on.
    #[error("a header line of a {command} frame has more than {MAX_LINE} bytes")]
    LongLine {
        /// Of which frame.
        command: String,
    },
    /// Too many header lines.
    #[error("a {command} frame has more than {MAX_HEADERS} headers")]
    ManyHeaders {
        /// Of which frame.
        command: String,
    },
    /// A header line that cannot be read.
    #[error("header line {line:?} of a {command} frame: {what}")]
    Header {
        /// Of which frame.
        command: String,
        /// The line, as far as it is text.
        line: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The body is longer than [`MAX_BODY`], or says so.
    #[error("a {command} frame has a body of {length}; the limit is {MAX_BODY} bytes")]
    LongBody {
        /// Of which frame.
        command: String,
        /// The length that was announced, or "more" when none was.
        length: String,
    },
    /// After as many bytes as `content-length` says there is no NUL.
    #[error("a {command} frame of {length} bytes of body is not ended by a NUL byte")]
    NoNul {
        /// Of which frame.
        command: String,
        /// What its content-length said.
        length: usize,
    },
}

/// Makes frames of bytes that arrive in pieces of any size.
///
/// What was fed waits until it is asked for: feed at most as much as was just read, and take everything with
/// [`Decoder::next`] before feeding again; then no more than one frame and one read is ever held.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// How much of `buffer` was searched for the end of the line or body in vain.
    searched: usize,
    state: State,
}

#[derive(Clone, Debug, Default)]
enum State {
    /// Between frames, or in the command's line.
    #[default]
    Command,
    Headers(Frame),
    Body(Frame, Option<usize>),
    /// It stays what it is.
    Broken(FrameError),
}

impl Decoder {
    /// Takes bytes as they were read.
    pub fn feed(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Broken(_)) {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next frame or heart-beat; `None` until more bytes are fed. After an error it says the same error for ever.
    #[allow(
        clippy::should_implement_trait,
        reason = "the end of what is there now is not the end of an iterator"
    )]
    pub fn next(&mut self) -> Result<Option<Incoming>, FrameError> {
        loop {
            match self.step() {
                Ok(Step::Again) => {}
                Ok(Step::More) => return Ok(None),
                Ok(Step::Done(incoming)) => return Ok(Some(incoming)),
                Err(error) => {
                    self.buffer = BytesMut::new();
                    self.state = State::Broken(error.clone());
                    return Err(error);
                }
            }
        }
    }

    fn step(&mut self) -> Result<Step, FrameError> {
        match std::mem::take(&mut self.state) {
            State::Broken(error) => Err(error),
            State::Command => self.command(),
            State::Headers(frame) => self.header(frame),
            State::Body(frame, length) => self.body(frame, length),
        }
    }

    fn command(&mut self) -> Result<Step, FrameError> {
        let Some(line) = self.line() else {
            // A CR may be half of a line end.
            let begin = self.buffer.strip_suffix(b"\r").unwrap_or(&self.buffer);
            return if begin.len() <= MAX_COMMAND && begin.iter().all(u8::is_ascii_alphabetic) {
                Ok(Step::More)
            } else {
                Err(not_a_command(begin))
            };
        };
        if line.is_empty() {
            return Ok(Step::Done(Incoming::HeartBeat));
        }
        if line.len() > MAX_COMMAND || !line.iter().all(u8::is_ascii_alphabetic) {
            return Err(not_a_command(&line));
        }
        let command = String::from_utf8_lossy(&line).into_owned();
        self.state = State::Headers(Frame::new(&command, &[]));
        Ok(Step::Again)
    }

    fn header(&mut self, mut frame: Frame) -> Result<Step, FrameError> {
        let command = || frame.command.clone();
        let Some(line) = self.line() else {
            if self.buffer.len() > MAX_LINE + 1 {
                return Err(FrameError::LongLine { command: command() });
            }
            self.state = State::Headers(frame);
            return Ok(Step::More);
        };
        if line.len() > MAX_LINE {
            return Err(FrameError::LongLine { command: command() });
        }
        if line.is_empty() {
            let length = content_length(&frame)?;
            self.state = State::Body(frame, length);
            return Ok(Step::Again);
        }
        if frame.headers.len() == MAX_HEADERS {
            return Err(FrameError::ManyHeaders { command: command() });
        }
        let header = parse_header(&line).map_err(|what| FrameError::Header {
            command: command(),
            line: String::from_utf8_lossy(&line).into_owned(),
            what,
        })?;
        frame.headers.push(header);
        self.state = State::Headers(frame);
        Ok(Step::Again)
    }

    fn body(&mut self, mut frame: Frame, length: Option<usize>) -> Result<Step, FrameError> {
        let end = match length {
            Some(length) => match self.buffer.get(length) {
                Some(0) => Some(length),
                Some(_) => {
                    return Err(FrameError::NoNul { command: frame.command, length });
                }
                None => None,
            },
            None => self.find(0),
        };
        let too_long = match end {
            Some(end) => end > MAX_BODY,
            None => length.is_none() && self.buffer.len() > MAX_BODY,
        };
        if too_long {
            return Err(FrameError::LongBody { command: frame.command, length: "more".to_owned() });
        }
        let Some(end) = end else {
            self.state = State::Body(frame, length);
            return Ok(Step::More);
        };
        frame.body = self.take(end).to_vec();
        Ok(Step::Done(Incoming::Frame(frame)))
    }

    /// The next line without its end, when it is there.
    fn line(&mut self) -> Option<BytesMut> {
        let end = self.find(b'\n')?;
        let mut line = self.take(end);
        // "\r" alone is no line end, but it cannot stand unescaped in a line either.
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        Some(line)
    }

    fn find(&mut self, wanted: u8) -> Option<usize> {
        let found = self.buffer[self.searched..].iter().position(|byte| *byte == wanted);
        if found.is_none() {
            self.searched = self.buffer.len();
        }
        found.map(|offset| self.searched + offset)
    }

    /// Takes that many bytes and drops the one after them, which ended them.
    fn take(&mut self, length: usize) -> BytesMut {
        let taken = self.buffer.split_to(length);
        self.buffer.advance(1);
        self.searched = 0;
        taken
    }
}

enum Step {
    Again,
    More,
    Done(Incoming),
}

fn not_a_command(line: &[u8]) -> FrameError {
    let shown = &line[..line.len().min(MAX_COMMAND)];
    FrameError::Command(String::from_utf8_lossy(shown).into_owned())
}

fn content_length(frame: &Frame) -> Result<Option<usize>, FrameError> {
    let Some(text) = frame.header(CONTENT_LENGTH) else {
        return Ok(None);
    };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FrameError::Header {
            command: frame.command.clone(),
            line: format!("{CONTENT_LENGTH}:{text}"),
            what: "a number of bytes was expected",
        });
    }
    match text.parse::<usize>() {
        Ok(length) if length <= MAX_BODY => Ok(Some(length)),
        // Too long even for the type.
        Ok(_) | Err(_) => {
            Err(FrameError::LongBody { command: frame.command.clone(), length: format!("{text} bytes") })
        }
    }
}

fn parse_header(line: &[u8]) -> Result<(String, String), &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
    let (name, value) = text.split_once(':').ok_or("it has no colon")?;
    if name.is_empty() {
        return Err("it has no name");
    }
    Ok((unescape(name)?, unescape(value)?))
}

fn escape(wire: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\r' => wire.extend_from_slice(b"\\r"),
            b'\n' => wire.extend_from_slice(b"\\n"),
            b':' => wire.extend_from_slice(b"\\c"),
            b'\\' => wire.extend_from_slice(b"\\\\"),
            plain => wire.push(plain),
        }
    }
}

fn unescape(text: &str) -> Result<String, &'static str> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        plain.push(match characters.next() {
            Some('r') => '\r',
            Some('n') => '\n',
            Some('c') => ':',
            Some('\\') => '\\',
            Some(_) | None => return Err("after a backslash r, n, c or a backslash was expected"),
        });
    }
    Ok(plain)
}
