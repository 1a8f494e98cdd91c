//! Busy share of the host's processors without what the engine VM itself uses: what another host would be spared
//! of by not running it does not count against running it here.
//!
//! The first result is an average over 10 s, the later ones over 60 s. The engine's part comes from the
//! hypervisor, which may have no true figure right after a start (VDSM gives zeros for some 90 s): without one the
//! last load stands, for up to 300 s, rather than the engine's own boot being taken for foreign load.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clock::{Clock, Monotonic};
use engine_vm::{CpuUse, EngineVm, VmError};
use tokio::time;

use super::cpu::Ticks;
use super::memory::ReadProc;
use super::probe::{Probe, Reading};

/// Length of the first average.
const FIRST: Duration = Duration::from_secs(10);
/// Length of each further average.
const EACH: Duration = Duration::from_mins(1);
/// How long the last load stands in while the hypervisor has no true figure.
const HOLD_OFF: Duration = Duration::from_mins(5);
/// How long the hypervisor may take to answer.
const ASK: Duration = Duration::from_secs(5);

/// What the hypervisor says about the VM's processor time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EngineTime {
    /// There is no VM here.
    NoVm,
    /// It has used this much since it started.
    Used(Duration),
    /// It kept so many processors busy lately.
    Busy(f64),
    /// Nobody knows.
    Unknown,
}

impl From<Result<Option<CpuUse>, VmError>> for EngineTime {
    fn from(answer: Result<Option<CpuUse>, VmError>) -> Self {
        match answer {
            Ok(None) => Self::NoVm,
            Ok(Some(CpuUse::Since(used))) => Self::Used(used),
            Ok(Some(CpuUse::Lately(processors))) => Self::Busy(processors),
            Ok(Some(CpuUse::NotMeasured)) | Err(_) => Self::Unknown,
        }
    }
}

/// Host and VM at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When it was taken.
    pub at: Monotonic,
    /// The host's ticks.
    pub host: Ticks,
    /// The VM's time.
    pub engine: EngineTime,
}

/// The engine's part of the host's processors between two samples, and whether that figure is true.
fn engine_share(from: &Sample, to: &Sample) -> (f64, bool) {
    let capacity = to.at.saturating_since(from.at) * to.host.processors;
    let used = match (from.engine, to.engine) {
        (_, EngineTime::NoVm) => return (0.0, true),
        (_, EngineTime::Unknown) => return (0.0, false),
        // Measured over the hypervisor's own interval, which is near enough.
        (_, EngineTime::Busy(processors)) => {
            return (processors / f64::from(to.host.processors.max(1)), true);
        }
        // A running VM uses some time: a figure that stands still is not a measured one.
        (EngineTime::Used(before), EngineTime::Used(now)) if now > before => now.checked_sub(before),
        (EngineTime::Used(before), EngineTime::Used(now)) if now == before => None,
        // Started in between, so that all its time is ours to count; unless it is more than can be.
        (EngineTime::NoVm | EngineTime::Used(_) | EngineTime::Busy(_), EngineTime::Used(now)) => {
            Some(now).filter(|now| !now.is_zero() && *now <= capacity)
        }
        (EngineTime::Unknown, EngineTime::Used(_)) => None,
    };
    match used {
        Some(used) if !capacity.is_zero() => (used.as_secs_f64() / capacity.as_secs_f64(), true),
        Some(_) | None => (0.0, false),
    }
}

/// Turns samples into loads. Pure.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    last: Option<Sample>,
    load: f64,
    /// When the engine's part was last true, or when it was first missed.
    true_at: Option<Monotonic>,
}

impl Meter {
    /// Takes a sample; gives the load since the one before, 0…1, and why it is not the true one, if it is not.
    /// `None` for the first sample.
    pub fn take(&mut self, sample: Sample) -> Option<(f64, Option<String>)> {
        let before = self.last.replace(sample)?;
        let total = sample.host.busy_share_since(&before.host)?;
        let (engine, is_true) = engine_share(&before, &sample);
        let load = (total - engine).clamp(0.0, 1.0);
        if is_true {
            self.load = load;
            self.true_at = (sample.engine != EngineTime::NoVm).then_some(sample.at);
            return Some((load, None));
        }
        let missing = sample.at.saturating_since(*self.true_at.get_or_insert(sample.at));
        let note = if missing < HOLD_OFF {
            format!(
                "the hypervisor has no true figure of the engine VM's processor time; the last load stands in, \
                 {} s of at most {} s",
                missing.as_secs(),
                HOLD_OFF.as_secs()
            )
        } else {
            self.load = load;
            format!(
                "no true figure of the engine VM's processor time for {} s: its use is counted as foreign load",
                missing.as_secs()
            )
        };
        Some((self.load, Some(note)))
    }
}

/// The monitor.
pub struct CpuLoadNoEngine {
    /// Text of /proc/stat.
    pub stat: ReadProc,
    /// The VM.
    pub vm: Arc<dyn EngineVm>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What was seen so far.
    pub meter: Meter,
}

impl CpuLoadNoEngine {
    async fn sample(&self) -> Result<Sample, String> {
        let engine = time::timeout(ASK, self.vm.cpu_use()).await;
        let text = (self.stat)().map_err(|e| format!("cannot read /proc/stat: {e}"))?;
        Ok(Sample {
            at: self.clock.monotonic(),
            host: Ticks::parse(&text)?,
            engine: engine.map_or(EngineTime::Unknown, EngineTime::from),
        })
    }
}

#[async_trait]
impl Probe for CpuLoadNoEngine {
    async fn measure(&mut self) -> Result<Reading, String> {
        let mut result = self.meter.take(self.sample().await?);
        if result.is_none() {
            time::sleep(FIRST).await;
            result = self.meter.take(self.sample().await?);
        }
        let (load, note) = result.ok_or("/proc/stat stands still")?;
        Ok(Reading::noted(format!("{load:.4}"), note))
    }

    fn interval(&self) -> Duration {
        EACH
    }
}

#[cfg(test)]
#[path = "cpu_no_engine_tests.rs"]
mod tests;
