//! Many runs of scenarios as tables: for each kind of sandbox one, for each scenario a row.

use std::fmt::Write as _;

use clap::ValueEnum;

use super::Run;
use super::parts::Part;
use crate::sandbox::scenario::Scenario;

/// The runs of one scenario on one kind of sandbox.
#[derive(Debug, Clone)]
pub struct Row {
    /// Those that were disturbed come after those that were not, the shortest recovery first; never empty.
    runs: Vec<Run>,
}

impl Row {
    /// The run in the middle, whose parts are shown; of an even number the shorter one.
    pub fn median(&self) -> &Run {
        &self.runs[(self.runs.len() - 1) / 2]
    }

    /// `85.1 (83.0 to 86.2)`.
    pub fn seconds(&self) -> String {
        let text = |run: &Run| run.recovery.map_or("undisturbed".to_owned(), |secs| format!("{secs:.1}"));
        let [first, median, last] = [&self.runs[0], self.median(), &self.runs[self.runs.len() - 1]].map(text);
        if first == last { median } else { format!("{median} ({first} to {last})") }
    }

    /// What kind of sandbox.
    pub fn kind(&self) -> String {
        let run = self.median();
        format!("{}, {} hosts, io_timeout {} s", run.hypervisor, run.hosts, run.io_timeout)
    }

    /// The most QEMUs at once in any run, and whether two guests ever wrote at the same time.
    pub fn qemus(&self) -> String {
        let most = self.runs.iter().map(|run| run.most_qemus).max().unwrap_or_default();
        if self.runs.iter().any(|run| run.mixed) { format!("{most}, MIXED WRITES") } else { most.to_string() }
    }

    /// How many runs.
    pub fn count(&self) -> usize {
        self.runs.len()
    }
}

/// Groups runs, in the order of the scenarios' list. Those that this program does not know come last.
pub fn rows(runs: &[Run]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for run in runs {
        match rows.iter_mut().find(|row| row.runs[0].same_kind(run)) {
            Some(row) => row.runs.push(run.clone()),
            None => rows.push(Row { runs: vec![run.clone()] }),
        }
    }
    for row in &mut rows {
        row.runs.sort_by(|a, b| a.recovery.unwrap_or(-1.0).total_cmp(&b.recovery.unwrap_or(-1.0)));
    }
    let place = |row: &Row| {
        let known = Scenario::from_str(&row.runs[0].scenario, false).ok();
        known
            .and_then(|one| Scenario::value_variants().iter().position(|other| *other == one))
            .unwrap_or(usize::MAX)
    };
    rows.sort_by_key(place);
    rows
}

/// A table for each kind of sandbox.
pub fn markdown(rows: &[Row]) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for row in rows {
        if !kinds.contains(&row.kind()) {
            kinds.push(row.kind());
        }
    }
    let tables: Vec<String> = kinds
        .iter()
        .map(|kind| table(kind, &rows.iter().filter(|row| row.kind() == *kind).collect::<Vec<_>>()))
        .collect();
    tables.join("\n")
}

fn table(kind: &str, rows: &[&Row]) -> String {
    let is_there = |part: &Part| rows.iter().any(|row| row.median().parts.of(*part) >= 0.05);
    let parts: Vec<Part> = Part::ALL.into_iter().filter(is_there).collect();
    let mut text = format!(
        "### {kind}\n\n| what | runs | seconds until good again | most QEMUs at once | noticed after | lease free after |"
    );
    for part in &parts {
        // Writing to a string cannot fail.
        let _ = write!(text, " {} |", part.title());
    }
    let stood_still = rows.iter().any(|row| row.median().stood_still.is_some());
    if stood_still {
        text += " guest stood still |";
    }
    text += "\n| --- | --: | --: | --: | --: | --: |";
    text += &" --: |".repeat(parts.len() + usize::from(stood_still));
    text.push('\n');
    for row in rows {
        let run = row.median();
        let moment = |at: Option<f64>| at.map_or("–".to_owned(), |at| format!("{at:.1}"));
        let _ = write!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            run.scenario,
            row.count(),
            row.seconds(),
            row.qemus(),
            moment(run.parts.noticed),
            moment(run.parts.lease)
        );
        for part in &parts {
            let _ = match run.recovery {
                None => write!(text, " – |"),
                Some(_) if *part == Part::Ours => write!(text, " {} |", ours(run)),
                Some(_) => write!(text, " {:.1} |", run.parts.of(*part)),
            };
        }
        if stood_still {
            let _ = match run.stood_still {
                None => write!(text, " – |"),
                Some(secs) => write!(text, " {secs:.3} |"),
            };
        }
        text.push('\n');
    }
    text
}

