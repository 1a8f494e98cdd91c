//! Reading a password from the terminal, without showing it.
//!
//! While it is typed the terminal neither echoes nor turns Ctrl-C into a signal: a program that such a signal ends
//! would leave the terminal silent behind it.

use std::io::{self, Write};
use std::os::fd::AsFd;

use ha_config::Secret;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

/// Longer than any sensible password, in bytes.
pub(crate) const MAX_BYTES: usize = 1024;

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const CTRL_U: u8 = 21;
const BACKSPACE: u8 = 8;
const DELETE: u8 = 127;

/// Asks on the terminal that standard input is, with a prompt on standard error. `None` when the operator cancelled:
/// by Ctrl-C, by Ctrl-D on an empty line, or by going away.
///
/// # Errors
/// Of the terminal; [`io::ErrorKind::InvalidData`] for what is no UTF-8 text or longer than [`MAX_BYTES`].
pub(crate) fn line(prompt: &str) -> io::Result<Option<Secret>> {
    let stdin = io::stdin();
    let _silence = Silence::new(&stdin)?;
    let mut error = io::stderr();
    // A prompt that cannot be shown does not keep anybody from typing.
    let _ = write!(error, "{prompt}").and_then(|()| error.flush());
    let typed = read(|byte| Ok(rustix::io::read(stdin.as_fd(), byte)?));
    let _ = writeln!(error);
    typed
}

fn read(mut next: impl FnMut(&mut [u8; 1]) -> io::Result<usize>) -> io::Result<Option<Secret>> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut typed = Vec::new();
    let mut byte = [0];
    loop {
        if next(&mut byte)? == 0 {
            return Ok(None);
        }
        match byte[0] {
            CTRL_C => return Ok(None),
            CTRL_D if typed.is_empty() => return Ok(None),
            CTRL_D => {}
            b'\n' | b'\r' => break,
            CTRL_U => typed.clear(),
            BACKSPACE | DELETE => {
                // A character is a first byte and those that go on with it.
                while typed.pop().is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000) {}
            }
            byte if typed.len() < MAX_BYTES => typed.push(byte),
            _ => return Err(invalid("the password is too long")),
        }
    }
    let text = String::from_utf8(typed).map_err(|_| invalid("the password is not UTF-8 text"))?;
    Ok(Some(Secret::new(text)))
}

/// A terminal that gives each byte as it is typed, and shows none, until dropped.
struct Silence<'a> {
    terminal: &'a io::Stdin,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn new(terminal: &'a io::Stdin) -> io::Result<Self> {
        let before = tcgetattr(terminal.as_fd())?;
        let mut silent = before.clone();
        silent
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal.as_fd(), OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // Nothing sensible can be done about a failure.
        let _ = tcsetattr(self.terminal.as_fd(), OptionalActions::Drain, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> io::Result<Option<String>> {
        let mut bytes = bytes.iter();
        let read = read(|byte| {
            Ok(bytes.next().map_or(0, |next| {
                byte[0] = *next;
                1
            }))
        });
        Ok(read?.map(|secret| secret.reveal().to_owned()))
    }

    #[test]
    fn a_line_is_edited_as_on_a_terminal() {
        assert_eq!(typed(b"s3cret\r").unwrap().as_deref(), Some("s3cret"));
        assert_eq!(typed(b"\n").unwrap().as_deref(), Some(""));
        assert_eq!(
            typed("wrong\u{15}ží\u{7f}x\u{7f}\u{8}\u{7f}\u{7f}ok\n".as_bytes()).unwrap().as_deref(),
            Some("ok")
        );
    }

    #[test]
    fn the_operator_can_cancel() {
        for bytes in [&b"abc\x03"[..], b"\x04", b"abc", b""] {
            assert_eq!(typed(bytes).unwrap(), None, "{bytes:?}");
        }
        assert_eq!(typed(b"a\x04b\n").unwrap().as_deref(), Some("ab"), "Ctrl-D within a line is none");
    }

    #[test]
    fn nonsense_is_refused_without_showing_it() {
        let error = typed(b"s3cret\xff\n").unwrap_err().to_string();
        assert!(error.contains("UTF-8") && !error.contains("s3cret"), "{error}");
        assert!(typed(&[b'a'; MAX_BYTES + 1]).unwrap_err().to_string().contains("too long"));
    }
}
