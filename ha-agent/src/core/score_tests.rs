use super::*;

fn healthy() -> Local {
    Local {
        network: Some(1.0),
        bridge: Some(true),
        mem_free: Some(8000.0),
        cpu_load: Some(0.1),
        mem_load: Some(0.3),
        engine: None,
        maintenance: false,
        min_memory: 4096,
        conf_up_to_date: true,
        ..Local::default()
    }
}

fn sheet(profile: Profile, state: State, local: &Local, load: f64, retries: u32) -> ScoreSheet {
    let facts = Facts { state, local, load, retries, maintenance_counts: true };
    let sheet = score(&facts, &Weights::of(profile), &Limits::default());
    let sum: i64 = sheet.terms.iter().map(|term| term.points).sum();
    assert_eq!(sum, i64::from(sheet.total.0), "the terms add up to the score");
    sheet
}

fn total(profile: Profile, state: State, local: &Local, load: f64, retries: u32) -> u32 {
    sheet(profile, state, local, load, retries).total.0
}

use Profile::{Founding, Ovirt45};

#[test]
fn a_fit_host_has_the_highest_score() {
    assert_eq!(total(Founding, State::EngineDown, &healthy(), 0.1, 0), 2400);
    assert_eq!(total(Ovirt45, State::EngineDown, &healthy(), 0.1, 0), 3400);
}

#[test]
fn each_factor_costs_what_the_profile_says() {
    let with = |change: fn(&mut Local)| {
        let mut local = healthy();
        change(&mut local);
        (
            2400 - total(Founding, State::EngineDown, &local, 0.1, 0),
            3400 - total(Ovirt45, State::EngineDown, &local, 0.1, 0),
        )
    };
    assert_eq!(with(|local| local.network = Some(0.0)), (1000, 1600));
    assert_eq!(with(|local| local.network = Some(0.6)), (0, 640));
    assert_eq!(with(|local| local.network = None), (1000, 1600));
    assert_eq!(with(|local| local.bridge = Some(false)), (800, 600));
    assert_eq!(with(|local| local.mem_free = Some(4095.0)), (400, 400));
    assert_eq!(with(|local| local.mem_free = None), (400, 400));
    assert_eq!(with(|local| local.mem_load = Some(0.8)), (100, 0));
    assert_eq!(with(|local| local.conf_up_to_date = false), (0, 1000));
    assert_eq!(with(|local| local.maintenance = true), (2400, 3400));
}

#[test]
fn processor_load_costs_by_degrees_or_at_a_threshold() {
    for (load, founding, ovirt) in
        [(0.3, 0, 0), (0.4, 0, 0), (0.65, 0, 500), (0.79, 0, 780), (0.8, 100, 800), (0.95, 100, 1000)]
    {
        assert_eq!(2400 - total(Founding, State::EngineDown, &healthy(), load, 0), founding, "at {load}");
        assert_eq!(3400 - total(Ovirt45, State::EngineDown, &healthy(), load, 0), ovirt, "at {load}");
    }
}

#[test]
fn failed_starts_cost_a_little_and_then_everything() {
    let ovirt: Vec<_> = (0..5).map(|n| total(Ovirt45, State::EngineDown, &healthy(), 0.1, n)).collect();
    assert_eq!(ovirt, [3400, 3350, 3300, 3250, 0]);
    let founding: Vec<_> = (0..5).map(|n| total(Founding, State::EngineDown, &healthy(), 0.1, n)).collect();
    assert_eq!(founding, [2400, 2350, 2300, 0, 0]);
}

#[test]
fn memory_does_not_count_for_the_host_that_runs_the_vm_in_the_existing_profile() {
    let local = Local { mem_free: Some(10.0), ..healthy() };
    assert_eq!(total(Ovirt45, State::EngineUp, &local, 0.1, 0), 3400);
    assert_eq!(total(Ovirt45, State::GlobalMaintenance, &local, 0.1, 0), 3400);
    assert_eq!(total(Ovirt45, State::EngineStarting, &local, 0.1, 0), 3000);
    assert_eq!(total(Founding, State::EngineUp, &local, 0.1, 0), 2000);
}

#[test]
fn never_below_zero_and_still_a_sum() {
    let local = Local { conf_up_to_date: false, ..Local::default() };
    let sheet = sheet(Ovirt45, State::EngineDown, &local, 1.0, 2);
    assert_eq!(sheet.total.0, 0);
    assert_eq!(sheet.terms.last().map(|term| term.factor.name()), Some("floor"));
}

#[test]
fn bad_weights_are_refused_with_the_key_and_the_value() {
    let mut weights = Weights::of(Ovirt45);
    assert_eq!(weights.set("base-score", " 2000 "), Ok(()));
    assert_eq!(weights.base, 2000);
    let error = |result: Result<(), WeightError>| result.expect_err("must be refused").to_string();
    assert_eq!(
        error(weights.set("base-score", "-1")),
        "[score] base-score=-1: must be a whole number from 0 to 1000000"
    );
    assert!(error(weights.set("cpu-load-penalty-min", "NaN")).contains("0.0 to 1.0"));
    assert!(error(weights.set("base-scroe", "1")).contains("base-score"));
    weights.cpu_min = 0.95;
    assert!(weights.validate().is_err());
}
