//! Scenario files: a script for people, and what must come of it.
//!
//! ```text
//! # The VM's host loses its power.          what it shows: the first comment lines
//! hosts = 3                                 the cluster; also watchdog = no, seed = 7, end = 10m,
//! set lease.io_timeout = 10                 breaks = one-writer, stalled-vm = dies; `set` gives any key of
//!                                           ha.toml, `agent` any key of agent.conf's section [score]
//!
//!   0s  boot all                            the script: time and command
//! 200s  expect healthy
//! 210s  power-off vm-host
//! 210s  expect healthy within 5m
//! --- log
//! …                                         every decision with its reason, and every event, as they must come
//! ```

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_config::{AgentConf, ConfigError, HaToml, Paths};

use crate::command::{BadStep, Step, parse_time};
use crate::invariant::Promise;
use crate::run::{Plan, PlanError, Report, run};
use crate::settings::Settings;
use crate::text;
use crate::world::Shape;

/// Stands between the script and the log.
const DIVIDER: &str = "--- log";
/// Time after the last step, when the file does not say when the run ends.
const AFTERMATH: Duration = Duration::from_secs(30);
/// Longest simulated time of a scenario.
const LONGEST: Duration = Duration::from_hours(24 * 14);
/// Most steps in a scenario.
const MOST_STEPS: usize = 20_000;
/// Largest file, in bytes; logs are long.
const LARGEST: u64 = 16 << 20;

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
        Self::load_over(path, &Settings::default())
    }

    /// Reads a file; its own settings lie over `below`.
    ///
    /// # Errors
    /// Which line is wrong, and what to do.
    pub fn load_over(path: &Path, below: &Settings) -> Result<Self, ScenarioError> {
        let read = || {
            let mut text = String::new();
            std::fs::File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
            if text.len() as u64 > LARGEST {
                return Err(std::io::Error::other(format!("it has more than {LARGEST} bytes")));
            }
            Ok(text)
        };
        let text = read().map_err(|reason| ScenarioError::Read { path: path.to_owned(), reason })?;
        Self::parse_over(&text, below)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// Which line is wrong, and what to do.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        Self::parse_over(text, &Settings::default())
    }

    /// Reads a text; its own settings lie over `below`.
    ///
    /// # Errors
    /// Which line is wrong, and what to do.
    pub fn parse_over(text: &str, below: &Settings) -> Result<Self, ScenarioError> {
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
            } else if script.len() == MOST_STEPS {
                return Err(bad(format!("a scenario has at most {MOST_STEPS} steps")));
            } else {
                script.push(Step::parse(line).map_err(|error: BadStep| bad(error.to_string()))?);
            }
            header.end_line();
        }
        let last =
            script.iter().map(|step| step.at + step.lasts.unwrap_or_default()).max().unwrap_or_default();
        let end = header.end.unwrap_or(last + AFTERMATH);
        if end.max(last) > LONGEST {
            let days = LONGEST.as_secs() / 86_400;
            return Err(ScenarioError::Settings(format!("a run may last {days} days at most")));
        }
        let plan = Plan {
            shape: Shape {
                hosts: header.hosts,
                toml: header.toml(below)?,
                agent: header.agent(below)?,
                has_watchdog: header.watchdog,
                stalled_vm_cannot_die: header.stalled_vm_stays.unwrap_or(header.watchdog),
                seed: header.seed,
            },
            script,
            end,
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

    /// A scenario file that does what a plan does, on hosts whose other settings are the defaults.
    pub fn write(title: &str, plan: &Plan) -> String {
        Self::write_over(title, plan, &Settings::default())
    }

    /// A scenario file that does what a plan does, on hosts whose other settings are `below`.
    pub fn write_over(title: &str, plan: &Plan, below: &Settings) -> String {
        let mut text = format!("# {title}\nhosts = {}\nseed = {}\n", plan.shape.hosts, plan.shape.seed);
        let Shape { toml, agent, has_watchdog, stalled_vm_cannot_die, .. } = &plan.shape;
        if !has_watchdog {
            text.push_str("watchdog = no\n");
        }
        if stalled_vm_cannot_die != has_watchdog {
            let stays = if *stalled_vm_cannot_die { "stays" } else { "dies" };
            let _ = writeln!(text, "stalled-vm = {stays}");
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "set lease.io_timeout = {}", toml.lease.io_timeout);
        let _ = writeln!(text, "set lease.watchdog_timeout = {}", toml.lease.watchdog_timeout);
        let profile = match toml.score.profile {
            ha_config::ha_toml::ScoreProfile::Founding => "founding",
            ha_config::ha_toml::ScoreProfile::Ovirt45 => "ovirt-4.5",
        };
        let _ = writeln!(text, "set score.profile = \"{profile}\"");
        text.push_str(&below.lines(|key| key.starts_with("lease.") || key == "score.profile"));
        for (key, value) in agent.score.entries() {
            let _ = writeln!(text, "agent {key} = {value}");
        }
        for promise in &plan.breaks {
            let _ = writeln!(text, "breaks = {promise}");
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
    stalled_vm_stays: Option<bool>,
    plain_policy: bool,
    /// ha.toml in the making, each key in the line that it has in the scenario.
    toml: String,
    /// agent.conf's section in the making, likewise.
    agent: String,
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
            stalled_vm_stays: None,
            plain_policy: false,
            toml: String::new(),
            agent: String::new(),
        }
    }
}

