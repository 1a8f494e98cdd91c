//! Block 0: lines that are true for the whole cluster.
//!
//! ```text
//! maintenance=1\n          0 or 1; the only key that is known today
//! key=value                kept as it is, in its place
//! NUL … 4095
//! ```
//!
//! Any host may write this block, so a change is always read, modify, write of single lines: what we do not know
//! was put there by a newer release and must survive. No I/O here.

use crate::text::excerpt;
use crate::{BLOCK_SIZE, python};

const MAINTENANCE: &[u8] = b"maintenance";

/// The cluster's block as lines. The default is an empty block: no maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GlobalBlock {
    /// Lines without their newline, in the order of the file.
    lines: Vec<Vec<u8>>,
    maintenance: bool,
}

/// Why block 0 cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobalError {
    /// It is not text at all, as on a volume that was never zeroed.
    #[error(
        "the cluster block (block 0 of the metadata file) is not text: byte {offset} is {byte:#04x}; \
         setting the maintenance mode writes it anew"
    )]
    NotText {
        /// Where, counted from the start of the block.
        offset: usize,
        /// What stands there.
        byte: u8,
    },
    /// The maintenance line holds no boolean.
    #[error(
        "the cluster block (block 0 of the metadata file), line {line}: maintenance is {value:?}, \
         expected 0 or 1; set the maintenance mode again to repair it"
    )]
    Maintenance {
        /// Counted from 1.
        line: usize,
        /// What stands after the `=`, made printable.
        value: String,
    },
    /// The lines do not fit into the block any more.
    #[error("the cluster block would be {len} bytes long, and only {BLOCK_SIZE} fit")]
    TooLong {
        /// Bytes needed.
        len: usize,
    },
}

impl GlobalBlock {
    /// Reads block 0. `bytes` may be shorter than a block; what is missing counts as NUL.
    ///
    /// # Errors
    /// [`GlobalError::NotText`] and [`GlobalError::Maintenance`]; unknown lines are no error.
    pub fn parse(bytes: &[u8]) -> Result<Self, GlobalError> {
        let block = &bytes[..bytes.len().min(BLOCK_SIZE)];
        let used = block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let block = &block[..used];
        if let Some((offset, byte)) =
            block.iter().enumerate().find(|(_, b)| b.is_ascii_control() && !b"\n\r\t".contains(b))
        {
            return Err(GlobalError::NotText { offset, byte: *byte });
        }
        if block.is_empty() {
            return Ok(Self::default());
        }
        let lines: Vec<Vec<u8>> = block.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let mut maintenance = false;
        for (index, line) in lines.iter().enumerate() {
            let Some(value) = maintenance_value(line) else { continue };
            maintenance = std::str::from_utf8(value)
                .ok()
                .and_then(python::parse_bool)
                .ok_or_else(|| GlobalError::Maintenance { line: index + 1, value: excerpt(value, 40) })?;
        }
        Ok(Self { lines, maintenance })
    }

    /// Whether the cluster is in global maintenance. When the line is there twice the last one counts.
    pub const fn maintenance(&self) -> bool {
        self.maintenance
    }

    /// Changes the maintenance line, or adds it as the first line. All other lines stay as they are.
    pub fn set_maintenance(&mut self, on: bool) {
        self.maintenance = on;
        let text = format!("maintenance={}", u8::from(on)).into_bytes();
        let mut found = false;
        self.lines.retain_mut(|line| {
            if maintenance_value(line).is_none() {
                return true;
            }
            line.clone_from(&text);
            !std::mem::replace(&mut found, true)
        });
        if !found {
            self.lines.insert(0, text);
        }
    }

    /// Lines that are not ours, made printable: keys of a newer release, or a mistake worth telling.
    pub fn unknown_lines(&self) -> Vec<String> {
        let unknown = |line: &&Vec<u8>| !line.is_empty() && maintenance_value(line).is_none();
        self.lines.iter().filter(unknown).map(|line| excerpt(line, 80)).collect()
    }

    /// The block as it goes to storage: [`BLOCK_SIZE`] bytes.
    ///
    /// # Errors
    /// [`GlobalError::TooLong`] when lines were added to a block that was full of unknown ones.
    pub fn encode(&self) -> Result<Vec<u8>, GlobalError> {
        let mut block = self.lines.join(&b'\n');
        if block.len() > BLOCK_SIZE {
            return Err(GlobalError::TooLong { len: block.len() });
        }
        block.resize(BLOCK_SIZE, 0);
        Ok(block)
    }
}

/// The value of a maintenance line; `None` for any other line.
fn maintenance_value(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(MAINTENANCE)?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_all_nul_block_means_no_maintenance() {
        let block = GlobalBlock::parse(&[0; BLOCK_SIZE]).unwrap();
        assert!(!block.maintenance());
        assert_eq!(block.encode().unwrap(), vec![0; BLOCK_SIZE]);
        assert!(!GlobalBlock::parse(&[]).unwrap().maintenance());
    }

    #[test]
    fn unknown_lines_survive_a_change_in_their_order() {
        let mut block = GlobalBlock::parse(b"first=1\nmaintenance=yes\nodd line\nlast=x\n\0\0").unwrap();
        assert!(block.maintenance());
        block.set_maintenance(false);
        let encoded = block.encode().unwrap();
        assert!(encoded.starts_with(b"first=1\nmaintenance=0\nodd line\nlast=x\n\0"));
        assert_eq!(block.unknown_lines(), ["first=1", "odd line", "last=x"]);
        assert_eq!(GlobalBlock::parse(&encoded).unwrap(), block);
    }

    #[test]
    fn a_doubled_line_becomes_one() {
        let mut block = GlobalBlock::parse(b"maintenance=1\nmaintenance=0").unwrap();
        assert!(!block.maintenance(), "the last one counts");
        block.set_maintenance(true);
        assert!(block.encode().unwrap().starts_with(b"maintenance=1\0"));
    }

    #[test]
    fn errors_name_the_line_and_the_byte() {
        let error = GlobalBlock::parse(b"a=b\nmaintenance=maybe").unwrap_err();
        assert_eq!(error, GlobalError::Maintenance { line: 2, value: "maybe".into() });
        assert!(error.to_string().contains("line 2"));
        assert_eq!(
            GlobalBlock::parse(b"maint\x01").unwrap_err(),
            GlobalError::NotText { offset: 5, byte: 1 }
        );
        assert_eq!(GlobalBlock::parse(b"a\0b").unwrap_err(), GlobalError::NotText { offset: 1, byte: 0 });
    }

    #[test]
    fn a_full_block_refuses_one_more_line() {
        let mut block = GlobalBlock::parse(&[b'x'; BLOCK_SIZE]).unwrap();
        block.set_maintenance(true);
        assert_eq!(block.encode().unwrap_err(), GlobalError::TooLong { len: BLOCK_SIZE + 14 });
    }
}
