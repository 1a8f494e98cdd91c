//! Whole seconds of the host's monotonic clock, the only time that decisions know.
//!
//! Pure data: reads no clock. Readings of two hosts are never compared with each other.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whole seconds since the host's monotonic clock started. The form that host blocks carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secs(pub u64);

impl Secs {
    /// Seconds from `earlier` to here; 0 when `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This instant moved by `secs` into the future.
    #[must_use]
    pub const fn plus(self, secs: u64) -> Self {
        Self(self.0.saturating_add(secs))
    }

    /// The instant on the wall clock: seconds since 1970, with `wall_offset` = wall clock − monotonic clock.
    pub const fn on_wall(self, wall_offset: i64) -> i64 {
        wall_offset.saturating_add_unsigned(self.0)
    }
}

impl From<clock::Monotonic> for Secs {
    fn from(reading: clock::Monotonic) -> Self {
        Self(reading.as_secs())
    }
}

impl fmt::Display for Secs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
