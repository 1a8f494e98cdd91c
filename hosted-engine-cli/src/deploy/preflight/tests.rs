//! All checks together, on the machine that runs the tests.

use clock::{Clock as _, SystemClock};

use super::*;
use crate::deploy::fixture::Fixture;
use crate::deploy::testing::Heard;
use crate::deploy::{Installed, StorageKind};

#[test]
fn everything_that_is_wrong_is_found_at_once() {
    let mut fixture = Fixture::new();
    let first = fixture.first();
    first.storage.kind = StorageKind::Directory;
    first.storage.connection = "/no/such/storage".to_owned();
    first.engine.fqdn = "localhost.localdomain".to_owned();
    first.network.origin = crate::deploy::BridgeOrigin::Over("no-such-card".to_owned());
    first.network.test = "none".to_owned();
    first.network.gateway = None;
    first.vm.memory_mb = 1 << 40;
    let report = Heard::default();
    let begin = SystemClock.monotonic();
    let found = check(&fixture.world(&Installed, &report));
    assert!(SystemClock.monotonic().saturating_since(begin) < Duration::from_mins(1));
    let blockers: Vec<String> = found
        .iter()
        .filter(|finding| finding.severity == Severity::Blocker)
        .map(ToString::to_string)
        .collect();
    for words in [
        "no/such/storage",
        "localhost.localdomain",
        "no network card no-such-card",
        "this whole host",
        "sanlock does not answer",
    ] {
        assert!(blockers.iter().any(|text| text.contains(words)), "{words}: {blockers:#?}");
    }
    assert!(found.is_sorted(), "the worst come first");
    assert_eq!(report.all(), Vec::<String>::new());
}

#[test]
fn no_program_takes_longer_than_all_checks_may() {
    let tools = Hasty { tools: &Installed, end: SystemClock.monotonic().plus(Duration::from_millis(100)) };
    let error = tools.run(&Call::new("sleep").arg("60")).unwrap_err();
    assert!(matches!(error, ToolError::TooSlow { .. }), "{error}");
}
