//! Many seeds on all processors: for how long the promises hold.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::run::{PlanError, Report, run};
use crate::seeds::{Weather, plan};

/// A seed that broke a promise.
#[derive(Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What happened.
    pub report: Report,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Soaked {
    /// Seeds that were run.
    pub runs: u64,
    /// Simulated time of all of them.
    pub simulated: Duration,
    /// Starts of the VM.
    pub starts: u64,
    /// Commands that were carried out.
    pub commands: u64,
    /// Seeds that broke a promise, by seed.
    pub failures: Vec<Failure>,
    /// A seed whose plan cannot be run: a mistake of the weather, and the end.
    pub refused: Option<(u64, PlanError)>,
}

/// Runs seeds from `first` on until `enough` time was simulated, or `most_failures` broke a promise. `tell` hears of the
/// progress after each run.
pub fn soak(
    weather: &Weather,
    first: u64,
    enough: Duration,
    most_failures: usize,
    tell: &(dyn Fn(&Soaked) + Sync),
) -> Soaked {
    let next = AtomicU64::new(first);
    let done = AtomicBool::new(false);
    let total = Mutex::new(Soaked::default());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let ran = run(&plan(seed, weather));
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    let report = match ran {
                        Ok(report) => report,
                        Err(error) => {
                            total.refused.get_or_insert((seed, error));
                            done.store(true, Ordering::Relaxed);
                            continue;
                        }
                    };
                    total.runs += 1;
                    total.simulated += report.lasted;
                    total.starts += report.starts;
                    total.commands += report.commands;
                    if !report.is_good() {
                        total.failures.push(Failure { seed, report });
                    }
                    tell(&total);
                    if total.simulated >= enough || total.failures.len() >= most_failures {
                        done.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.failures.sort_by_key(|failure| failure.seed);
    total
}
