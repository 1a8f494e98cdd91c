//! What the service counts, for the metrics page.

use std::time::Duration;

/// Counts for the metrics page.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Counters {
    /// Reads that came back good.
    pub reads: u64,
    /// Reads that failed or missed their deadline.
    pub read_failures: u64,
    /// Bytes read in cycles since the start.
    pub read_bytes: u64,
    /// Bytes that the last good cycle read.
    pub last_cycle_bytes: u64,
    /// Time that all good reads took, and the last one.
    pub read_time: Duration,
    /// Time that the last good read took.
    pub last_read_time: Duration,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Writes that were not.
    pub write_failures: u64,
    /// Time that all acknowledged writes took, with the reading back.
    pub write_time: Duration,
    /// Time that the last one took.
    pub last_write_time: Duration,
}