/// Our seconds, and in which states they went where it is more than one.
fn ours(run: &Run) -> String {
    let mut states: Vec<(&String, &f64)> = run.parts.ours.iter().filter(|(_, secs)| **secs >= 0.05).collect();
    states.sort_by(|a, b| b.1.total_cmp(a.1));
    let words: Vec<String> = states.iter().map(|(state, secs)| format!("{state} {secs:.1}")).collect();
    let all = run.parts.of(Part::Ours);
    if words.is_empty() { format!("{all:.1}") } else { format!("{all:.1} ({})", words.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    #[test]
    fn the_middle_run_is_shown_with_the_span_of_all() {
        let runs = [5.0, 3.0, 4.0, 9.0].map(|secs| run("kill-vm", Some(secs)));
        let rows = rows(&runs);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].seconds().as_str(), rows[0].count()), ("4.0 (3.0 to 9.0)", 4));
        let mut runs = vec![run("kill-agent", None), run("kill-agent", Some(7.0)), run("kill-agent", None)];
        assert_eq!(super::rows(&runs)[0].seconds(), "undisturbed (undisturbed to 7.0)");
        runs.truncate(1);
        assert_eq!(super::rows(&runs)[0].seconds(), "undisturbed");
    }

    #[test]
    fn rows_have_the_order_of_the_list() {
        let runs = ["of-tomorrow", "kill-host", "kill-vm"].map(|name| run(name, Some(1.0)));
        let rows = rows(&runs);
        let names: Vec<&str> = rows.iter().map(|row| row.median().scenario.as_str()).collect();
        assert_eq!(names, ["kill-vm", "kill-host", "of-tomorrow"]);
    }

    #[test]
    fn each_kind_of_sandbox_has_its_table_with_the_parts_that_occur() {
        let mut slow = run("kill-vm", Some(8.0));
        slow.io_timeout = 10;
        slow.mixed = true;
        slow.parts.ours.insert("EngineStart".to_owned(), 7.9);
        let text = markdown(&rows(&[run("kill-vm", Some(4.0)), slow, run("kill-agent", None)]));
        assert_eq!(
            text,
            "### qemu, 3 hosts, io_timeout 3 s\n\n\
             | what | runs | seconds until good again | most QEMUs at once | noticed after | lease free after | ours |\n\
             | --- | --: | --: | --: | --: | --: | --: |\n\
             | kill-vm | 1 | 4.0 | 1 | – | – | 4.0 |\n\
             | kill-agent | 1 | undisturbed | 1 | – | – | – |\n\n\
             ### qemu, 3 hosts, io_timeout 10 s\n\n\
             | what | runs | seconds until good again | most QEMUs at once | noticed after | lease free after | ours |\n\
             | --- | --: | --: | --: | --: | --: | --: |\n\
             | kill-vm | 1 | 8.0 | 1, MIXED WRITES | – | – | 8.0 (EngineStart 7.9) |\n"
        );
        let mut moved = run("migrate", Some(2.0));
        moved.stood_still = Some(0.0412);
        let text = markdown(&rows(&[moved, run("kill-vm", Some(4.0))]));
        assert!(text.contains("| ours | guest stood still |\n"), "{text}");
        assert!(text.contains("| kill-vm | 1 | 4.0 | 1 | – | – | 4.0 | – |\n"), "{text}");
        assert!(text.contains("| migrate | 1 | 2.0 | 1 | – | – | 2.0 | 0.041 |\n"), "{text}");
    }
}
