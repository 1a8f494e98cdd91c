//! Load of the host's processors, from /proc: the load average, and the ticks that the finer monitor counts.

use async_trait::async_trait;

use super::memory::ReadProc;
use super::probe::{Probe, Reading};

/// Processor time since boot, of all processors together, in kernel ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticks {
    /// All time.
    pub total: u64,
    /// Time that was neither idle nor waiting for I/O. A guest's time is inside.
    pub busy: u64,
    /// Number of processors that are online.
    pub processors: u32,
}

impl Ticks {
    /// From the text of /proc/stat.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || "/proc/stat has no usable line for all processors".to_owned();
        let mut lines = text.lines();
        let all = lines.next().and_then(|line| line.strip_prefix("cpu ")).ok_or_else(bad)?;
        // user, nice, system, idle, iowait, irq, softirq, steal. What follows, the time of guests, is already
        // inside user and nice.
        let fields: Vec<u64> =
            all.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().map_err(|_| bad())?;
        let [_, _, _, idle, waiting, ..] = fields[..] else { return Err(bad()) };
        let total: u64 = fields.iter().sum();
        let processors = lines.take_while(|line| line.starts_with("cpu")).count();
        let processors = u32::try_from(processors).ok().filter(|n| *n > 0).ok_or_else(bad)?;
        Ok(Self { total, busy: total - idle - waiting, processors })
    }

    /// Busy share of the time since `earlier`; `None` when no time has passed.
    pub fn busy_share_since(&self, earlier: &Self) -> Option<f64> {
        let total = self.total.checked_sub(earlier.total).filter(|ticks| *ticks > 0)?;
        #[allow(clippy::cast_precision_loss, reason = "a share of four decimals")]
        Some(self.busy.saturating_sub(earlier.busy) as f64 / total as f64)
    }
}

/// The monitor `cpu-load` of the founding design: the one-minute load average for each processor.
pub struct CpuLoad {
    /// Text of /proc/loadavg.
    pub loadavg: ReadProc,
    /// Text of /proc/stat.
    pub stat: ReadProc,
}

#[async_trait]
impl Probe for CpuLoad {
    async fn measure(&mut self) -> Result<Reading, String> {
        let text = (self.loadavg)().map_err(|e| format!("cannot read /proc/loadavg: {e}"))?;
        let stat = (self.stat)().map_err(|e| format!("cannot read /proc/stat: {e}"))?;
        let average: f64 = text
            .split_whitespace()
            .next()
            .and_then(|field| field.parse().ok())
            .ok_or("/proc/loadavg does not begin with a number")?;
        let load = average / f64::from(Ticks::parse(&stat)?.processors);
        Ok(Reading::plain(format!("{load:.4}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 10 50 800 40 1 2 3 99 9\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";

    #[test]
    fn guest_time_is_not_counted_twice_and_waiting_is_idle() {
        let ticks = Ticks::parse(STAT).unwrap();
        assert_eq!(ticks, Ticks { total: 1006, busy: 166, processors: 2 });
        let later = Ticks { total: 2006, busy: 416, ..ticks };
        assert_eq!(later.busy_share_since(&ticks), Some(0.25));
        assert_eq!(ticks.busy_share_since(&ticks), None);
    }

    #[test]
    fn a_foreign_text_is_refused() {
        for text in ["", "cpu \n", "cpu 1 2 x 4 5\ncpu0\n", "cpu 1 2 3 4 5 6 7 8\nintr\n"] {
            assert!(Ticks::parse(text).is_err(), "{text:?}");
        }
    }

    #[tokio::test]
    async fn load_is_for_each_processor() {
        let loadavg: ReadProc = Box::new(|| Ok("3.00 2.00 1.00 1/234 5678\n".to_owned()));
        let mut load = CpuLoad { loadavg, stat: Box::new(|| Ok(STAT.to_owned())) };
        assert_eq!(load.measure().await, Ok(Reading::plain("1.5000")));
    }
}
