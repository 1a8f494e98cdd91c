//! Block 0 as lines that are changed one by one. Pure: bytes in, bytes out.
//!
//! Existing clients send the whole text of the block, with only the keys that they know. Here that text is taken
//! as "set these keys": every other line stays as storage has it, in its place, so that keys of a newer release
//! and lines of another client survive.

use metadata_format::{BLOCK_SIZE, CRITICAL_SIZE};

use super::error::PutError;
use super::{Block, zero_block};

/// Some `key=value` lines to set. Later ones win over earlier ones with the same key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Key and whole line, without newline.
    lines: Vec<(String, String)>,
}

impl Change {
    /// Reads what a client sent: `key=value` lines, NUL-padded.
    ///
    /// # Errors
    /// [`PutError::BadText`] when it is not that, or has no line at all.
    pub fn parse(bytes: &[u8]) -> Result<Self, PutError> {
        let bad = |what: String| PutError::BadText(format!("block 0 not written: {what}"));
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if used > BLOCK_SIZE {
            return Err(bad(format!("{used} bytes do not fit into a block of {BLOCK_SIZE}")));
        }
        let text = std::str::from_utf8(&bytes[..used])
            .map_err(|error| bad(format!("byte {} is not UTF-8 text", error.valid_up_to())))?;
        if let Some(at) = text.find(|c: char| c.is_control() && c != '\n' && c != '\r') {
            return Err(bad(format!("byte {at} is a control character; expected lines of key=value")));
        }
        let mut change = Self::default();
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            let key = match line.split_once('=') {
                Some((key, _)) if !key.trim().is_empty() => key.trim().to_owned(),
                _ => return Err(bad(format!("line {line:?} is not of the form key=value"))),
            };
            change.set(key, line.to_owned());
        }
        if change.lines.is_empty() {
            return Err(bad("there is no line in it; expected for example maintenance=0".to_owned()));
        }
        Ok(change)
    }

    fn set(&mut self, key: String, line: String) {
        self.lines.retain(|(other, _)| *other != key);
        self.lines.push((key, line));
    }

    /// Adds a later change: its lines win.
    pub fn absorb(&mut self, later: Self) {
        for (key, line) in later.lines {
            self.set(key, line);
        }
    }

    /// `current` with these lines set. A block that is not text (a volume that was never zeroed) is replaced.
    ///
    /// # Errors
    /// [`PutError::BadText`] when the lines do not fit into the part of a block that is written in one piece.
    pub fn apply(&self, current: &Block) -> Result<Block, PutError> {
        let mut left: Vec<&(String, String)> = self.lines.iter().collect();
        let mut lines: Vec<&[u8]> = Vec::new();
        for line in lines_of(current) {
            let Some(key) = key_of(line) else {
                lines.push(line);
                continue;
            };
            match self.lines.iter().find(|(ours, _)| ours.as_bytes() == key) {
                None => lines.push(line),
                // A key that stands there twice becomes one line.
                Some((ours, text)) => {
                    if left.iter().any(|(key, _)| key == ours) {
                        lines.push(text.as_bytes());
                        left.retain(|(key, _)| key != ours);
                    }
                }
            }
        }
        lines.extend(left.iter().map(|(_, text)| text.as_bytes()));
        let text = lines.join(&b'\n');
        let before = lines_of(current).map(|line| line.len() + 1).sum::<usize>();
        if text.len() > CRITICAL_SIZE.max(before) {
            return Err(PutError::BadText(format!(
                "block 0 not written: its lines would take {} bytes, and only the first {CRITICAL_SIZE} are written \
                 in one piece",
                text.len()
            )));
        }
        let mut block = zero_block();
        block[..text.len()].copy_from_slice(&text);
        Ok(block)
    }

    /// The first of our keys whose line in `block` is not as we set it.
    pub fn missing_in(&self, block: &Block) -> Option<&str> {
        self.lines
            .iter()
            .find(|(key, text)| {
                let mut found = lines_of(block).filter(|line| key_of(line) == Some(key.as_bytes()));
                found.next_back() != Some(text.as_bytes())
            })
            .map(|(key, _)| key.as_str())
    }
}

