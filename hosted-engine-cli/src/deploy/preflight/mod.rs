//! Pre-flight: everything that would stop a deployment later, or make its cluster a bad one, found at once and before
//! anything is changed.
//!
//! The checks run side by side, each asks programs that are ended when they take too long, and each turns what it was
//! told into [`Finding`]s by a function without any I/O. What needs the storage to be mounted is asked afterwards:
//! [`connected_storage`].

mod certificates;
mod leftovers;
mod locks;
mod names;
mod network;
mod ports;
mod security;
mod storage;
#[cfg(test)]
mod tests;
mod time;
mod vdsm;
mod virtualisation;

use std::path::Path;
use std::time::Duration;

use clock::{Clock as _, Monotonic, SystemClock};
use ha_config::Paths;
use ha_config::ha_toml::Hypervisor;

use super::tools::{Said, ToolError};
use super::{Call, Request, Tools, World};

/// All checks together take less.
const WHOLE: Duration = Duration::from_secs(50);
/// One program takes less.
const EACH: Duration = Duration::from_secs(15);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The deployment would fail, or do harm: it does not begin.
    Blocker,
    /// It works, but less well than it should.
    Warning,
    /// Good to know.
    Note,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was seen.
    pub what: String,
    /// What to do.
    pub advice: String,
}

impl Finding {
    fn blocker(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Blocker, what: what.into(), advice: advice.into() }
    }

    fn warning(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, what: what.into(), advice: advice.into() }
    }

    fn note(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Note, what: what.into(), advice: advice.into() }
    }
}

/// `what: advice`
impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.advice)
    }
}

/// What a check may use.
#[derive(Clone, Copy)]
struct Host<'a> {
    paths: &'a Paths,
    tools: &'a dyn Tools,
    request: &'a Request,
}

impl Host<'_> {
    /// Who runs the VM.
    fn hypervisor(&self) -> Hypervisor {
        self.request.hypervisor()
    }

    fn storage(&self) -> &super::Storage {
        match self.request {
            Request::FirstHost(first) => &first.storage,
            Request::FurtherHost(further) => &further.storage,
        }
    }

    /// What it said; [`None`] when it is not installed, failed or took too long.
    fn hear(&self, call: &Call) -> Option<String> {
        self.tools.ask(call).ok().filter(|said| said.code == 0).map(|said| said.out)
    }
}

/// Programs that must hurry.
struct Hasty<'a> {
    tools: &'a dyn Tools,
    end: Monotonic,
}

impl Tools for Hasty<'_> {
    fn ask(&self, call: &Call) -> Result<Said, ToolError> {
        let left = self.end.saturating_since(SystemClock.monotonic());
        self.tools.ask(&call.clone().within(call.deadline.min(EACH).min(left)))
    }
}

/// Looks at everything that can be seen before the storage is connected; the worst first. Changes nothing, and takes
/// less than a minute.
pub fn check(world: &World<'_>) -> Vec<Finding> {
    let tools = Hasty { tools: world.tools, end: SystemClock.monotonic().plus(WHOLE) };
    let host = Host { paths: world.paths, tools: &tools, request: world.request };
    let checks: [fn(&Host<'_>) -> Vec<Finding>; 12] = [
        virtualisation::check,
        virtualisation::check_size,
        names::check,
        network::check,
        network::check_firewall,
        time::check,
        storage::check,
        locks::check,
        certificates::check,
        vdsm::check,
        ports::check,
        security::check,
    ];
    let mut found = std::thread::scope(|scope| {
        let threads: Vec<_> = checks.iter().map(|check| scope.spawn(move || check(&host))).collect();
        let mut found = leftovers::check(&host);
        for thread in threads {
            found.extend(thread.join().unwrap_or_else(|_| {
                vec![Finding::warning(
                    "one of the checks ended by an error of this program",
                    "see the log, and report it",
                )]
            }));
        }
        found
    });
    found.sort();
    found
}

/// Looks at the storage alone, before it is connected. Changes nothing.
pub fn storage(world: &World<'_>) -> Vec<Finding> {
    let tools = Hasty { tools: world.tools, end: SystemClock.monotonic().plus(WHOLE) };
    storage::check(&Host { paths: world.paths, tools: &tools, request: world.request })
}

/// Looks at storage that is mounted at `directory`: whether those who must can write to it, directly and in sectors of
/// 512 bytes, and whether there is enough space. What is written is removed.
pub fn connected_storage(world: &World<'_>, directory: &Path) -> Vec<Finding> {
    let tools = Hasty { tools: world.tools, end: SystemClock.monotonic().plus(WHOLE) };
    let host = Host { paths: world.paths, tools: &tools, request: world.request };
    storage::check_connected(&host, directory)
}
