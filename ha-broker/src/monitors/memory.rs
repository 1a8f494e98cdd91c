//! Memory of the host, from /proc/meminfo: how much a VM could get, and which share is in use.

use async_trait::async_trait;

use super::probe::{Probe, Reading};

/// Reads the text of a file in /proc; a closure so that tests give their own.
pub type ReadProc = Box<dyn Fn() -> std::io::Result<String> + Send + Sync>;

/// A reader of the real file. /proc never blocks.
pub fn proc_file(path: &'static str) -> ReadProc {
    Box::new(move || std::fs::read_to_string(path))
}

/// What is of interest in /proc/meminfo, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemInfo {
    /// All memory.
    pub total: u64,
    /// What new programs can have without swapping: free memory and most of the caches.
    pub available: u64,
}

impl MemInfo {
    /// From the file's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| {
                    line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok()
                })
                .ok_or_else(|| format!("/proc/meminfo has no usable field {name}"))
        };
        Ok(Self { total: field("MemTotal")?, available: field("MemAvailable")? })
    }
}

/// Which of the two results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryResult {
    /// Whole MB (2²⁰ bytes) that a VM could get.
    FreeMb,
    /// Share in use, four decimals.
    Load,
}

/// The monitors `mem-free` and `mem-load`.
pub struct Memory {
    /// What to give.
    pub result: MemoryResult,
    /// Where the figures come from.
    pub meminfo: ReadProc,
}

#[async_trait]
impl Probe for Memory {
    async fn measure(&mut self) -> Result<Reading, String> {
        let text = (self.meminfo)().map_err(|e| format!("cannot read /proc/meminfo: {e}"))?;
        let MemInfo { total, available } = MemInfo::parse(&text)?;
        Ok(match self.result {
            MemoryResult::FreeMb => Reading::plain(available / 1024),
            MemoryResult::Load => {
                #[allow(clippy::cast_precision_loss, reason = "a share of four decimals")]
                let share = total.saturating_sub(available) as f64 / total.max(1) as f64;
                Reading::plain(format!("{share:.4}"))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "MemTotal:       8000000 kB\nMemFree:         100000 kB\nMemAvailable:    2000000 kB\n";

    async fn measure(result: MemoryResult, text: &'static str) -> Result<Reading, String> {
        Memory { result, meminfo: Box::new(|| Ok(text.to_owned())) }.measure().await
    }

    #[tokio::test]
    async fn caches_count_as_free() {
        assert_eq!(measure(MemoryResult::FreeMb, TEXT).await, Ok(Reading::plain("1953")));
        assert_eq!(measure(MemoryResult::Load, TEXT).await, Ok(Reading::plain("0.7500")));
    }

    #[tokio::test]
    async fn a_missing_field_is_named() {
        let error = measure(MemoryResult::FreeMb, "MemTotal: 1 kB\nMemAvailable: x kB\n").await.unwrap_err();
        assert_eq!(error, "/proc/meminfo has no usable field MemAvailable");
    }

    #[tokio::test]
    async fn this_machine_has_memory() {
        let mut memory = Memory { result: MemoryResult::FreeMb, meminfo: proc_file("/proc/meminfo") };
        assert!(memory.measure().await.unwrap().value.parse::<u64>().unwrap() > 0);
    }
}
