//! Looking: at the daemon's socket and at the volumes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_config::ha_toml::{LeaseTable, RecoveryProfile};
use ha_config::{HaToml, HostedEngineConf, multipath, sanlock_conf};
use metadata_format::HostId;
use sanlock_client::{
    Client, DeltaRecord, GridSize, HostState, LockspaceName, LockspacePhase, LockspaceRecord, Owner,
    PAXOS_RECORD_BYTES, PaxosRecord,
};
use serde::Serialize;
use xleases::{IndexError, VolumeError};

use crate::delta_lease;
use crate::setup::LOCKSPACE_NAME;
use crate::shared_file::{SharedFile, UNIT};

/// How long the daemon may take for an answer; it has them in memory.
const DEADLINE: Duration = Duration::from_secs(5);

/// What the storage domain's lockspace is for.
const DOMAIN_PURPOSE: &str = "the VMs' leases";

/// What the engine VM's lease protects.
const ENGINE_VM: &str = "engine VM";

/// Everything that is shown.
#[derive(Debug, Serialize)]
pub struct Picture {
    /// The daemon's release, or why it does not answer.
    pub sanlock: Result<String, String>,
    /// This host's times; `None` when ha.toml cannot be read.
    pub times: Option<Times>,
    /// The two lockspaces.
    pub lockspaces: Vec<LockspaceView>,
    /// The engine VM's lease, then those of other VMs.
    pub leases: Vec<LeaseView>,
    /// What could not be looked at, and why.
    pub problems: Vec<String>,
}

impl Picture {
    /// Nobody could tell anything.
    pub fn is_blind(&self) -> bool {
        self.sanlock.is_err() && self.lockspaces.iter().all(|space| space.hosts.is_empty())
    }
}

/// The times that the leases run by on this host, in seconds.
#[derive(Debug, Serialize)]
pub struct Times {
    /// The profile with just these times.
    pub profile: Option<&'static str>,
    /// N
    pub io_timeout: u32,
    /// W
    pub watchdog_timeout: u32,
    /// 8N: a lease is lost so long after its last renewal.
    pub lost_after: u64,
    /// 8N + W: another host can take it.
    pub free_after: u64,
}

impl Times {
    fn of(table: &LeaseTable) -> Self {
        Self {
            profile: table.profile().map(RecoveryProfile::name),
            io_timeout: table.io_timeout,
            watchdog_timeout: table.watchdog_timeout,
            lost_after: table.lost_after().as_secs(),
            free_after: table.dead_after().as_secs(),
        }
    }
}

/// Hosts of a lockspace that renew by another N than this host's ha.toml has.
fn other_times(space: &LockspaceView, own: u32) -> Vec<String> {
    let differs = |host: &&HostRow| host.is_taken && host.io_timeout != u64::from(own);
    let text = |host: &HostRow| {
        format!(
            "host {} ({}) is in the lockspace {} with io_timeout {}, and this host's ha.toml has lease.io_timeout = {own}: \
             it must be the same on all hosts",
            host.host_id, host.name, space.name, host.io_timeout
        )
    };
    space.hosts.iter().filter(differs).map(text).collect()
}

/// A lockspace.
#[derive(Debug, Serialize)]
pub struct LockspaceView {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub purpose: &'static str,
    /// The volume.
    pub path: PathBuf,
    /// This host in it, in words.
    pub joined: String,
    /// The ids that were ever taken.
    pub hosts: Vec<HostRow>,
}

/// One host id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostRow {
    /// The id.
    pub host_id: u64,
    /// Name of the host that has it, or had it last.
    pub name: String,
    /// The daemon's verdict; `None` when it cannot say: it is not in this lockspace.
    pub state: Option<String>,
    /// Whether the record on storage says that somebody has the id, or had it when it died.
    pub is_taken: bool,
    /// Grows each time the id is taken.
    pub generation: u64,
    /// The last renewal, in seconds of that host's own monotonic clock; 0 after the id was given up.
    pub renewed: u64,
    /// Its I/O time-out N in seconds.
    pub io_timeout: u64,
}

