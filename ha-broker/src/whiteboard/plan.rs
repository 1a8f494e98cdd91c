//! Which blocks to read in a cycle. Pure: no I/O, no clock.
//!
//! Hosts use low numbers, and there is room for 2000: reading all 8 MB each time would be waste. Each cycle reads
//! the blocks that are in use with a margin after each (a new host usually takes the next number), and a piece of
//! the rest that moves on each time, so that any newcomer is found within a bounded number of cycles. The first
//! cycle reads everything.

use std::collections::BTreeSet;
use std::time::Duration;

use metadata_format::{BLOCK_SIZE, MAX_HOST_ID};

/// Blocks read after each block in use, and after block 0.
pub const MARGIN: u16 = 4;

/// Unused blocks between two used ones that are read along: one longer request is cheaper than two.
pub const GAP: u16 = 8;

/// Blocks of the sweep per cycle: 32 KiB. With a cycle of 2 s all 2000 are seen within 8.4 minutes.
pub const SWEEP: u16 = 8;

/// What a host may read per second on average, in bytes; with many hosts the cycle becomes longer instead.
pub const BYTES_PER_SECOND: u64 = 1024 * 1024;

/// The cycle never becomes longer than this: an agent looks each 10 s.
pub const LONGEST_CYCLE: Duration = Duration::from_secs(10);

/// Blocks `first` to `first + count - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRange {
    /// Number of the first.
    pub first: u16,
    /// How many; at least one.
    pub count: u16,
}

impl BlockRange {
    /// Whether `block` is one of them.
    pub const fn contains(self, block: u16) -> bool {
        block >= self.first && block - self.first < self.count
    }

    /// All blocks that the file can have.
    pub const fn all() -> Self {
        Self { first: 0, count: MAX_HOST_ID + 1 }
    }
}

/// The sweep's place. Everything else comes in with each call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Planner {
    /// First block of the next piece; `None` before the first cycle.
    next: Option<u16>,
}

impl Planner {
    /// The ranges of the next cycle, ascending and apart. `used` are the blocks to read in any case: those that
    /// were present, our own, and those of hosts that the lock manager sees.
    pub fn next_cycle(&mut self, used: &BTreeSet<u16>) -> Vec<BlockRange> {
        let Some(start) = self.next else {
            self.next = Some(0);
            return vec![BlockRange::all()];
        };
        let mut wanted: BTreeSet<u16> = std::iter::once(&0)
            .chain(used)
            .flat_map(|block| *block..=block.saturating_add(MARGIN))
            .filter(|block| *block <= MAX_HOST_ID)
            .collect();
        let mut block = start;
        let mut found = 0;
        for _ in 0..=MAX_HOST_ID {
            if wanted.insert(block) {
                found += 1;
            }
            block = if block >= MAX_HOST_ID { 0 } else { block + 1 };
            if found == SWEEP {
                break;
            }
        }
        self.next = Some(block);
        join(&wanted)
    }
}

/// Ranges that cover `blocks`, joined over gaps of at most [`GAP`].
fn join(blocks: &BTreeSet<u16>) -> Vec<BlockRange> {
    let mut ranges: Vec<BlockRange> = Vec::new();
    for block in blocks {
        match ranges.last_mut() {
            Some(last) if *block - (last.first + last.count - 1) <= GAP + 1 => {
                last.count = block - last.first + 1;
            }
            _ => ranges.push(BlockRange { first: *block, count: 1 }),
        }
    }
    ranges
}

/// Of the time, storage answers for this host's reading at most one part in so many: storage that answers slowly has
/// enough to do.
pub const SHARE_OF_TIME: u32 = 8;

/// How long to wait between two cycles that read `bytes` each, which `took` so long: `shortest`, or longer to stay within
/// [`BYTES_PER_SECOND`] and [`SHARE_OF_TIME`].
pub fn cycle_length(bytes: u64, took: Duration, shortest: Duration) -> Duration {
    let by_bytes = Duration::from_secs(bytes / BYTES_PER_SECOND);
    by_bytes.max(took.saturating_mul(SHARE_OF_TIME)).clamp(shortest, LONGEST_CYCLE.max(shortest))
}

/// Bytes that reading `ranges` takes.
pub fn bytes_of(ranges: &[BlockRange]) -> u64 {
    ranges.iter().map(|range| u64::from(range.count) * BLOCK_SIZE as u64).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn used(blocks: &[u16]) -> BTreeSet<u16> {
        blocks.iter().copied().collect()
    }

    #[test]
    fn the_first_cycle_reads_everything_and_the_next_little() {
        let mut planner = Planner::default();
        assert_eq!(planner.next_cycle(&used(&[])), [BlockRange::all()]);
        let second = planner.next_cycle(&used(&[1, 2, 3]));
        assert_eq!(second, [BlockRange { first: 0, count: 16 }], "0…7 with the margin, 8…15 of the sweep");
        let third = planner.next_cycle(&used(&[1, 2, 3]));
        assert_eq!(third, [BlockRange { first: 0, count: 24 }], "the gap is short enough to be read along");
        let fourth = planner.next_cycle(&used(&[1, 2, 3]));
        assert_eq!(fourth, [BlockRange { first: 0, count: 8 }, BlockRange { first: 24, count: 8 }]);
        assert!(bytes_of(&fourth) < 100_000);
    }

    #[test]
    fn a_forgotten_block_far_away_does_not_cost_the_whole_file() {
        let mut planner = Planner { next: Some(0) };
        assert!(bytes_of(&planner.next_cycle(&used(&[1, 2, 2000]))) < 128 * 1024);
    }

    #[test]
    fn with_many_hosts_the_cycle_is_longer_but_never_longer_than_a_loop_of_the_agent() {
        let two = Duration::from_secs(2);
        let quick = Duration::from_millis(20);
        assert_eq!(cycle_length(64 * 1024, quick, two), two);
        assert_eq!(cycle_length(8 * 1024 * 1024, quick, two), Duration::from_secs(8));
        assert_eq!(cycle_length(u64::MAX, quick, two), LONGEST_CYCLE);
    }

    #[test]
    fn slow_storage_is_read_less_often_down_to_once_in_a_loop_of_the_agent() {
        let two = Duration::from_secs(2);
        for (took, pause) in [(249, 2_000), (500, 4_000), (1_000, 8_000), (2_000, 10_000), (60_000, 10_000)] {
            let length = cycle_length(64 * 1024, Duration::from_millis(took), two);
            assert_eq!(length, Duration::from_millis(pause), "{took} ms");
        }
    }

    proptest! {
        #[test]
        fn each_cycle_reads_what_is_used_and_any_newcomer_is_found_in_time(
            blocks in proptest::collection::btree_set(0..=MAX_HOST_ID, 0..40),
            start in 0..=MAX_HOST_ID,
            newcomer in 0..=MAX_HOST_ID,
        ) {
            let mut planner = Planner { next: Some(start) };
            let mut cycles = 0;
            let mut found = false;
            while !found {
                let ranges = planner.next_cycle(&blocks);
                for pair in ranges.windows(2) {
                    prop_assert!(pair[0].first + pair[0].count < pair[1].first);
                }
                for block in std::iter::once(&0).chain(&blocks) {
                    prop_assert!(ranges.iter().any(|range| range.contains(*block)));
                }
                let last = ranges.last().map_or(0, |range| range.first + range.count - 1);
                prop_assert!(last <= MAX_HOST_ID);
                found = ranges.iter().any(|range| range.contains(newcomer));
                cycles += 1;
                prop_assert!(cycles <= u32::from(MAX_HOST_ID / SWEEP) + 2);
            }
        }
    }
}
