//! Saying it: a table for people, JSON for programs. Pure.

use std::fmt::Write as _;

use super::gather::{HostRow, LeaseState, LeaseView, Picture};

/// One line of JSON.
pub fn json(picture: &Picture) -> String {
    // Plain structs with text keys: there is nothing in them that JSON could not hold.
    serde_json::to_string(picture)
        .unwrap_or_else(|error| serde_json::json!({ "exception": error.to_string() }).to_string())
}

/// Tables.
pub fn text(picture: &Picture) -> String {
    let mut out = match &picture.sanlock {
        Ok(version) => format!("sanlock {version}\n"),
        Err(error) => format!("sanlock does not answer: {error}\nWhat follows stands on storage.\n"),
    };
    if let Some(times) = &picture.times {
        let profile = times.profile.map_or(String::new(), |profile| format!("profile {profile}, "));
        let _ = writeln!(
            out,
            "Times: {profile}N = {} s, W = {} s: a lease is lost {} s after its last renewal, and free for another host \
             after {} s",
            times.io_timeout, times.watchdog_timeout, times.lost_after, times.free_after
        );
    }
    for space in &picture.lockspaces {
        let _ = write!(out, "\nLockspace {} ({}), {}\n", space.name, space.purpose, space.joined);
        if space.hosts.is_empty() {
            out.push_str("  no host id was ever taken, or it cannot be read\n");
            continue;
        }
        let head = ["host", "name", "state", "generation", "last renewal", "N", "its leases are free"]
            .map(ToOwned::to_owned);
        let watchdog = picture.times.as_ref().map_or(60, |times| times.watchdog_timeout);
        let rows = space.hosts.iter().map(|host| host_cells(host, watchdog));
        out.push_str(&table(std::iter::once(head).chain(rows)));
    }
    if !picture.leases.is_empty() {
        out.push_str("\nLeases\n");
        out.push_str(&leases(&picture.leases));
        out.push_str("Renewals and takings are in seconds of the owner's own clock since it booted.\n");
    }
    for problem in &picture.problems {
        let _ = writeln!(out, "\n!! {problem}");
    }
    out
}

/// A table of leases.
pub fn leases(leases: &[LeaseView]) -> String {
    let head = ["of", "name", "status", "owner", "generation", "taken at"].map(ToOwned::to_owned);
    table(std::iter::once(head).chain(leases.iter().map(lease_cells)))
}

/// When another host can take what this one holds, by the daemon's verdict and the watchdog's time.
fn free_when(host: &HostRow, watchdog: u32) -> String {
    match host.state.as_deref() {
        Some("FREE" | "DEAD") => "now".to_owned(),
        Some("FAIL") => format!("in at most {watchdog} s"),
        Some("UNKNOWN") => {
            format!("in at most {} s, if it does not renew", 8 * host.io_timeout + u64::from(watchdog))
        }
        _ if !host.is_taken => "now".to_owned(),
        _ => "-".to_owned(),
    }
}

fn host_cells(host: &HostRow, watchdog: u32) -> [String; 7] {
    let from_storage = || if host.is_taken { "taken" } else { "given up" }.to_owned();
    [
        host.host_id.to_string(),
        host.name.clone(),
        host.state.clone().unwrap_or_else(from_storage),
        host.generation.to_string(),
        if host.is_taken { format!("{} s", host.renewed) } else { "-".to_owned() },
        format!("{} s", host.io_timeout),
        free_when(host, watchdog),
    ]
}

fn lease_cells(lease: &LeaseView) -> [String; 6] {
    let cells = |status: &str, owner: String, generation: String, taken: String| {
        [lease.purpose.to_owned(), lease.name.clone(), status.to_owned(), owner, generation, taken]
    };
    let none = || "-".to_owned();
    match &lease.status {
        LeaseState::Free => cells("FREE", none(), none(), none()),
        LeaseState::Missing => cells("MISSING", none(), none(), none()),
        LeaseState::Exclusive { host_id, generation, taken, name, owner_state, is_outdated } => {
            let mut owner = format!("host {host_id}");
            if let Some(name) = name {
                let _ = write!(owner, " ({name})");
            }
            if *is_outdated {
                owner.push_str(", which has joined anew since: free to take");
            } else if let Some(state) = owner_state {
                let _ = write!(owner, ", {state}");
            }
            cells("EXCLUSIVE", owner, generation.to_string(), format!("{taken} s"))
        }
    }
}

/// Columns side by side, each as wide as its widest cell.
fn table<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "  {cell:width$}");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::gather::{LockspaceView, Times};
    use super::*;

    fn picture() -> Picture {
        let host = |host_id, state: Option<&str>, is_taken| HostRow {
            host_id,
            name: format!("host{host_id}.test"),
            state: state.map(ToOwned::to_owned),
            is_taken,
            generation: 3,
            renewed: if is_taken { 812 } else { 0 },
            io_timeout: 10,
        };
        Picture {
            sanlock: Ok("3.8.5".to_owned()),
            times: Some(Times {
                profile: Some("standard"),
                io_timeout: 10,
                watchdog_timeout: 60,
                lost_after: 80,
                free_after: 140,
            }),
            lockspaces: vec![LockspaceView {
                name: "hosted-engine".to_owned(),
                purpose: "the hosts' blocks",
                path: "/x".into(),
                joined: "this host has id 1".to_owned(),
                hosts: vec![
                    host(1, Some("LIVE"), true),
                    host(2, Some("FAIL"), true),
                    host(3, Some("UNKNOWN"), true),
                    host(12, None, false),
                ],
            }],
            leases: vec![LeaseView {
                name: "vol".to_owned(),
                purpose: "engine VM",
                lockspace: "sd".to_owned(),
                path: "/y".into(),
                offset: 0,
                status: LeaseState::Exclusive {
                    host_id: 1,
                    generation: 3,
                    taken: 700,
                    name: Some("host1.test".to_owned()),
                    owner_state: Some("LIVE".to_owned()),
                    is_outdated: false,
                },
            }],
            problems: vec!["the leases of other VMs: no".to_owned()],
        }
    }

    #[test]
    fn people_see_tables() {
        let wanted = "\
sanlock 3.8.5
Times: profile standard, N = 10 s, W = 60 s: a lease is lost 80 s after its last renewal, and free for another host after 140 s

Lockspace hosted-engine (the hosts' blocks), this host has id 1
  host  name         state     generation  last renewal  N     its leases are free
  1     host1.test   LIVE      3           812 s         10 s  -
  2     host2.test   FAIL      3           812 s         10 s  in at most 60 s
  3     host3.test   UNKNOWN   3           812 s         10 s  in at most 140 s, if it does not renew
  12    host12.test  given up  3           -             10 s  now

Leases
  of         name  status     owner                      generation  taken at
  engine VM  vol   EXCLUSIVE  host 1 (host1.test), LIVE  3           700 s
Renewals and takings are in seconds of the owner's own clock since it booted.

!! the leases of other VMs: no
";
        assert_eq!(text(&picture()), wanted);
    }

    #[test]
    fn programs_see_the_same() {
        let value: serde_json::Value = serde_json::from_str(&json(&picture())).unwrap();
        assert_eq!(value["sanlock"]["Ok"], "3.8.5");
        assert_eq!(value["leases"][0]["status"]["status"], "EXCLUSIVE");
        assert_eq!(value["lockspaces"][0]["hosts"][1]["is_taken"], true);
        assert_eq!(value["lockspaces"][0]["hosts"][3]["is_taken"], false);
    }
}
