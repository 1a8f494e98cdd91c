//! From the monitors' texts to numbers. Pure.
//!
//! Texts have Python's spelling (`True`, `False`, `None`), engine health is a JSON object.

use std::collections::BTreeMap;

use engine_vm::{LeaseHolding, VmActivity, VmExit, VmStatus};
use metadata_format::{EngineStatus, Health, VmState};

use crate::core::Local;
use crate::settings::Field;

/// The monitors' last results, by what they are used for. A monitor without a result is not there.
pub type Readings = BTreeMap<Field, String>;

/// Fills in what the monitors tell. Returns what could not be read, in words.
pub fn read(readings: &Readings, local: &mut Local) -> Vec<String> {
    let mut unreadable = Vec::new();
    for (field, text) in readings {
        let text = text.trim();
        if text == "None" {
            continue;
        }
        let understood = match field {
            Field::Network => set(&mut local.network, number(text)),
            Field::Bridge => set(&mut local.bridge, boolean(text)),
            Field::MemFree => set(&mut local.mem_free, number(text)),
            Field::CpuLoad => set(&mut local.cpu_load, number(text)),
            Field::MemLoad => set(&mut local.mem_load, number(text)),
            Field::EngineHealth => set(&mut local.engine, serde_json::from_str(text).ok()),
            // Only shown: a start on storage that does not work fails by itself.
            Field::StorageDomain => boolean(text).is_some(),
        };
        if !understood {
            unreadable
                .push(format!("the monitor for {field:?} said {:?}, which is not understood", excerpt(text)));
        }
    }
    unreadable
}

/// The engine-health monitor may not have seen yet that the VM was started, arrives or has moved away. What the
/// hypervisor says now is newer: a VM that exists is not down, unless it only arrives.
pub fn correct_stale_health(local: &mut Local, vm: &VmStatus) {
    let says_up = local.engine.as_ref().is_some_and(|status| status.vm == VmState::Up);
    let reason = match (vm.activity, &vm.exit) {
        (VmActivity::MigrationDestination, _) => Some("bad vm status"),
        (VmActivity::Down, Some(VmExit::MigratedAway)) => Some("VM migrated away successfully"),
        _ => None,
    };
    if let Some(reason) = reason {
        if says_up {
            local.engine = Some(EngineStatus {
                vm: VmState::Down,
                health: Health::Bad,
                detail: vm.activity.word().to_owned(),
                reason: Some(reason.to_owned()),
            });
        }
        return;
    }
    let stale = local.engine.as_ref().is_some_and(|status| status.vm.is_down());
    if stale && vm.exists() && !matches!(vm.lease, LeaseHolding::Lost { .. }) {
        local.engine = Some(EngineStatus {
            vm: VmState::Up,
            health: Health::Bad,
            detail: vm.activity.word().to_owned(),
            reason: Some("the engine-health monitor has not seen this VM yet".to_owned()),
        });
    }
}

fn set<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let understood = value.is_some();
    *place = value;
    understood
}

fn number(text: &str) -> Option<f64> {
    match text {
        // A failed test, as existing monitors write it.
        "False" => Some(0.0),
        "True" => Some(1.0),
        _ => text.parse().ok().filter(|number: &f64| number.is_finite()),
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "True" | "true" | "1" => Some(true),
        "False" | "false" | "0" => Some(false),
        _ => None,
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(field: Field, text: &str) -> (Local, Vec<String>) {
        let mut local = Local::default();
        let unreadable = read(&Readings::from([(field, text.to_owned())]), &mut local);
        (local, unreadable)
    }

    #[test]
    fn each_text_becomes_its_number() {
        assert_eq!(read_one(Field::Network, "0.8").0.network, Some(0.8));
        assert_eq!(read_one(Field::Network, "False").0.network, Some(0.0));
        assert_eq!(read_one(Field::Bridge, "False").0.bridge, Some(false));
        assert_eq!(read_one(Field::MemFree, "1234").0.mem_free, Some(1234.0));
        assert_eq!(read_one(Field::CpuLoad, "None"), (Local::default(), vec![]));
        let text = r#"{"vm": "up", "health": "good", "detail": "Up"}"#;
        let engine = read_one(Field::EngineHealth, text).0.engine.expect("a status");
        assert_eq!((engine.vm, engine.health), (VmState::Up, Health::Good));
    }

    #[test]
    fn what_is_not_understood_is_no_result_and_is_told() {
        for (field, text) in [
            (Field::Network, "NaN"),
            (Field::Bridge, "maybe"),
            (Field::EngineHealth, "[1"),
            (Field::MemFree, ""),
        ] {
            let (local, unreadable) = read_one(field, text);
            assert_eq!(local, Local::default());
            assert_eq!(unreadable.len(), 1, "{field:?} {text}");
        }
    }

    #[test]
    fn a_vm_that_exists_is_not_down() {
        let down = r#"{"vm": "down", "health": "bad", "detail": "unknown"}"#;
        let vm = |activity, lease| VmStatus { activity, exit: None, lease, pid: Some(1) };
        let lost = LeaseHolding::Lost { detail: String::new() };
        for (status, wanted) in [
            (vm(VmActivity::PoweringUp, LeaseHolding::Held), VmState::Up),
            (vm(VmActivity::PoweringUp, lost), VmState::Down),
            (vm(VmActivity::Down, LeaseHolding::NoVm), VmState::Down),
        ] {
            let (mut local, _) = read_one(Field::EngineHealth, down);
            correct_stale_health(&mut local, &status);
            assert_eq!(local.vm(), wanted, "{status:?}");
        }
    }
}