impl Header {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let wrong = |expected: &str| format!("{key} = {value}: {expected}");
        if let Some(key) = key.strip_prefix("set ") {
            // Dotted keys of one table may stand anywhere in the file.
            // Writing to a string cannot fail.
            let _ = write!(self.toml, "{} = {value}", key.trim());
            return Ok(());
        }
        if let Some(key) = key.strip_prefix("agent ") {
            // Writing to a string cannot fail.
            let _ = write!(self.agent, "{}={value}", key.trim());
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
            "stalled-vm" => {
                self.stalled_vm_stays = match value {
                    "stays" => Some(true),
                    "dies" => Some(false),
                    _ => return Err(wrong("stays or dies")),
                }
            }
            "policy" => match value {
                "plain" => self.plain_policy = true,
                "better" => self.plain_policy = false,
                _ => return Err(wrong("plain or better")),
            },
            _ => {
                return Err(format!(
                    "there is no setting {key:?}; known are hosts, seed, watchdog, stalled-vm, end, ends, breaks, policy, \
                     set TABLE.KEY and agent KEY"
                ));
            }
        }
        Ok(())
    }

    fn end_line(&mut self) {
        self.toml.push('\n');
        self.agent.push('\n');
    }

    fn toml(&self, below: &Settings) -> Result<HaToml, ScenarioError> {
        let policy = if self.plain_policy { plain_policy() } else { String::new() };
        HaToml::layered(&Paths::default(), &[&below.toml(), &policy, &self.toml]).map_err(|e| setting(e, 0))
    }

    fn agent(&self, below: &Settings) -> Result<AgentConf, ScenarioError> {
        let mut text = "[score]\n".to_owned();
        for (key, value) in below.agent.score.entries() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key}={value}");
        }
        let above = text.lines().count();
        text.push_str(&self.agent);
        let agent = AgentConf::parse(&Paths::default(), &text).map_err(|e| setting(e, above))?;
        match agent.unknown.first() {
            Some(unknown) => Err(ScenarioError::Line {
                line: unknown.line.saturating_sub(above),
                reason: format!(
                    "agent.conf has no key {:?} in its section [score]; {}",
                    unknown.key,
                    unknown.nearest.map_or_else(
                        || "see the installed file for its keys".to_owned(),
                        |near| format!("did you mean {near}?")
                    )
                ),
            }),
            None => Ok(agent),
        }
    }
}

/// An error in a file that was made of a scenario's lines, as an error of the scenario. The file begins with so many
/// lines that the scenario does not have.
fn setting(error: ConfigError, above: usize) -> ScenarioError {
    match error {
        ConfigError::Syntax { line, text, reason, .. } => ScenarioError::Line {
            line: line.saturating_sub(above),
            reason: format!("{reason} (the setting reads {text:?})"),
        },
        ConfigError::Value { line, key, value, expected, .. } => ScenarioError::Line {
            line: line.saturating_sub(above),
            reason: format!("{key} = {value:?}: it must be {expected}"),
        },
        ConfigError::Relation { reason, .. } => ScenarioError::Settings(reason),
        error @ (ConfigError::Io { .. } | ConfigError::Missing { .. }) => {
            ScenarioError::Settings(error.to_string())
        }
    }
}

/// ha.toml with all policy switches off: how the existing release decides.
pub fn plain_policy() -> String {
    HaToml::POLICY_KEYS.iter().fold(String::new(), |mut text, key| {
        let _ = writeln!(text, "policy.{key} = false");
        text
    })
}
