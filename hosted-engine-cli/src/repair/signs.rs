//! Whether anybody in the cluster lives: an agent, a broker, the engine VM.

use ha_config::{HaToml, HostedEngineConf};

use super::Stop;
use super::liveness::{Snapshot, patience, watch};
use crate::lease_status::gather::{LeaseState, Picture, engine_vm_lease, picture};
use crate::setup::Report;

/// Refuses when a host writes its block or renews its lease, or when the host that has the engine VM's lease does.
pub(crate) async fn refuse_life(
    conf: &HostedEngineConf,
    toml: &HaToml,
    report: &dyn Report,
) -> Result<(), Stop> {
    let (before, first) = (picture(conf), Snapshot::read(conf)?);
    let (suspects, wait) = (first.suspects(), patience(toml, &first));
    let is_watched = !suspects.is_empty();
    let (live, last) = watch(conf, first, &suspects, None, wait, report).await?;
    if !live.is_empty() {
        let signs: Vec<_> = live.iter().map(|(host, sign)| format!("{}: {sign}", last.name(*host))).collect();
        return Err(Stop::refused(format!(
            "Refused: hosts are alive ({}). Stop the HA services of all hosts first (systemctl stop ovirt-ha-agent \
             ovirt-ha-broker)",
            signs.join("; ")
        )));
    }
    let Some(owner) = owner(&before) else { return Ok(()) };
    if !is_watched {
        report.info(&format!(
            "Watching the owner of the engine VM's lease for {} s",
            wait.as_secs_f64().ceil()
        ));
        tokio::time::sleep(wait).await;
    }
    match renewed(&before, &picture(conf), owner) {
        None => Ok(()),
        Some(name) => Err(Stop::refused(format!(
            "Refused: the engine VM runs on host {owner} ({name}), which holds its lease and lives. Shut it down first \
             (hosted-engine --vm-shutdown there)"
        ))),
    }
}

/// The host that has the engine VM's lease, or had it when it died.
fn owner(picture: &Picture) -> Option<u64> {
    match engine_vm_lease(picture)?.status {
        LeaseState::Exclusive { host_id, is_outdated: false, .. } => Some(host_id),
        LeaseState::Exclusive { .. } | LeaseState::Free | LeaseState::Missing => None,
    }
}

/// The name of the host if it still has the lease and renewed its number meanwhile.
fn renewed(before: &Picture, after: &Picture, host: u64) -> Option<String> {
    if owner(after) != Some(host) {
        return None;
    }
    // The storage domain's lockspace: there the VM's lease is.
    let row = |picture: &Picture| {
        picture
            .lockspaces
            .get(1)
            .and_then(|space| space.hosts.iter().find(|row| row.host_id == host).cloned())
    };
    let (before, after) = (row(before), row(after)?);
    let is_same = before.is_some_and(|before| before.renewed == after.renewed);
    (after.is_taken && !is_same).then_some(after.name)
}
