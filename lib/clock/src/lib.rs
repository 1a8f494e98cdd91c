//! The one place where time is read.
//!
//! Two clocks matter to a hosted-engine host: the monotonic one, which all decisions use, and the wall
//! clock, which is only ever printed. Everything else receives readings as data, so that tests and the
//! simulator can own time. Waiting is left to the async runtime's timers, which can be paused.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

/// Seconds and nanoseconds since an arbitrary start (boot, with the system clock). Never goes back on one
/// boot of one host; readings of two hosts cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// A reading that lies `since_start` after the clock's start.
    pub const fn from_duration(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// A reading of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// Time since the clock's start.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// Whole seconds since the clock's start: the form that host blocks carry.
    pub const fn as_secs(self) -> u64 {
        self.0.as_secs()
    }

    /// Time passed since `earlier`; zero when `earlier` is not earlier.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This reading moved by `by` into the future.
    #[must_use]
    pub const fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

/// Wall-clock time: seconds since 1970-01-01 UTC. For people's eyes only, never for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub i64);

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where readings come from.
pub trait Clock: Send + Sync {
    /// The monotonic clock.
    fn monotonic(&self) -> Monotonic;
    /// The wall clock.
    fn wall(&self) -> Wall;
}

/// The kernel's `CLOCK_MONOTONIC` and `CLOCK_REALTIME`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn monotonic(&self) -> Monotonic {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let secs = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
        Monotonic(Duration::new(secs, nanos))
    }

    fn wall(&self) -> Wall {
        Wall(rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec)
    }
}

impl SystemClock {
    /// What to take from a time of day, since 1970, to get this clock's monotonic reading of the same moment: for lining
    /// up logs. It changes when the time of day is set.
    pub fn wall_lead(self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let secs = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
        Duration::new(secs, nanos).saturating_sub(self.monotonic().since_start())
    }
}

/// A clock that moves only when told to.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: Mutex<(Monotonic, Wall)>,
}

impl ManualClock {
    /// A clock that stands at the given readings.
    pub const fn new(monotonic: Monotonic, wall: Wall) -> Self {
        Self { now: Mutex::new((monotonic, wall)) }
    }

    /// Moves both readings by `by`. The wall clock moves by whole seconds.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = now.0.as_secs();
        now.0 = now.0.plus(by);
        let moved = now.0.as_secs() - before;
        now.1.0 = now.1.0.saturating_add_unsigned(moved);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Monotonic {
        self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    fn wall(&self) -> Wall {
        self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_clock_moves_both_readings_together() {
        let clock = ManualClock::new(Monotonic::from_secs(10), Wall(1000));
        clock.advance(Duration::from_millis(1500));
        clock.advance(Duration::from_millis(500));
        assert_eq!(clock.monotonic(), Monotonic::from_secs(12));
        assert_eq!(clock.wall(), Wall(1002));
    }

    #[test]
    fn the_system_clock_never_goes_back() {
        let earlier = SystemClock.monotonic();
        assert!(SystemClock.monotonic() >= earlier);
    }
}
