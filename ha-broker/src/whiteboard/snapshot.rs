//! What was last seen of the shared metadata file. Data only: no I/O, no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use clock::Monotonic;

use super::{Block, Reading, StorageError};

/// One block as last seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its bytes; the last good ones when it cannot be read now.
    pub bytes: Arc<Block>,
    /// When it was last read.
    pub read_at: Monotonic,
    /// When it was last found changed, or new; `None` before that.
    pub changed_at: Option<Monotonic>,
}

/// All blocks.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The blocks that are present.
    pub blocks: BTreeMap<u16, Seen>,
    /// Blocks that storage does not give although it gives others, with the reason.
    pub unreadable: BTreeMap<u16, StorageError>,
    /// When the last good read ended; `None` before the first.
    pub read_at: Option<Monotonic>,
    /// When that read began: whatever was on storage before is in it.
    pub read_began: Option<Monotonic>,
    /// Whole blocks that the file had room for at the last good read.
    pub file_blocks: u64,
    /// When a block was last written from here: a reading that began earlier knows nothing newer about it.
    written_at: BTreeMap<u16, Monotonic>,
}

impl Snapshot {
    /// Takes over a reading that began at `started`. Gives the highest block that was present and now lies beyond the end of the file;
    /// such blocks are kept.
    pub fn take(&mut self, reading: Reading, started: Monotonic, now: Monotonic) -> Option<u16> {
        self.written_at.retain(|_, at| *at >= started);
        let newer = std::mem::take(&mut self.written_at);
        let known = |block: &u16| !newer.contains_key(block);
        let present: BTreeMap<u16, Box<Block>> =
            reading.present.into_iter().filter(|(block, _)| known(block)).collect();
        let unreadable: BTreeMap<u16, StorageError> =
            reading.unreadable.into_iter().filter(|(block, _)| known(block)).collect();
        for range in &reading.covered {
            let inside = range.first..range.first + range.count;
            self.unreadable.retain(|block, _| !inside.contains(block));
            self.blocks.retain(|block, _| {
                !(inside.contains(block) && known(block))
                    || present.contains_key(block)
                    || unreadable.contains_key(block)
            });
        }
        let first = self.read_at.is_none();
        for (block, bytes) in present {
            self.put(block, bytes, now, first);
        }
        self.unreadable.extend(unreadable);
        self.written_at = newer;
        self.read_at = Some(now);
        self.read_began = Some(started);
        self.file_blocks = reading.file_blocks;
        self.blocks.keys().next_back().copied().filter(|block| u64::from(*block) >= self.file_blocks)
    }

    /// Takes over one block that was written and read back.
    pub fn take_written(&mut self, block: u16, bytes: &Block, now: Monotonic) {
        self.unreadable.remove(&block);
        self.written_at.insert(block, now);
        if bytes[0] == 0 {
            self.blocks.remove(&block);
        } else {
            self.put(block, Box::new(*bytes), now, false);
        }
    }

    fn put(&mut self, block: u16, bytes: Box<Block>, now: Monotonic, first_look: bool) {
        match self.blocks.get_mut(&block) {
            Some(seen) if *seen.bytes == *bytes => seen.read_at = now,
            before => {
                let changed_at = (before.is_some() || !first_look).then_some(now);
                self.blocks.insert(block, Seen { bytes: Arc::from(bytes), read_at: now, changed_at });
            }
        }
    }

    /// The cluster's block; empty when it is absent.
    pub fn cluster(&self) -> Option<&Block> {
        self.blocks.get(&super::CLUSTER_BLOCK).map(|seen| &*seen.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BlockRange, zero_block};
    use super::*;

    fn reading(count: u16, blocks: &[(u16, u8)]) -> Reading {
        let present = blocks.iter().map(|(block, value)| {
            let mut bytes = zero_block();
            bytes[0] = *value;
            (*block, Box::new(bytes))
        });
        Reading {
            covered: vec![BlockRange { first: 0, count }],
            present: present.collect(),
            file_blocks: count.into(),
            ..Reading::default()
        }
    }

    const fn at(secs: u64) -> Monotonic {
        Monotonic::from_secs(secs)
    }

    #[test]
    fn changes_newcomers_and_blocks_that_went_are_told_apart() {
        let mut snapshot = Snapshot::default();
        snapshot.take(reading(10, &[(1, 7), (2, 7)]), at(1), at(1));
        assert!(
            snapshot.blocks.values().all(|seen| seen.changed_at.is_none()),
            "the first look sees no change"
        );
        snapshot.take(reading(10, &[(1, 7), (2, 8), (3, 1)]), at(5), at(5));
        let changed: Vec<_> = snapshot.blocks.values().map(|seen| seen.changed_at).collect();
        assert_eq!(changed, [None, Some(at(5)), Some(at(5))]);
        snapshot.take(reading(10, &[(3, 1)]), at(9), at(9));
        assert_eq!(snapshot.blocks.keys().copied().collect::<Vec<_>>(), [3]);
        assert_eq!(snapshot.blocks[&3].changed_at, Some(at(5)));
    }

    #[test]
    fn a_reading_that_began_before_a_write_does_not_undo_it() {
        let mut snapshot = Snapshot::default();
        let mut written = zero_block();
        written[0] = 9;
        snapshot.take_written(3, &written, at(5));
        snapshot.take(reading(10, &[(1, 7)]), at(4), at(6));
        assert_eq!(snapshot.blocks[&3].bytes[0], 9, "the reading had not seen the block yet");
        snapshot.take(reading(10, &[(1, 7), (3, 8)]), at(4), at(6));
        assert_eq!(snapshot.blocks[&3].bytes[0], 9, "the reading had seen what was there before");
        snapshot.take(reading(10, &[(1, 7), (3, 8)]), at(7), at(8));
        assert_eq!(snapshot.blocks[&3].bytes[0], 8, "a later one counts");
    }

    #[test]
    fn a_truncated_file_is_noticed_and_costs_no_row() {
        let mut snapshot = Snapshot::default();
        assert_eq!(snapshot.take(reading(10, &[(1, 7), (5, 7)]), at(1), at(1)), None);
        assert_eq!(snapshot.take(reading(3, &[(1, 8)]), at(2), at(2)), Some(5));
        assert_eq!(snapshot.blocks.len(), 2);
        assert_eq!(snapshot.blocks[&1].changed_at, Some(at(2)));
        assert_eq!(snapshot.blocks[&5].read_at, at(1));
    }

    #[test]
    fn a_block_that_cannot_be_read_keeps_its_last_bytes() {
        let mut snapshot = Snapshot::default();
        snapshot.take(reading(10, &[(1, 7), (2, 7)]), at(1), at(1));
        let mut bad = reading(10, &[(1, 8)]);
        bad.unreadable.push((2, StorageError::Missing { file: "x".into() }));
        snapshot.take(bad, at(2), at(2));
        assert_eq!(snapshot.blocks[&2].bytes[0], 7);
        assert!(snapshot.unreadable.contains_key(&2));
        snapshot.take(reading(10, &[(1, 8), (2, 9)]), at(3), at(3));
        assert!(snapshot.unreadable.is_empty());
    }
}
