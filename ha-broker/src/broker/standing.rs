//! What this host may still say of itself. Its block is what it last could write; once it has lost its storage or its host
//! id lease, nothing newer gets there, the other hosts take it for dead soon, and another one may start the VM. So from
//! that moment on no display repeats the good words of the block: not the own row, not the list of live hosts.
//!
//! The block itself is handed out as storage has it, and the VM is not touched: its own lease decides about it.

use broker_api::status::{AgentReport, GoodRow, LeaseState, ScoreTerm, StorageState};
use metadata_format::{Health, Score};

/// Why this host must not speak well of itself; `None` while it may.
pub fn lost(storage: &StorageState, lease: &LeaseState) -> Option<&'static str> {
    match (lease, storage) {
        (LeaseState::Lost { .. }, _) => Some("this host lost its host id lease: nothing that it says counts"),
        (_, StorageState::Stuck { .. } | StorageState::Failed { .. }) => {
            Some("this host lost its storage: what it says does not reach the other hosts")
        }
        (
            LeaseState::NotRequested | LeaseState::Joining { .. } | LeaseState::Held { .. },
            StorageState::Starting | StorageState::Connecting { .. } | StorageState::Good { .. },
        ) => None,
    }
}

/// Takes the good words out of this host's own row.
pub fn disown(row: &mut GoodRow, why: &str) {
    row.live = false;
    row.score = Score(0);
    if row.engine_status.health == Health::Good {
        row.engine_status.health = Health::Unknown;
    }
    row.engine_status.reason = Some(why.to_owned());
}

/// Takes the score out of what this host's agent said of itself before it knew.
pub fn disown_report(report: &mut AgentReport, why: &str) {
    if report.score.0 > 0 {
        let points = -i64::from(report.score.0);
        report.score_terms.push(ScoreTerm { name: "standing".to_owned(), points, reason: why.to_owned() });
        report.score = Score(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_lease_or_lost_storage_takes_the_word_and_being_on_the_way_does_not() {
        let held = || LeaseState::Held { since: 1 };
        let gone = || LeaseState::Lost { since: 1, error: String::new() };
        let good = || StorageState::Good { read_ms: 1 };
        let stuck = || StorageState::Stuck { since: 1, operation: String::new(), next_try: None };
        let failed = || StorageState::Failed { since: 1, error: String::new(), next_try: None };
        for (storage, lease, is_lost) in [
            (good(), held(), false),
            (good(), LeaseState::Joining { since: 1 }, false),
            (StorageState::Starting, LeaseState::NotRequested, false),
            (good(), gone(), true),
            (stuck(), held(), true),
            (failed(), held(), true),
            (stuck(), gone(), true),
        ] {
            assert_eq!(lost(&storage, &lease).is_some(), is_lost, "{storage:?} {lease:?}");
        }
    }
}