/// A lease.
#[derive(Debug, Serialize)]
pub struct LeaseView {
    /// Its name.
    pub name: String,
    /// What it protects.
    pub purpose: &'static str,
    /// The lockspace.
    pub lockspace: String,
    /// The volume.
    pub path: PathBuf,
    /// Its offset there in bytes.
    pub offset: u64,
    /// Who has it.
    pub status: LeaseState,
}

/// Who has a lease.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE", tag = "status")]
pub enum LeaseState {
    /// Nobody.
    Free,
    /// One host, or one that died with it.
    Exclusive {
        /// The owner.
        host_id: u64,
        /// Its generation when it took the lease.
        generation: u64,
        /// Seconds of the owner's monotonic clock when it took it.
        taken: u64,
        /// The owner's host name, when its host id's record tells it.
        name: Option<String>,
        /// The daemon's verdict on the owner.
        owner_state: Option<String>,
        /// The owner's id was taken anew since: what it took before it owns no more.
        is_outdated: bool,
    },
    /// There is no lease in this place.
    Missing,
}

/// Looks at everything. What fails becomes a problem and does not hide the rest.
pub fn picture(conf: &HostedEngineConf) -> Picture {
    let client = Client::new(conf.paths().sanlock_socket()).with_deadline(DEADLINE);
    let sanlock = client.version().map(|version| version.to_string()).map_err(|error| error.to_string());
    let mut problems = Vec::new();
    let joined = match client.get_lockspaces() {
        Ok(joined) => joined,
        Err(error) => {
            problems.push(format!("which lockspaces this host has joined is not known: {error}"));
            Vec::new()
        }
    };
    let mut keep = |error: String| problems.push(error);
    let mut lockspaces = Vec::new();
    for (name, purpose, path) in [
        (Ok(LOCKSPACE_NAME), "the hosts' blocks", conf.lockspace_path()),
        (conf.sd_uuid(), DOMAIN_PURPOSE, conf.ids_path()),
    ] {
        match (name, path) {
            (Ok(name), Ok(path)) => {
                lockspaces.push(lockspace(&client, &joined, name.to_owned(), purpose, path, &mut keep));
            }
            (Err(error), _) | (_, Err(error)) => keep(error.to_string()),
        }
    }
    let hosts = lockspaces.get(1).map_or(&[][..], |space| space.hosts.as_slice());
    let mut leases = Vec::new();
    match engine_lease(conf, hosts) {
        Ok(lease) => leases.push(lease),
        Err(error) => keep(format!("the engine VM's lease: {error}")),
    }
    match vm_leases(conf, hosts) {
        Ok(more) => {
            let is_known = |lease: &LeaseView| leases.iter().any(|known| known.name == lease.name);
            let more: Vec<_> = more.into_iter().filter(|lease| !is_known(lease)).collect();
            leases.extend(more);
        }
        Err(error) => keep(format!("the leases of other VMs: {error}")),
    }
    let times = match HaToml::load(conf.paths()) {
        Ok(toml) => {
            let own = toml.lease.io_timeout;
            problems.extend(lockspaces.iter().flat_map(|space| other_times(space, own)));
            problems.extend(multipath::warnings(conf.paths(), &toml.lease));
            problems.extend(sanlock_conf::warning(conf.paths(), &toml.lease));
            Some(Times::of(&toml.lease))
        }
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    };
    Picture { sanlock, times, lockspaces, leases, problems }
}

