//! Runs the checker and says what came out.

use std::fmt;
use std::time::Duration;

use clock::{Clock, SystemClock};
use stateright::{Checker, Expectation, Model};

use crate::checked::{Cluster, Setup, property};
use crate::story::summary;

/// What came out of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// The most steps that it takes to get to any state.
    pub depth: usize,
    /// All states were explored; not, when a bound on the depth cut the search off.
    pub complete: bool,
    /// Different cores met.
    pub cores: usize,
    /// The most ticks that a recovery takes.
    pub longest_recovery: u16,
    /// How long it took.
    pub took: Duration,
    /// The properties, in order.
    pub findings: Vec<Finding>,
}

/// What came out for one property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub property: &'static str,
    /// It holds.
    pub holds: bool,
    /// The counterexample, in words: one line for each thing that happened.
    pub path: Vec<String>,
}

impl Report {
    /// The names of the properties that do not hold.
    pub fn violated(&self) -> Vec<&'static str> {
        self.findings.iter().filter(|finding| !finding.holds).map(|finding| finding.property).collect()
    }

    /// What came out for the property of that name.
    pub fn finding(&self, property: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.property == property)
    }
}

/// Explores the cluster breadth first, up to `depth` steps when that is given, else completely. For each property
/// that does not hold it is explored again up to a shortest counterexample.
pub fn check<const N: usize>(setup: Setup, depth: Option<usize>) -> Report {
    let clock = SystemClock;
    let began = clock.monotonic();
    let checker = explore(Cluster::<N>::new(setup), depth);
    let cluster = checker.model();
    let discoveries = checker.discoveries();
    // Stateright counts the states on a path, not the steps, and notes one beyond the limit.
    let reached = checker.max_depth().saturating_sub(1);
    let findings = cluster.properties().into_iter().map(|property| {
        let found = discoveries.contains_key(property.name);
        let holds = found != (property.expectation == Expectation::Always);
        let path =
            if found && !holds { counterexample::<N>(setup, depth, property.name) } else { Vec::new() };
        Finding { property: property.name, holds, path }
    });
    Report {
        findings: findings.collect(),
        states: checker.unique_state_count(),
        depth: depth.unwrap_or(usize::MAX).min(reached),
        complete: depth.is_none_or(|depth| reached <= depth),
        cores: cluster.cores(),
        longest_recovery: cluster.longest_recovery(),
        took: clock.monotonic().saturating_since(began),
    }
}

fn explore<const N: usize>(cluster: Cluster<N>, depth: Option<usize>) -> impl Checker<Cluster<N>> {
    let builder = cluster.checker();
    let builder = match depth {
        // It neither checks nor expands a state at its limit.
        Some(depth) => builder.target_max_depth(depth + 2),
        None => builder,
    };
    builder.spawn_bfs().join()
}

/// A shortest counterexample, in words.
fn counterexample<const N: usize>(setup: Setup, depth: Option<usize>, name: &'static str) -> Vec<String> {
    let checker = explore(Cluster::<N>::new(Setup { only: Some(name), ..setup }), depth);
    let cluster = checker.model();
    let Some(path) = checker.discovery(name).map(stateright::Path::into_vec) else { return Vec::new() };
    let Some(((first, _), (last, _))) = path.first().zip(path.last()) else { return Vec::new() };
    let steps: Vec<_> = path.iter().filter_map(|(_, step)| *step).collect();
    let (mut lines, _) = cluster.narrate(first, &steps);
    lines.push(format!("-- {}", summary(last)));
    if name == property::RECOVERY {
        lines.extend(cluster.narrate_livelock(last));
    }
    lines
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { property, holds, path } in &self.findings {
            writeln!(f, "{}  {property}", if *holds { "holds   " } else { "VIOLATED" })?;
            for line in path {
                writeln!(f, "          {line}")?;
            }
        }
        write!(
            f,
            "{} states, {} cores, depth {}{}, longest recovery {} ticks, {:.1} s",
            self.states,
            self.cores,
            self.depth,
            if self.complete { " (complete)" } else { " (cut off)" },
            self.longest_recovery,
            self.took.as_secs_f64()
        )
    }
}
