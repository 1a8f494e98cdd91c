//! The checks that run in continuous integration: complete for their number of faults, and small.

use ha_agent::core::Policy;
use ha_model::{Mistake, Report, Setup, check, property};

const NONE: [&str; 0] = [];

fn setup(policy: Policy, faults: u8) -> Setup {
    Setup { policy, faults, mistake: None, only: None }
}

fn with(mistake: Mistake) -> Report {
    check::<2>(Setup { mistake: Some(mistake), ..setup(Policy::default(), 1) }, None)
}

/// The counterexample's lines that contain `part`.
fn lines<'a>(report: &'a Report, property: &str, part: &str) -> Vec<&'a str> {
    let finding = report.finding(property).expect("a known property");
    finding.path.iter().map(String::as_str).filter(|line| line.contains(part)).collect()
}

#[test]
fn two_hosts_survive_any_single_fault() {
    let report = check::<2>(setup(Policy::default(), 1), None);
    assert_eq!(report.violated(), NONE, "{report}");
    assert!(report.complete && report.states > 10_000, "{report}");
}

#[test]
fn three_hosts_without_faults_start_the_engine_once_in_any_order_of_looks() {
    for policy in [Policy::plain(), Policy::default()] {
        let report = check::<3>(setup(policy, 0), None);
        assert_eq!(report.violated(), NONE, "{report}");
        assert!(report.complete && report.states > 10_000, "{report}");
    }
}

#[test]
fn three_hosts_survive_any_single_fault_up_to_a_depth() {
    let report = check::<3>(setup(Policy::default(), 1), Some(18));
    assert_eq!(report.violated(), NONE, "{report}");
    assert!(report.states > 50_000, "{report}");
}

#[test]
fn the_plain_rules_start_without_footing_and_keep_everything_else() {
    let report = check::<2>(setup(Policy::plain(), 1), None);
    assert_eq!(report.violated(), [property::FOOTING], "{report}");
    assert_eq!(lines(&report, property::FOOTING, "FAULT").len(), 1);
    assert!(report.complete, "{report}");
}

/// Known of the existing release: a host that goes into local maintenance leaves its VM unwatched, also one that a
/// gap of storage has paused. It keeps the lease, and the other hosts wait for it. The better rules recover.
#[test]
fn the_plain_rules_leave_a_paused_vm_alone_in_local_maintenance() {
    let plain = check::<2>(setup(Policy::plain(), 2), Some(13));
    assert_eq!(plain.violated(), [property::FOOTING, property::RECOVERY], "{plain}");
    assert_eq!(lines(&plain, property::RECOVERY, "local maintenance is set on host").len(), 1, "{plain}");
    assert!(!lines(&plain, property::RECOVERY, "LocalMaintenance stays").is_empty(), "{plain}");
    let better = check::<2>(setup(Policy::default(), 2), Some(13));
    assert_eq!(better.violated(), NONE, "{better}");
}

#[test]
fn without_watchdogs_a_thawed_host_writes_beside_the_new_vm() {
    let report = with(Mistake::NoWatchdog);
    assert_eq!(report.violated(), [property::ONE_WRITER, property::VM_HAS_LEASE], "{report}");
    assert_eq!(lines(&report, property::ONE_WRITER, "thaws").len(), 1, "{report}");
}

#[test]
fn without_a_lease_two_vms_write() {
    let report = with(Mistake::LeaseRefusesNobody);
    assert!(report.violated().starts_with(&[property::ONE_WRITER, property::VM_HAS_LEASE]), "{report}");
    assert_eq!(lines(&report, property::ONE_WRITER, "StartVm: Done").len(), 2, "{report}");
}

#[test]
fn a_core_that_does_not_know_of_global_maintenance_is_found_out() {
    let report = with(Mistake::BlindToGlobalMaintenance);
    assert_eq!(report.violated(), [property::GLOBAL_MAINTENANCE], "{report}");
    assert_eq!(lines(&report, property::GLOBAL_MAINTENANCE, "FAULT: global maintenance is set").len(), 1);
}

#[test]
fn a_core_that_does_not_know_its_footing_is_found_out() {
    // Recovery is left out: the core counts failed starts without end, so that its states would not repeat.
    let mistake = Some(Mistake::BlindToFooting);
    let report =
        check::<2>(Setup { mistake, only: Some(property::FOOTING), ..setup(Policy::default(), 1) }, None);
    assert_eq!(lines(&report, property::FOOTING, "loses shared storage").len(), 1, "{report}");
}

#[test]
fn an_engine_that_never_comes_up_is_found_out() {
    let report = with(Mistake::LeaseRefusesEverybody);
    let sometimes = [property::SERVES, property::FAILS_OVER, property::REFUSED];
    assert_eq!(report.violated(), [&[property::RECOVERY][..], &sometimes].concat(), "{report}");
    assert_eq!(lines(&report, property::RECOVERY, "again and again").len(), 1, "{report}");
    assert!(lines(&report, property::RECOVERY, "FAULT").is_empty(), "the shortest needs no fault");
}
