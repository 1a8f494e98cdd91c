//! Reads what the guest wrote to its disk: one record a second, each with the boot that wrote it. With one writer at
//! a time, the records of each boot form one unbroken run; two writers at once would mix theirs.
//!
//! The ring's layout is described in `etc/sandbox/guest-writer`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SECTOR: u64 = 512;
const FIRST: u64 = 2048;
const RECORDS: u64 = 16384;

/// What the disk says about who wrote to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writers {
    /// Records found.
    pub records: usize,
    /// Boots in the order in which they wrote.
    pub boots: Vec<String>,
    /// A boot that wrote again after another one had: more than one writer.
    pub mixed: Option<String>,
}

/// Reads the ring of a disk.
pub fn read(disk: &Path) -> io::Result<Writers> {
    let file = File::open(disk)?;
    let mut ring = vec![0; usize::try_from(RECORDS * SECTOR).map_err(io::Error::other)?];
    file.read_exact_at(&mut ring, FIRST * SECTOR)?;
    Ok(judge(ring.chunks_exact(512).filter_map(record)))
}

/// The number and the boot id of a record.
fn record(sector: &[u8]) -> Option<(u64, String)> {
    let text = std::str::from_utf8(sector.split(|byte| *byte == 0).next()?).ok()?;
    let mut words = text.strip_prefix("engine-record ")?.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.to_owned()))
}

fn judge(records: impl Iterator<Item = (u64, String)>) -> Writers {
    let ordered: BTreeMap<u64, String> = records.collect();
    let (mut boots, mut mixed) = (Vec::<String>::new(), None);
    for boot in ordered.values() {
        if boots.last() != Some(boot) {
            if boots.contains(boot) {
                mixed.get_or_insert_with(|| boot.clone());
            }
            boots.push(boot.clone());
        }
    }
    Writers { records: ordered.len(), boots, mixed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(text: &str) -> Vec<u8> {
        let mut sector = text.as_bytes().to_vec();
        sector.resize(512, 0);
        sector
    }

    #[test]
    fn a_record_is_read_as_the_guest_writes_it() {
        let boot = "0de2be81-67a6-4bb7-b615-e7628c813796";
        assert_eq!(record(&sector(&format!("engine-record 5 {boot} 6.01\n"))), Some((5, boot.to_owned())));
        assert_eq!(record(&sector("")), None);
        assert_eq!(record(&sector("engine-record x y")), None);
    }

    #[test]
    fn one_writer_after_another_is_fine_and_two_at_once_are_not() {
        let records = |boots: &str| judge((1..).zip(boots.chars().map(|boot| boot.to_string())));
        assert_eq!(records("aaabbc").mixed, None);
        assert_eq!(records("aaabbc").boots, ["a", "b", "c"]);
        assert_eq!(records("aababb").mixed.as_deref(), Some("a"));
        assert_eq!(records("").records, 0);
    }
}