fn lockspace(
    client: &Client,
    joined: &[LockspaceRecord],
    name: String,
    purpose: &'static str,
    path: PathBuf,
    problem: &mut dyn FnMut(String),
) -> LockspaceView {
    let own = joined.iter().find(|record| record.lockspace.name.as_str() == name);
    let records = SharedFile::open(&path, false).and_then(|file| delta_lease::read_all(&file));
    let records = records.unwrap_or_else(|error| {
        problem(format!("lockspace {name}: {error}"));
        BTreeMap::new()
    });
    let mut verdicts = BTreeMap::new();
    if own.is_some_and(|own| own.phase == LockspacePhase::Joined) {
        let answer = LockspaceName::new(&name)
            .map_err(|error| error.to_string())
            .and_then(|name| client.get_hosts(&name, None).map_err(|error| error.to_string()));
        match answer {
            Ok(hosts) => verdicts = hosts.into_iter().map(|host| (host.host_id, host.state)).collect(),
            Err(error) => problem(format!("lockspace {name}: which hosts are alive is not known: {error}")),
        }
    }
    let joined = own.map_or("this host has not joined it".to_owned(), |own| {
        let id = own.lockspace.host_id;
        match own.phase {
            LockspacePhase::Joined => format!("this host has id {id}"),
            LockspacePhase::Joining => format!("this host is taking id {id}"),
            LockspacePhase::Leaving => format!("this host is giving id {id} up"),
            LockspacePhase::NotJoined => "this host has not joined it".to_owned(),
        }
    });
    LockspaceView { name, purpose, path, joined, hosts: rows(&records, &verdicts) }
}

/// The ids that were ever taken.
fn rows(records: &BTreeMap<HostId, DeltaRecord>, verdicts: &BTreeMap<u64, HostState>) -> Vec<HostRow> {
    let used = records.iter().filter(|(_, record)| record.generation > 0);
    used.map(|(id, record)| {
        let host_id = u64::from(id.get());
        HostRow {
            host_id,
            name: record.owner.clone(),
            state: verdicts.get(&host_id).map(HostState::to_string),
            is_taken: record.is_taken(),
            generation: record.generation,
            renewed: record.timestamp,
            io_timeout: u64::from(record.io_timeout),
        }
    })
    .collect()
}

/// The lease that protects the engine VM.
fn engine_lease(conf: &HostedEngineConf, hosts: &[HostRow]) -> Result<LeaseView, String> {
    let text = |error: ha_config::ConfigError| error.to_string();
    let named = HaToml::load(conf.paths()).map_err(text)?.lease.vm;
    if let Some(name) = named {
        let lease = vm_leases(conf, hosts)?.into_iter().find(|lease| lease.name == name);
        let missing = || {
            format!("ha.toml has [lease] vm = {name:?}, and there is no such lease: --lease-create {name}")
        };
        return lease.map(|lease| LeaseView { purpose: ENGINE_VM, ..lease }).ok_or_else(missing);
    }
    let (path, offset) = conf.vm_lease_place().map_err(text)?;
    let record = read_lease(&path, offset)?;
    Ok(LeaseView {
        name: conf.vm_lease_name().map_err(text)?.to_owned(),
        purpose: ENGINE_VM,
        lockspace: conf.sd_uuid().map_err(text)?.to_owned(),
        path,
        offset,
        status: record.map_or(LeaseState::Missing, |record| state(record.owner, hosts)),
    })
}

/// The record of the lease at `offset`.
fn read_lease(path: &Path, offset: u64) -> Result<Option<PaxosRecord>, String> {
    let file = SharedFile::open(path, false).map_err(|error| error.to_string())?;
    let bytes = file.read(offset, UNIT).map_err(|error| error.to_string())?;
    const { assert!(UNIT >= PAXOS_RECORD_BYTES, "a record fits into one read") };
    Ok(PaxosRecord::parse(&bytes))
}

/// What the record of a lease and the hosts of its lockspace say together.
fn state(owner: Option<Owner>, hosts: &[HostRow]) -> LeaseState {
    let Some(owner) = owner else { return LeaseState::Free };
    let host = hosts.iter().find(|host| host.host_id == owner.host_id);
    let same = host.filter(|host| host.generation == owner.generation);
    LeaseState::Exclusive {
        host_id: owner.host_id,
        generation: owner.generation,
        taken: owner.timestamp,
        name: same.map(|host| host.name.clone()),
        owner_state: same.and_then(|host| host.state.clone()),
        is_outdated: host.is_some_and(|host| host.generation > owner.generation),
    }
}

