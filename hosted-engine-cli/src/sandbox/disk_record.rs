//! Reads what the guest wrote to its disk: one record a second, each with the boot that wrote it. With one writer at
//! a time, the records of each boot form one unbroken run; two writers at once would mix theirs. Two copies of one guest
//! have the same boot: each writes down the number of its own last record, and would miss the other's.
//!
//! The ring's layout is described in `etc/sandbox/guest-writer`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::lun::Place;

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
    /// A boot that wrote again after another one had, or of which two copies wrote: more than one writer.
    pub mixed: Option<String>,
}

/// Reads the ring of a disk.
pub fn read(disk: &Place) -> io::Result<Writers> {
    let file = File::open(&disk.file)?;
    let mut ring = vec![0; usize::try_from(RECORDS * SECTOR).map_err(io::Error::other)?];
    file.read_exact_at(&mut ring, disk.offset + FIRST * SECTOR)?;
    Ok(judge(ring.chunks_exact(512).filter_map(record)))
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    number: u64,
    boot: String,
    /// Number of the writer's own last one; absent in records of older guests.
    own: Option<u64>,
}

fn record(sector: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(sector.split(|byte| *byte == 0).next()?).ok()?;
    let mut words = text.strip_prefix("engine-record ")?.split_whitespace();
    let (number, boot) = (words.next()?.parse().ok()?, words.next()?.to_owned());
    Some(Record { number, boot, own: words.nth(1).and_then(|own| own.parse().ok()) })
}

fn judge(records: impl Iterator<Item = Record>) -> Writers {
    let ordered: BTreeMap<u64, Record> = records.map(|record| (record.number, record)).collect();
    let (mut boots, mut mixed) = (Vec::<String>::new(), None);
    for Record { number, boot, own } in ordered.values() {
        let is_mixed = if boots.last() == Some(boot) {
            // The one before was written by this boot: by this writer too?
            number.checked_sub(1).is_some_and(|before| ordered.contains_key(&before))
                && own.is_some_and(|own| own + 1 != *number)
        } else {
            let again = boots.contains(boot);
            boots.push(boot.clone());
            again
        };
        if is_mixed {
            mixed.get_or_insert_with(|| boot.clone());
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

    fn found(number: u64, boot: &str, own: Option<u64>) -> Record {
        Record { number, boot: boot.to_owned(), own }
    }

    #[test]
    fn a_record_is_read_as_the_guest_writes_it() {
        let boot = "0de2be81-67a6-4bb7-b615-e7628c813796";
        let read = |words: &str| record(&sector(&format!("engine-record {words}\n")));
        assert_eq!(read(&format!("5 {boot} 6.01 4")), Some(found(5, boot, Some(4))));
        assert_eq!(read(&format!("5 {boot} 6.01")), Some(found(5, boot, None)));
        assert_eq!(record(&sector("")), None);
        assert_eq!(read("x y"), None);
    }

    #[test]
    fn one_writer_after_another_is_fine_and_two_at_once_are_not() {
        let records =
            |boots: &str| judge((1..).zip(boots.chars()).map(|(n, boot)| found(n, &boot.to_string(), None)));
        assert_eq!(records("aaabbc").mixed, None);
        assert_eq!(records("aaabbc").boots, ["a", "b", "c"]);
        assert_eq!(records("aababb").mixed.as_deref(), Some("a"));
        assert_eq!(records("").records, 0);
    }

    #[test]
    fn two_copies_of_one_guest_miss_records_of_their_own() {
        let records =
            |owns: &[u64]| judge((5..).zip(owns).map(|(number, own)| found(number, "a", Some(*own))));
        // The first follows another boot's.
        assert_eq!(records(&[0, 5, 6, 7]).mixed, None);
        assert_eq!(records(&[0, 5, 5, 7]).mixed.as_deref(), Some("a"));
        // A record that failed is tried again with the same number.
        let all = [found(5, "a", Some(0)), found(7, "a", Some(5))];
        assert_eq!(judge(all.into_iter()).mixed, None);
    }
}
