//! Further parts of what a whole cluster must do: storage that a host without the VM loses for a while.

use super::*;

fn runs_engine(sandbox: &Sandbox, seen_from: &str) -> Option<&'static str> {
    let rows = status(sandbox, seen_from);
    ["1", "2", "3"].into_iter().find(|id| rows[id]["engine-status"]["vm"] == "up")
}

/// Errors for less time than the leases last, on a host without the VM: it says since when and when it tries again, and
/// goes on by itself.
pub fn a_host_without_the_vm_loses_its_storage_for_a_while(sandbox: &Sandbox) {
    let engine = runs_engine(sandbox, "3").expect("the VM runs");
    let host = ["1", "2", "3"].into_iter().find(|host| *host != engine).expect("another host");
    sandbox.ok(&["fail-storage", host]);
    let shown = wait::until("the host to say so", SEEN, || {
        let text = text(sandbox, host);
        text.contains("Storage fails since ").then_some(text)
    });
    assert!(
        shown.contains("; next try at ") && shown.contains("the rows show what was read before"),
        "{shown}"
    );
    assert_eq!(runs_engine(sandbox, engine), Some(engine));
    sandbox.ok(&["resume-storage", host]);
    wait::until("the host to go on by itself", SEEN, || {
        let well = !text(sandbox, host).contains("Storage fails")
            && status(sandbox, host)[host]["live-data"] == true;
        well.then_some(())
    });
    all_hosts_are_live_and_one_runs_the_engine(sandbox);
    assert_eq!(runs_engine(sandbox, engine), Some(engine), "nothing moved");
}
