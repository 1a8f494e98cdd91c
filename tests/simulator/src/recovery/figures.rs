//! What many runs say together, and the table of it.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Ending, Fault, Outcome, PATIENCE};

/// The outages of many runs of one fault under one set of rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// The shortest first.
    outages: Vec<Duration>,
    /// Runs that ended without an engine.
    pub down: usize,
    /// Runs that had no engine to begin with; they are left out.
    pub not_ready: usize,
    /// Runs that broke a promise.
    pub broke: usize,
}

impl Sample {
    /// Sorts outcomes.
    pub fn new(outcomes: &[Outcome]) -> Self {
        let mut sample = Self::default();
        for outcome in outcomes {
            match outcome.ending {
                Ending::Recovered => {}
                Ending::Down => sample.down += 1,
                Ending::Broke(_) => sample.broke += 1,
                Ending::NotReady => {
                    sample.not_ready += 1;
                    continue;
                }
            }
            sample.outages.push(outcome.outage);
        }
        sample.outages.sort_unstable();
        sample
    }

    /// The outage that `percent` of the runs do not exceed (nearest rank), 0 to 100; zero without a run.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.outages.len() * percent).div_ceil(100).max(1);
        self.outages.get(rank - 1).copied().unwrap_or_default()
    }

    /// The longest outage.
    pub fn max(&self) -> Duration {
        self.outages.last().copied().unwrap_or_default()
    }

    /// Share of the runs in which the engine was never away, 0.0 to 1.0.
    #[allow(clippy::cast_precision_loss, reason = "far fewer runs than 2^52")]
    pub fn undisturbed(&self) -> f64 {
        let undisturbed = self.outages.partition_point(Duration::is_zero);
        undisturbed as f64 / self.outages.len().max(1) as f64
    }

    /// The longest outage as it is written; a run that ended without an engine says only that it was longer.
    fn max_text(&self) -> String {
        let least = if self.down > 0 { "> " } else { "" };
        format!("{least}{}", tenths(self.max()))
    }
}

fn tenths(time: Duration) -> String {
    if time.is_zero() { "0".to_owned() } else { format!("{:.1}", time.as_secs_f64()) }
}

/// A share for people. What is not all or nothing is never written so.
pub(super) fn share(share: f64) -> String {
    if share > 0.999 && share < 1.0 {
        "> 99.9 %".to_owned()
    } else if share > 0.0 && share < 0.001 {
        "< 0.1 %".to_owned()
    } else {
        format!("{:.1} %", share * 100.0).replace(".0 %", " %")
    }
}

/// A fault under both sets of rules.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which.
    pub fault: Fault,
    /// With the plain rules.
    pub plain: Sample,
    /// With the better ones.
    pub better: Sample,
}

/// All rows as a Markdown table; below it what one must know of single faults, and runs that did not end well.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| fault | plain: p50 | p99 | max | undisturbed | better: p50 | p99 | max | undisturbed |\n\
         | --- | --: | --: | --: | --: | --: | --: | --: | --: |\n",
    );
    for Row { fault, plain, better } in rows {
        // Writing to a string cannot fail.
        let _ = write!(text, "| {} |", fault.title());
        for sample in [plain, better] {
            let (half, most) = (tenths(sample.percentile(50)), tenths(sample.percentile(99)));
            let undisturbed = share(sample.undisturbed());
            let _ = write!(text, " {half} | {most} | {} | {undisturbed} |", sample.max_text());
        }
        text.push('\n');
    }
    let mut notes = String::new();
    for Row { fault, plain, better } in rows {
        if let Some(note) = fault.note() {
            let _ = writeln!(notes, "- {}: {note}.", fault.title());
        }
        for (rules, sample) in [("plain", plain), ("better", better)] {
            let counts = [
                (sample.down, format!("had no engine {} s after the fault was over", PATIENCE.as_secs())),
                (sample.broke, "broke a promise".to_owned()),
                (sample.not_ready, "had no engine before the fault and are left out".to_owned()),
            ];
            for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
                let _ = writeln!(notes, "- {}, {rules} rules: {count} runs {what}.", fault.title());
            }
        }
    }
    if !notes.is_empty() {
        let _ = write!(text, "\n{notes}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::Promise;

    fn sample(outages: impl IntoIterator<Item = u64>) -> Sample {
        let outcome =
            |secs| Outcome { outage: Duration::from_secs(secs), ending: Ending::Recovered, lasted: PATIENCE };
        Sample::new(&outages.into_iter().map(outcome).collect::<Vec<_>>())
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let hundred = sample((1..=100).rev());
        let at = |percent| hundred.percentile(percent).as_secs();
        assert_eq!([at(0), at(1), at(50), at(99), at(100)], [1, 1, 50, 99, 100]);
        assert_eq!(hundred.max().as_secs(), 100);
        assert_eq!(sample([7]).percentile(50).as_secs(), 7);
        assert_eq!(sample([]).percentile(99), Duration::ZERO);
    }

    #[test]
    fn undisturbed_runs_are_those_without_any_outage() {
        let one_in_four = sample([0, 9, 8, 7]).undisturbed();
        assert_eq!(share(one_in_four), "25 %");
        assert_eq!(share(0.999_95), "> 99.9 %");
        assert_eq!(share(0.000_05), "< 0.1 %");
        assert_eq!(share(1.0), "100 %");
    }

    #[test]
    fn runs_without_an_end_are_told_apart() {
        let outcome = |ending| Outcome { outage: Duration::from_secs(5), ending, lasted: PATIENCE };
        let endings = [Ending::Recovered, Ending::Down, Ending::NotReady, Ending::Broke(Promise::LeftAlone)];
        let mixed = Sample::new(&endings.map(outcome));
        assert_eq!((mixed.down, mixed.broke, mixed.not_ready, mixed.outages.len()), (1, 1, 1, 3));
        let text = table(&[Row { fault: Fault::VmCrash, plain: sample([0]), better: mixed }]);
        assert!(text.contains("| VM crashes | 0 | 0 | 0 | 100 % | 5.0 | 5.0 | > 5.0 | 0 % |"), "{text}");
        assert!(text.contains("- VM crashes, better rules: 1 runs had no engine 900 s after"), "{text}");
        let quiet = table(&[Row { fault: Fault::VmCrash, plain: sample([0]), better: sample([0]) }]);
        assert!(quiet.ends_with("100 % |\n"), "{quiet}");
    }
}
