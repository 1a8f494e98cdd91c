//! A host's clocks: the monotonic one runs a little fast or slow and starts anew at each boot; the wall clock may step.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::{Clock, Monotonic, Wall};
use tokio::time::Instant;

/// Wall clock at the begin of each run: 2026-01-01 00:00:00 UTC.
const EPOCH: i64 = 1_767_225_600;

/// The clocks of one host.
#[derive(Debug)]
pub struct HostClock(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    world_began: Instant,
    booted: Instant,
    /// Parts per million by which it is fast.
    rate: i32,
    /// Seconds by which the wall clock was set wrong.
    step: i64,
}

impl HostClock {
    /// Right clocks of a host that boots when the world begins.
    pub fn new(world_began: Instant) -> Self {
        Self(Mutex::new(Inner { world_began, booted: world_began, rate: 0, step: 0 }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host boots now: its monotonic clock starts anew.
    pub fn boot(&self) {
        self.lock().booted = Instant::now();
    }

    /// It is fast by so many parts per million from its boot on; slow when negative.
    pub fn set_rate(&self, rate: i32) {
        self.lock().rate = rate;
    }

    /// Its wall clock is set forward by so many seconds; back when negative.
    pub fn step(&self, secs: i64) {
        let mut inner = self.lock();
        inner.step = inner.step.saturating_add(secs);
    }

    /// The world's time while `time` passes on this clock.
    pub fn real(&self, time: Duration) -> Duration {
        time.mul_f64(1.0 / (1.0 + f64::from(self.lock().rate) / 1e6))
    }
}

impl Clock for HostClock {
    fn monotonic(&self) -> Monotonic {
        let inner = self.lock();
        let up = inner.booted.elapsed();
        let drift =
            i64::try_from(up.as_nanos() / 1_000_000).unwrap_or(i64::MAX).saturating_mul(inner.rate.into());
        let up = if drift < 0 {
            up.saturating_sub(Duration::from_nanos(drift.unsigned_abs()))
        } else {
            up + Duration::from_nanos(drift.unsigned_abs())
        };
        // As if the firmware and the kernel had taken a moment.
        Monotonic::from_duration(Duration::from_secs(20) + up)
    }

    fn wall(&self) -> Wall {
        let inner = self.lock();
        let passed = i64::try_from(inner.world_began.elapsed().as_secs()).unwrap_or(i64::MAX);
        Wall(EPOCH.saturating_add(passed).saturating_add(inner.step))
    }
}
