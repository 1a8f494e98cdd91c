//! What a scenario's recovery consisted of: evidence from outside and from the daemons' logs, taken apart, kept as JSON
//! lines, and shown as tables, lanes and bars.
//!
//! ```text
//! QEMU processes, health page (observer) ─┐
//! agents' logs (agents) ──────────────────┼─▶ parts ─▶ Run ─▶ JSON lines ─▶ table, picture
//! the lease, asked of each sanlock (leases)┘
//! ```

pub mod agents;
pub mod gather;
pub mod leases;
pub mod parts;
mod picture;
mod table;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::state::Hypervisor;
use parts::Parts;

/// One play of a scenario, without its events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Which scenario.
    pub scenario: String,
    /// Who ran the engine VM.
    pub hypervisor: Hypervisor,
    /// How many hosts there were.
    pub hosts: u8,
    /// sanlock's I/O time-out in seconds.
    pub io_timeout: u32,
    /// When it ended, in UTC.
    pub ended: String,
    /// The VM's host at the fault.
    pub from: u8,
    /// The VM's host at the end.
    pub to: u8,
    /// Seconds from the fault to the first good answer of the engine; `None` when it was never disturbed.
    pub recovery: Option<f64>,
    /// The most QEMUs at once.
    pub most_qemus: usize,
    /// Two guests wrote to the disk at the same time.
    pub mixed: bool,
    /// For how many seconds a guest that moved while it ran stood still; `None` of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stood_still: Option<f64>,
    /// Whose the time was; nothing when it was never disturbed.
    pub parts: Parts,
}

/// Where an event was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The scenario itself: the fault, and what it does after.
    Scenario,
    /// The processes on all hosts, and the health page.
    Observer,
    /// A host's lock manager.
    Sanlock,
    /// An agent's log.
    Agent,
}

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds after the fault; negative before it.
    pub at: f64,
    /// On which host; `None` for the cluster.
    pub host: Option<u8>,
    /// Who saw it.
    pub source: Source,
    /// In words.
    pub text: String,
}

/// A line of a file of timelines. The events of a run follow it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Run(Run),
    Event(Event),
}

/// A run with its events.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// What it came to.
    pub run: Run,
    /// In the order of time.
    pub events: Vec<Event>,
}

impl Timeline {
    /// Adds it to a file.
    pub fn append(&self, file: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(&Line::Run(self.run.clone()))? + "\n";
        for event in &self.events {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", serde_json::to_string(&Line::Event(event.clone()))?);
        }
        let write =
            || fs::OpenOptions::new().create(true).append(true).open(file)?.write_all(text.as_bytes());
        write().with_context(|| format!("cannot write {}", file.display()))
    }

    /// What happened, each host's events in a column of its own.
    pub fn lanes(&self, width: usize) -> String {
        picture::lanes(self, width)
    }
}

/// Reads a file of timelines.
pub fn read(file: &Path) -> anyhow::Result<Vec<Timeline>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut all: Vec<Timeline> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{}:{}: no line of a timeline", file.display(), number + 1);
        match serde_json::from_str(line).with_context(place)? {
            Line::Run(run) => all.push(Timeline { run, events: Vec::new() }),
            Line::Event(event) => {
                all.last_mut()
                    .with_context(|| format!("{}: an event before any run", place()))?
                    .events
                    .push(event);
            }
        }
    }
    Ok(all)
}

/// Seconds as files have them: to the millisecond.
pub fn rounded(secs: f64) -> f64 {
    (secs * 1000.0).round() / 1000.0
}

/// Arguments of `sandbox timelines`.
#[derive(Debug, Args)]
pub struct TimelinesArgs {
    /// Files that `sandbox scenario --json` wrote. A later file's runs replace those of the same scenario, hypervisor and
    /// I/O time-out in earlier ones
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Write the tables into this document, between its two marks
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Draw the recoveries into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Keep the runs, without their events, in this file, so that more can be added to them later
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
    /// Print every event of every run, each host's in a column of its own
    #[arg(long)]
    lanes: bool,
}

/// Begin of what is written into a document.
const BEGIN: &str = "<!-- timelines: begin -->";
/// Its end.
const END: &str = "<!-- timelines: end -->";

/// `sandbox timelines`. It needs no sandbox.
pub fn show(args: &TimelinesArgs) -> anyhow::Result<()> {
    let mut all: Vec<Timeline> = Vec::new();
    for file in &args.files {
        let new = read(file)?;
        all.retain(|old| !new.iter().any(|new| new.run.same_kind(&old.run)));
        all.extend(new);
    }
    let rows = table::rows(&all.iter().map(|one| one.run.clone()).collect::<Vec<_>>());
    let mut shown = String::new();
    if args.lanes {
        for timeline in &all {
            shown += &timeline.lanes(160);
            shown.push('\n');
        }
    }
    if let Some(file) = &args.svg {
        save(file, &picture::bars(&rows))?;
    }
    if let Some(file) = &args.keep {
        let kept: Result<Vec<String>, _> =
            all.iter().map(|one| serde_json::to_string(&Line::Run(one.run.clone()))).collect();
        save(file, &(kept?.join("\n") + "\n"))?;
    }
    let tables = table::markdown(&rows);
    match &args.markdown {
        None => shown += &tables,
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            save(
                file,
                &between_marks(&text, &tables).with_context(|| {
                    format!(
                        "{} lacks the lines {BEGIN} and {END}, between which the tables go",
                        file.display()
                    )
                })?,
            )?;
        }
    }
    Ok(())
}