/// The leases of the domain's xleases volume; none when it has no such volume, or one that was never formatted.
pub(crate) fn vm_leases(conf: &HostedEngineConf, hosts: &[HostRow]) -> Result<Vec<LeaseView>, String> {
    let path = conf.xleases_path().map_err(|error| error.to_string())?;
    if !path.exists() {
        return Ok(Vec::new());
    }
    let named = |error: VolumeError| format!("{}: {error}", path.display());
    let volume = match xleases::open_to_read(&path, domain_grid(conf)) {
        Ok(volume) => volume,
        Err(VolumeError::Index(IndexError::Blank)) => return Ok(Vec::new()),
        Err(error) => return Err(named(error)),
    };
    let (leases, damaged) = volume.list().map_err(named)?;
    if let Some(first) = damaged.first() {
        let (path, all) = (path.display(), damaged.len());
        return Err(format!("{path}: {first} ({all} such records): hosted-engine --lease-rebuild mends it"));
    }
    let view = |lease: xleases::Lease| LeaseView {
        name: lease.name.to_string(),
        purpose: "VM",
        lockspace: lease.lockspace,
        path: path.clone(),
        offset: lease.offset,
        status: state(lease.owner, hosts),
    };
    Ok(leases.into_iter().map(view).collect())
}

/// The grid of the storage domain's lockspace, which its VM leases share; `None` when it cannot be read.
pub(crate) fn domain_grid(conf: &HostedEngineConf) -> Option<GridSize> {
    let file = SharedFile::open(&conf.ids_path().ok()?, false).ok()?;
    DeltaRecord::parse(&file.read(0, UNIT).ok()?).map(|record| record.grid())
}

/// The hosts of the storage domain's lockspace, and what could not be found out about them.
pub(crate) fn domain_hosts(conf: &HostedEngineConf) -> (Vec<HostRow>, Vec<String>) {
    let client = Client::new(conf.paths().sanlock_socket()).with_deadline(DEADLINE);
    let mut problems = Vec::new();
    let joined = client.get_lockspaces().unwrap_or_else(|error| {
        problems.push(error.to_string());
        Vec::new()
    });
    let mut keep = |error: String| problems.push(error);
    let hosts = match (conf.sd_uuid(), conf.ids_path()) {
        (Ok(name), Ok(path)) => {
            lockspace(&client, &joined, name.to_owned(), DOMAIN_PURPOSE, path, &mut keep).hosts
        }
        (Err(error), _) | (_, Err(error)) => {
            keep(error.to_string());
            Vec::new()
        }
    };
    (hosts, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(host_id: u64, generation: u64, state: &str) -> HostRow {
        HostRow {
            host_id,
            name: format!("h{host_id}"),
            state: Some(state.to_owned()),
            is_taken: true,
            generation,
            renewed: 5,
            io_timeout: 10,
        }
    }

    #[test]
    fn an_owner_is_named_only_while_its_id_was_not_taken_anew() {
        let owner = Owner { host_id: 2, generation: 3, timestamp: 50 };
        let of = |hosts: &[HostRow]| state(Some(owner), hosts);
        let exclusive = |name: Option<&str>, owner_state: Option<&str>, is_outdated| LeaseState::Exclusive {
            host_id: 2,
            generation: 3,
            taken: 50,
            name: name.map(ToOwned::to_owned),
            owner_state: owner_state.map(ToOwned::to_owned),
            is_outdated,
        };
        assert_eq!(of(&[row(1, 1, "LIVE"), row(2, 3, "DEAD")]), exclusive(Some("h2"), Some("DEAD"), false));
        assert_eq!(of(&[row(2, 4, "LIVE")]), exclusive(None, None, true));
        assert_eq!(of(&[]), exclusive(None, None, false));
        assert_eq!(state(None, &[]), LeaseState::Free);
    }
}
