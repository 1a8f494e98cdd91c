use engine_vm::VmActivity;

use super::*;
use crate::monitors::testing::{FakeVm, TokioClock, status_of};

/// Two processors at 100 ticks a second: `busy` of 100 parts since boot, at `at` seconds.
fn sample(at: u64, busy_secs: u64, engine: EngineTime) -> Sample {
    let host = Ticks { total: at * 200, busy: busy_secs * 100, processors: 2 };
    Sample { at: Monotonic::from_secs(at), host, engine }
}

const fn used(secs: u64) -> EngineTime {
    EngineTime::Used(Duration::from_secs(secs))
}

/// Feeds samples and gives the loads with whether each was the true one.
fn loads(samples: &[(u64, u64, EngineTime)]) -> Vec<(f64, bool)> {
    let mut meter = Meter::default();
    let take = |(at, busy, engine): &(u64, u64, EngineTime)| meter.take(sample(*at, *busy, *engine));
    samples
        .iter()
        .filter_map(take)
        .map(|(load, note)| ((load * 100.0).round() / 100.0, note.is_none()))
        .collect()
}

#[test]
fn the_engines_time_is_taken_off_the_hosts() {
    // 60 s of two processors: 120 s of capacity, 90 busy, 60 of them the engine's.
    assert_eq!(loads(&[(0, 0, used(100)), (60, 90, used(160))]), [(0.25, true)]);
    assert_eq!(loads(&[(0, 0, EngineTime::NoVm), (60, 90, EngineTime::NoVm)]), [(0.75, true)]);
    // More than all of it was the engine's: never below zero.
    assert_eq!(loads(&[(0, 0, used(0)), (60, 30, used(90))]), [(0.0, true)]);
}

#[test]
fn a_share_that_the_hypervisor_measured_is_taken_off_as_it_is() {
    let busy = EngineTime::Busy(0.5);
    // Three quarters of two processors, a quarter of them the engine's.
    assert_eq!(
        loads(&[(0, 0, EngineTime::NoVm), (60, 90, busy), (120, 180, busy)]),
        [(0.5, true), (0.5, true)]
    );
    let use_of = |answer| EngineTime::from(Ok(Some(answer)));
    assert_eq!(use_of(CpuUse::Lately(0.5)), busy);
    assert_eq!(use_of(CpuUse::NotMeasured), EngineTime::Unknown);
}

#[test]
fn a_vm_that_started_in_between_counts_from_its_start() {
    assert_eq!(loads(&[(0, 0, EngineTime::NoVm), (60, 90, used(60))]), [(0.25, true)]);
    // Restarted: less than before is a new process.
    assert_eq!(loads(&[(0, 0, used(500)), (60, 90, used(60))]), [(0.25, true)]);
    // More than the interval can hold cannot be of this interval.
    assert_eq!(loads(&[(0, 0, EngineTime::NoVm), (60, 90, used(600))]), [(0.0, false)]);
}

#[test]
fn a_boot_without_figures_keeps_the_last_load_for_five_minutes() {
    let mut samples = vec![(0, 0, EngineTime::NoVm), (60, 12, EngineTime::NoVm)];
    // The VM starts, uses everything, and its figure stays zero.
    samples.extend((2..=8).map(|n| (n * 60, n * 120 - 108, used(0))));
    let expected = [
        (0.1, true),
        (0.1, false), // 0 s
        (0.1, false), // 60 s
        (0.1, false),
        (0.1, false),
        (0.1, false), // 240 s
        (1.0, false), // 300 s: no longer believed
        (1.0, false),
    ];
    assert_eq!(loads(&samples), expected);
    // One true figure ends it.
    samples.push((540, 8 * 120 - 108 + 120, used(60)));
    assert_eq!(loads(&samples).last(), Some(&(0.5, true)));
}

#[test]
fn a_hypervisor_that_cannot_be_asked_is_no_reason_to_blame_the_host() {
    let samples = [
        (0, 0, used(0)),
        (60, 90, used(60)),
        (120, 210, EngineTime::Unknown),
        (180, 330, used(180)),
        (240, 450, used(290)),
    ];
    assert_eq!(loads(&samples), [(0.25, true), (0.25, false), (0.25, false), (0.08, true)]);
}

#[tokio::test(start_paused = true)]
async fn the_first_average_takes_ten_seconds_and_the_others_a_minute() {
    let clock = TokioClock::new();
    let ticking = Arc::clone(&clock);
    // Half busy, always.
    let stat: ReadProc = Box::new(move || {
        let ticks = ticking.monotonic().since_start().as_millis() / 10 * 2;
        Ok(format!("cpu  {} 0 0 {} 0 0 0 0\ncpu0 0\ncpu1 0\n", ticks / 2, ticks - ticks / 2))
    });
    let vm = FakeVm::new(status_of(VmActivity::Down));
    let mut probe = CpuLoadNoEngine { stat, vm: vm.clone(), clock: clock.clone(), meter: Meter::default() };
    assert_eq!(probe.measure().await, Ok(Reading::plain("0.5000")));
    assert_eq!(clock.monotonic(), Monotonic::from_secs(10));
    assert_eq!(probe.interval(), Duration::from_mins(1));
    time::advance(Duration::from_mins(1)).await;
    assert_eq!(probe.measure().await, Ok(Reading::plain("0.5000")));
    // A hypervisor that hangs costs five seconds and the last load stands.
    vm.hang();
    let reading = probe.measure().await.unwrap();
    assert_eq!(reading.value, "0.5000");
    assert!(reading.note.unwrap().contains("no true figure"));
    assert_eq!(clock.monotonic(), Monotonic::from_secs(75));
}
