//! Looking at leases. Needs no daemon: without one, who holds a lease is told by its record alone.

use std::fmt::Write as _;

use anyhow::{anyhow, bail};
use ha_config::HostedEngineConf;
use serde_json::json;

use crate::lease_status::gather::{self, LeaseState, LeaseView};
use crate::lease_status::render;
use crate::terminal::Terminal;

/// Every lease, and what could not be found out.
fn look(conf: &HostedEngineConf) -> anyhow::Result<(Vec<LeaseView>, Vec<String>)> {
    let (hosts, problems) = gather::domain_hosts(conf);
    let leases = gather::vm_leases(conf, &hosts).map_err(|error| anyhow!(error))?;
    Ok((leases, problems))
}

fn warn(problems: &[String], terminal: &mut Terminal) {
    for problem in problems {
        terminal.complain(format!("!! {problem}"));
    }
}

/// `--lease-list`.
pub fn list(conf: &HostedEngineConf, as_json: bool, terminal: &mut Terminal) -> anyhow::Result<()> {
    let (leases, problems) = look(conf)?;
    if as_json {
        terminal.say(json!({ "leases": leases, "problems": problems }).to_string());
        return Ok(());
    }
    if leases.is_empty() {
        terminal.say("There are no leases of VMs on the storage domain.");
    } else {
        terminal.print(&render::leases(&leases));
    }
    warn(&problems, terminal);
    Ok(())
}

/// `--lease-info`.
pub fn one(
    conf: &HostedEngineConf,
    name: &str,
    as_json: bool,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let (leases, problems) = look(conf)?;
    let Some(lease) = leases.iter().find(|lease| lease.name == name) else {
        bail!("there is no lease {name:?}; --lease-list shows those that there are");
    };
    if as_json {
        terminal.say(json!({ "lease": lease, "problems": problems }).to_string());
        return Ok(());
    }
    terminal.print(&text(lease));
    warn(&problems, terminal);
    Ok(())
}

fn text(lease: &LeaseView) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<10}{value}");
    };
    line("name", &lease.name);
    line("lockspace", &lease.lockspace);
    line("path", &lease.path.display().to_string());
    line("offset", &lease.offset.to_string());
    match &lease.status {
        LeaseState::Free => line("status", "FREE"),
        LeaseState::Missing => line("status", "MISSING"),
        LeaseState::Exclusive { host_id, generation, name, owner_state, is_outdated, .. } => {
            line("status", "EXCLUSIVE");
            let name = name.as_ref().map_or(String::new(), |name| format!(" ({name})"));
            let state = match (is_outdated, owner_state) {
                (true, _) => ", which has joined anew since: free to take".to_owned(),
                (false, Some(state)) => format!(", {state}"),
                (false, None) => String::new(),
            };
            line("owner", &format!("host {host_id}{name}, generation {generation}{state}"));
        }
    }
    out
}