/// Runs as tables, one for each kind of sandbox.
pub fn tables<'a>(runs: impl IntoIterator<Item = &'a Run>) -> String {
    table::markdown(&table::rows(&runs.into_iter().cloned().collect::<Vec<_>>()))
}

fn between_marks(text: &str, tables: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))
}

fn save(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

impl Run {
    /// Whether both are plays of the same scenario on the same kind of sandbox.
    fn same_kind(&self, other: &Self) -> bool {
        let kind = |run: &Self| (run.scenario.clone(), run.hypervisor, run.hosts, run.io_timeout);
        kind(self) == kind(other)
    }
}

#[cfg(test)]
mod tests {
    use super::parts::{Part, Stretch};
    use super::*;

    /// A run that took so long, all of it ours.
    pub(super) fn run(scenario: &str, recovery: Option<f64>) -> Run {
        let stretch = |to| Stretch { from: 0.0, to, part: Part::Ours };
        Run {
            scenario: scenario.to_owned(),
            hypervisor: Hypervisor::Qemu,
            hosts: 3,
            io_timeout: 3,
            ended: "2026-01-31T12:00:00Z".to_owned(),
            from: 1,
            to: 2,
            recovery,
            most_qemus: 1,
            mixed: false,
            stood_still: None,
            parts: Parts { stretches: recovery.map(stretch).into_iter().collect(), ..Parts::default() },
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("runs.jsonl");
        let event = Event { at: -0.25, host: Some(2), source: Source::Agent, text: "waiting".to_owned() };
        let one = Timeline { run: run("kill-vm", Some(4.5)), events: vec![event] };
        let two = Timeline { run: run("kill-agent", None), events: Vec::new() };
        one.append(&file).unwrap();
        two.append(&file).unwrap();
        assert_eq!(read(&file).unwrap(), [one, two]);

        fs::write(&file, "{\"type\":\"event\",\"at\":1,\"host\":null,\"source\":\"agent\",\"text\":\"\"}\n")
            .unwrap();
        let error = format!("{:#}", read(&file).unwrap_err());
        assert!(error.contains("runs.jsonl:1") && error.contains("before any run"), "{error}");
        fs::write(&file, "rubbish\n").unwrap();
        assert!(format!("{:#}", read(&file).unwrap_err()).contains("runs.jsonl:1"));
    }

    #[test]
    fn a_document_keeps_what_is_around_the_tables() {
        let text = format!("# Head\n\n{BEGIN}\nold\n{END}\n\ntail\n");
        let new = between_marks(&text, "| new |\n").unwrap();
        assert_eq!(new, format!("# Head\n\n{BEGIN}\n\n| new |\n\n{END}\n\ntail\n"));
        assert_eq!(between_marks(&new, "| new |\n").unwrap(), new);
        assert_eq!(between_marks("no marks", ""), None);
    }

    #[test]
    fn newer_runs_replace_those_of_their_kind_and_leave_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, runs: &[Run]| {
            for run in runs {
                Timeline { run: run.clone(), events: Vec::new() }.append(&path(name)).unwrap();
            }
        };
        write("kept.jsonl", &[run("kill-vm", Some(9.0)), run("kill-host", Some(80.0))]);
        write("new.jsonl", &[run("kill-vm", Some(4.0)), run("kill-vm", Some(5.0))]);
        fs::write(path("doc.md"), format!("{BEGIN}\n{END}\n")).unwrap();
        let args = TimelinesArgs {
            files: vec![path("kept.jsonl"), path("new.jsonl")],
            markdown: Some(path("doc.md")),
            svg: Some(path("doc.svg")),
            keep: Some(path("kept.jsonl")),
            lanes: false,
        };
        show(&args).unwrap();
        let kept: Vec<Option<f64>> =
            read(&path("kept.jsonl")).unwrap().iter().map(|one| one.run.recovery).collect();
        assert_eq!(kept, [Some(80.0), Some(4.0), Some(5.0)]);
        let doc = fs::read_to_string(path("doc.md")).unwrap();
        assert!(
            doc.contains("| kill-vm | 2 | 4.0 (4.0 to 5.0) |") && doc.contains("| kill-host | 1 | 80.0 |"),
            "{doc}"
        );
        assert!(fs::read_to_string(path("doc.svg")).unwrap().contains("kill-host (qemu, N = 3 s)"));

        fs::write(path("doc.md"), "no marks").unwrap();
        let error = show(&args).unwrap_err().to_string();
        assert!(error.contains("doc.md") && error.contains(BEGIN), "{error}");
    }
}
