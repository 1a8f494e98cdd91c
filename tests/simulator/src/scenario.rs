//! Scenario files: a script for people, and what must come of it.
//!
//! ```text
//! # The VM's host loses its power.          what it shows: the first comment lines
//! hosts = 3                                 the cluster; also watchdog = no, seed = 7, end = 10m,
//! set lease.io_timeout = 10                 breaks = one-writer; `set` gives any key of ha.toml
//!
//!   0s  boot all                            the script: time and command
//! 200s  expect healthy
//! 210s  power-off vm-host
//! 210s  expect healthy within 5m
//! --- log
//! …                                         every decision with its reason, and every event, as they must come
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_config::{HaToml, Paths};

use crate::command::{BadStep, Step, parse_time};
use crate::invariant::Promise;
use crate::run::{Plan, PlanError, Report, run};
use crate::text;
use crate::world::Shape;

/// Stands between the script and the log.
const DIVIDER: &str = "--- log";
/// Time after the last step, when the file does not say when the run ends.
const AFTERMATH: Duration = Duration::from_secs(30);

/// A scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What it shows.
    pub title: String,
    /// What is run.
    pub plan: Plan,
    /// The log that must come of it; `None` when the file has none yet.
    pub log: Option<String>,
    /// The file up to the log, as it is.
    source: String,
}

/// A scenario that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read {}: {reason}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// A line is not understood.
    #[error("line {line}: {reason}")]
    Line {
        /// Number, from 1.
        line: usize,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A setting of the hosts is not possible.
    #[error("the hosts' settings: {0}")]
    Settings(String),
    /// It cannot be run.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// Which line is wrong, and what to do.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path)
            .map_err(|reason| ScenarioError::Read { path: path.to_owned(), reason })?;
        Self::parse(&text)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// Which line is wrong, and what to do.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let (source, log) = match text.split_once(&format!("{DIVIDER}\n")) {
            Some((source, log)) => (source, Some(log.to_owned())),
            None => (text, None),
        };
        let mut header = Header::default();
        let mut title = Vec::new();
        let mut script = Vec::new();
        for (number, line) in (1..).zip(source.lines()) {
            let bad = |reason: String| ScenarioError::Line { line: number, reason };
            let line = line.trim();
            if let Some(comment) = line.strip_prefix('#') {
                if script.is_empty() {
                    title.push(comment.trim());
                }
            } else if line.is_empty() {
            } else if let Some((key, value)) = line.split_once('=') {
                header.set(key.trim(), value.trim()).map_err(bad)?;
            } else {
                script.push(Step::parse(line).map_err(|error: BadStep| bad(error.to_string()))?);
            }
        }
        let toml = HaToml::parse(&Paths::default(), &header.toml)
            .map_err(|error| ScenarioError::Settings(error.to_string()))?;
        let last =
            script.iter().map(|step| step.at + step.lasts.unwrap_or_default()).max().unwrap_or_default();
        let plan = Plan {
            shape: Shape {
                hosts: header.hosts,
                toml,
                has_watchdog: header.watchdog,
                stalled_vm_cannot_die: header.watchdog,
                seed: header.seed,
            },
            script,
            end: header.end.unwrap_or(last + AFTERMATH),
            ends_well: header.ends_well,
            breaks: header.breaks,
        };
        Ok(Self { title: title.join(" "), plan, log, source: source.to_owned() })
    }

    /// Runs it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(&self) -> Result<Report, ScenarioError> {
        Ok(run(&self.plan)?)
    }

    /// The whole file with the log of `report`.
    pub fn with_log(&self, report: &Report) -> String {
        format!("{}{DIVIDER}\n{}", self.source, text::log(report))
    }

    /// A scenario file that does what a plan does.
    pub fn write(title: &str, plan: &Plan) -> String {
        let mut text = format!("# {title}\nhosts = {}\nseed = {}\n", plan.shape.hosts, plan.shape.seed);
        let Shape { toml, has_watchdog, .. } = &plan.shape;
        if !has_watchdog {
            text.push_str("watchdog = no\n");
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "set lease.io_timeout = {}", toml.lease.io_timeout);
        let _ = writeln!(text, "set lease.watchdog_timeout = {}", toml.lease.watchdog_timeout);
        if toml.score.profile == ha_config::ha_toml::ScoreProfile::Founding {
            text.push_str("set score.profile = \"founding\"\n");
        }
        if plan.ends_well {
            text.push_str("ends = well\n");
        }
        let _ = writeln!(text, "end = {}\n", crate::command::Time(plan.end));
        for step in &plan.script {
            let _ = writeln!(text, "{step}");
        }
        text
    }
}

struct Header {
    hosts: u16,
    seed: u64,
    watchdog: bool,
    end: Option<Duration>,
    ends_well: bool,
    breaks: Vec<Promise>,
    /// ha.toml in the making.
    toml: String,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            hosts: 3,
            seed: 1,
            watchdog: true,
            end: None,
            ends_well: false,
            breaks: Vec::new(),
            toml: String::new(),
        }
    }
}

impl Header {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let wrong = |expected: &str| format!("{key} = {value}: {expected}");
        if let Some(key) = key.strip_prefix("set ") {
            // Dotted keys of one table may stand anywhere in the file.
            // Writing to a string cannot fail.
            let _ = writeln!(self.toml, "{} = {value}", key.trim());
            return Ok(());
        }
        match key {
            "hosts" => {
                self.hosts = value
                    .parse()
                    .ok()
                    .filter(|hosts| (1..=64).contains(hosts))
                    .ok_or_else(|| wrong("a number of hosts from 1 to 64"))?;
            }
            "seed" => self.seed = value.parse().map_err(|_| wrong("a whole number"))?,
            "watchdog" => {
                self.watchdog = match value {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(wrong("yes or no")),
                }
            }
            "end" => self.end = Some(parse_time(value).ok_or_else(|| wrong("a time, as 10m"))?),
            "ends" if value == "well" => self.ends_well = true,
            "breaks" => {
                let promise = Promise::find(value).ok_or_else(|| {
                    wrong(&format!("one of {}", Promise::ALL.map(Promise::name).join(", ")))
                })?;
                self.breaks.push(promise);
            }
            "policy" => match value {
                "plain" => self.toml.push_str(&plain_policy()),
                "better" => {}
                _ => return Err(wrong("plain or better")),
            },
            _ => {
                return Err(format!(
                    "there is no setting {key:?}; known are hosts, seed, watchdog, end, ends, breaks, policy and \
                     set TABLE.KEY"
                ));
            }
        }
        Ok(())
    }
}

/// ha.toml with all policy switches off: how the existing release decides.
pub fn plain_policy() -> String {
    HaToml::POLICY_KEYS.iter().fold(String::new(), |mut text, key| {
        let _ = writeln!(text, "policy.{key} = false");
        text
    })
}
