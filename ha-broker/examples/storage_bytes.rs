//! Prints what one host reads of the shared metadata file per minute, for some numbers of hosts and paces of reading, by
//! the plan that the broker follows: `cargo run -p ha-broker --example storage_bytes`.

use std::collections::BTreeSet;
use std::time::Duration;

use ha_broker::whiteboard::plan::{Planner, bytes_of, cycle_length};

/// An answer of storage that is in no trouble.
const QUICK: Duration = Duration::from_millis(5);
/// Long enough for the sweep over all 2000 blocks to come round.
const SPAN: Duration = Duration::from_hours(1);

fn per_minute(hosts: u16, poll: Duration) -> (u64, u64) {
    let used: BTreeSet<u16> = (1..=hosts).collect();
    let mut planner = Planner::default();
    // The first cycle reads everything, once.
    let _ = planner.next_cycle(&used);
    let (mut bytes, mut reads, mut time) = (0, 0, Duration::ZERO);
    while time < SPAN {
        let cycle = bytes_of(&planner.next_cycle(&used));
        bytes += cycle;
        reads += 1;
        time += cycle_length(cycle, QUICK, poll) + QUICK;
    }
    let minutes = time.as_secs() / 60;
    (bytes / minutes, reads / minutes)
}

fn main() {
    println!(
        "| hosts | remote_poll, s | reads per minute | KiB read per minute |\n| --- | --- | --- | --- |"
    );
    for hosts in [3, 64, 2000] {
        for poll in [10, 2, 1] {
            let (bytes, reads) = per_minute(hosts, Duration::from_secs(poll));
            println!("| {hosts} | {poll} | {reads} | {} |", bytes / 1024);
        }
    }
}