/// The block's lines without the empty ones; none when it is not text.
fn lines_of(block: &Block) -> impl DoubleEndedIterator<Item = &[u8]> {
    let used = block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let control = |c: char| c.is_ascii_control() && !"\n\r\t".contains(c);
    let is_text = std::str::from_utf8(&block[..used]).is_ok_and(|text| !text.contains(control));
    let used = if is_text { used } else { 0 };
    block[..used].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).filter(|line| !line.is_empty())
}

fn key_of(line: &[u8]) -> Option<&[u8]> {
    let end = line.iter().position(|byte| *byte == b'=')?;
    Some(line[..end].trim_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(text: &str) -> Block {
        let mut block = zero_block();
        block[..text.len()].copy_from_slice(text.as_bytes());
        block
    }

    #[test]
    fn unknown_lines_stay_in_their_place() {
        let change = Change::parse(b"maintenance=1\0\0\0").unwrap();
        let after = change.apply(&block("x=1\nmaintenance=0\nodd line\ny=2\n")).unwrap();
        assert_eq!(after, block("x=1\nmaintenance=1\nodd line\ny=2"));
        assert_eq!(change.missing_in(&after), None);
        assert_eq!(change.missing_in(&block("maintenance=0")), Some("maintenance"));
    }

    #[test]
    fn an_empty_or_garbled_block_gets_only_the_new_lines() {
        let change = Change::parse(b"maintenance=1").unwrap();
        assert_eq!(change.apply(&zero_block()).unwrap(), block("maintenance=1"));
        assert_eq!(change.apply(&[0x01; BLOCK_SIZE]).unwrap(), block("maintenance=1"));
        assert_eq!(change.apply(&[0xff; BLOCK_SIZE]).unwrap(), block("maintenance=1"));
    }

    #[test]
    fn doubled_keys_become_one_line() {
        let change = Change::parse(b"maintenance=0").unwrap();
        assert_eq!(
            change.apply(&block("maintenance=1\na=b\nmaintenance=1")).unwrap(),
            block("maintenance=0\na=b")
        );
    }

    #[test]
    fn what_is_no_text_is_refused_with_the_reason() {
        for (bytes, word) in [
            (&b""[..], "no line"),
            (&[0; 4096], "no line"),
            (b"maintenance", "key=value"),
            (b"=1", "key=value"),
            (b"a=\x01", "control character"),
            (b"a=\xff", "UTF-8"),
            (b"a=1\0b=2", "control character"),
            (&[b'x'; 5000], "do not fit"),
        ] {
            let error = Change::parse(bytes).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let long = format!("a={}", "x".repeat(600));
        assert!(Change::parse(long.as_bytes()).unwrap().apply(&zero_block()).is_err());
    }

    proptest! {
        #[test]
        fn two_changes_one_after_the_other_are_the_same_as_both_together(
            a in "[abc]=[01]", b in "[abc]=[01]", start in "([a-e]=[0-9]\n){0,5}",
        ) {
            let (first, second) = (Change::parse(a.as_bytes()).unwrap(), Change::parse(b.as_bytes()).unwrap());
            let stepwise = second.apply(&first.apply(&block(&start)).unwrap()).unwrap();
            let mut both = first.clone();
            both.absorb(second.clone());
            let at_once = both.apply(&block(&start)).unwrap();
            prop_assert_eq!(both.missing_in(&stepwise), None);
            prop_assert_eq!(both.missing_in(&at_once), None);
            prop_assert_eq!(second.missing_in(&at_once), None);
        }

        #[test]
        fn no_block_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), BLOCK_SIZE)) {
            let current: Block = bytes.try_into().unwrap();
            let _ = Change::parse(&current);
            let change = Change::parse(b"maintenance=1").unwrap();
            if let Ok(after) = change.apply(&current) {
                prop_assert_eq!(change.missing_in(&after), None);
            }
        }
    }
}
