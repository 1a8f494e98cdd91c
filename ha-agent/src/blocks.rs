//! Between blocks of shared storage and what decisions need of them. Pure: bytes in, data out, and back.

use std::collections::BTreeMap;

use ha_config::ha_toml::LeaseTable;
use jiff::tz::TimeZone;
use metadata_format::{EncodeError, EngineStatus, GlobalBlock, HostBlock, HostId, HostRecord, ctime};

use crate::core::{Core, Profile, Ready, RemoteBlock, RemoteHost, Secs, Settings, Weights};
use crate::shared_lease;

/// Line for people that names the score profile, written by hosts that do not use the existing release's.
const PROFILE_KEY: &str = "score_profile";
/// Line for people with the keys of agent.conf's `[score]` whose values are not the profile's.
const SETTINGS_KEY: &str = "score_settings";

/// Line for people: the VM moves, or is to move, from the writer to this host.
const MIGRATION_TO_KEY: &str = "migration_to";
/// Line for people: the writer can receive the VM from this host, at this address of the hypervisor.
const READY_KEY: &str = "migration_ready";

/// What the blocks say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Blocks {
    /// Global maintenance; `None` when the cluster's block is not there or cannot be read.
    pub global_maintenance: Option<bool>,
    /// The other hosts.
    pub hosts: Vec<RemoteHost>,
    /// The destination of a migration that this host's own block names.
    pub announced: Option<HostId>,
    /// What an operator should see: blocks that cannot be read, hosts that score by another profile or have other times of
    /// leases.
    pub warnings: Vec<String>,
}

/// Reads the blocks that the broker gave. `own` is left out: what this host wrote earlier is no news.
pub fn read(raw: &BTreeMap<u16, Vec<u8>>, own: HostId, weights: &Weights, lease: &LeaseTable) -> Blocks {
    let mut blocks = Blocks::default();
    for (&number, bytes) in raw {
        if number == 0 {
            match GlobalBlock::parse(bytes) {
                Ok(global) => blocks.global_maintenance = Some(global.maintenance()),
                Err(error) => blocks.warnings.push(error.to_string()),
            }
            continue;
        }
        let Ok(id) = HostId::new(number) else { continue };
        if id == own {
            // What an earlier run of this agent began.
            let own = HostBlock::parse(id, bytes).ok().flatten();
            blocks.announced = own.and_then(|block| migration_to(&block.extra));
            continue;
        }
        match HostBlock::parse(id, bytes) {
            Ok(None) => {}
            Ok(Some(block)) => {
                blocks.warnings.extend(other_scoring(&block, weights));
                let theirs = line(&block.extra, shared_lease::KEY);
                blocks.warnings.extend(shared_lease::differs(&block, theirs, lease));
                blocks.hosts.push(RemoteHost { id, block: Some(remote(block)) });
            }
            Err(error) => {
                blocks.warnings.push(error.to_string());
                blocks.hosts.push(RemoteHost { id, block: None });
            }
        }
    }
    blocks
}

fn remote(block: HostBlock) -> RemoteBlock {
    let (migration_to, ready) = (migration_to(&block.extra), ready(&block.extra));
    RemoteBlock {
        host_ts: block.host_ts,
        score: block.score,
        engine: Some(block.engine_status),
        hostname: block.hostname,
        migration_to,
        ready,
    }
}

/// The value of a line for people.
fn line<'a>(extra: &'a str, key: &str) -> Option<&'a str> {
    extra.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

/// `migration_to=<host id>`; anything else is no such line.
fn migration_to(extra: &str) -> Option<HostId> {
    line(extra, MIGRATION_TO_KEY)?.parse().ok()
}

/// `migration_ready=<source host id> <uri>`; anything else is no such line.
fn ready(extra: &str) -> Option<Ready> {
    let (from, uri) = line(extra, READY_KEY)?.split_once(' ')?;
    let is_uri = !uri.is_empty() && uri.chars().all(|c| c.is_ascii_graphic());
    Some(Ready { from: from.parse().ok()?, uri: is_uri.then(|| uri.to_owned())? })
}

/// Scores by different rules cannot be compared: a host that sees another one must say so. A host with the existing
/// release says nothing about its rules but its score; a stopped one competes with nobody.
fn other_scoring(block: &HostBlock, weights: &Weights) -> Option<String> {
    if block.stopped {
        return None;
    }
    let theirs = line(&block.extra, PROFILE_KEY).unwrap_or(Profile::Ovirt45.name());
    let host = format!("host {} (id {})", block.hostname, block.host_id);
    let advice = "all hosts of a cluster must use the same [score] settings in ha.toml and agent.conf";
    let profile = weights.profile.name();
    if theirs != profile {
        let score = block.score;
        return Some(format!(
            "{host} scores by the profile {theirs} (now {score}), this host by {profile} (at most {}): {advice}",
            weights.base
        ));
    }
    if i64::from(block.score.0) > weights.base {
        return Some(format!(
            "{host} has the score {}, above this host's highest of {}: {advice}",
            block.score, weights.base
        ));
    }
    let own = settings(weights);
    let named = |settings: &str| if settings.is_empty() { "none".to_owned() } else { settings.to_owned() };
    // Without a line it may have settings and not say so.
    line(&block.extra, SETTINGS_KEY).filter(|theirs| *theirs != own).map(|theirs| {
        format!(
            "{host} scores with settings of its own ({theirs}), other than this host's ({}): {advice}",
            named(&own)
        )
    })
}

/// What agent.conf has changed in the profile, as one line.
fn settings(weights: &Weights) -> String {
    let plain = Weights::of(weights.profile);
    let values = |weights: &Weights| {
        let Weights {
            profile: _,
            base,
            network,
            config,
            bridge,
            memory,
            cpu,
            retry,
            cpu_min,
            cpu_max,
            mem_load,
        } = weights;
        [
            base.to_string(),
            network.to_string(),
            config.to_string(),
            bridge.to_string(),
            memory.to_string(),
            cpu.to_string(),
            retry.to_string(),
            cpu_min.to_string(),
            cpu_max.to_string(),
            mem_load.to_string(),
        ]
    };
    let changed = Weights::KEYS.into_iter().zip(values(weights).into_iter().zip(values(&plain)));
    let changed = changed.filter(|(_, (own, plain))| own != plain);
    changed.map(|(key, (own, _))| format!("{key}={own}")).collect::<Vec<_>>().join(" ")
}

/// What the driver adds to the core's own state for the host's block.
#[derive(Debug, Clone)]
pub struct Own<'a> {
    /// This host.
    pub host_id: HostId,
    /// Its name.
    pub hostname: &'a str,
    /// What its score is computed with.
    pub weights: &'a Weights,
    /// Whose lease its VM has, and how long it lasts.
    pub lease: &'a LeaseTable,
    /// The configuration is on shared storage.
    pub conf_on_shared_storage: bool,
    /// When vm.conf was last read well.
    pub vm_conf_refreshed: Secs,
    /// The time zone of the texts.
    pub zone: &'a TimeZone,
    /// Further lines for people, by key.
    pub lines: Vec<(String, String)>,
}

/// The bytes of this host's block. `None` before the first look.
pub fn write(core: &Core, decides_by: &Settings, own: &Own<'_>) -> Option<Result<Vec<u8>, EncodeError>> {
    let look = &core.view.as_ref()?.look;
    let metadata = core.metadata(&decides_by.limits);
    let seconds = |at: Secs| i64::try_from(at.0).unwrap_or(i64::MAX);
    let text = |at: Secs| ctime(at.on_wall(look.wall_offset), own.zone);
    let mut notes: BTreeMap<_, _> = own.lines.iter().cloned().collect();
    if own.weights.profile != Profile::Ovirt45 {
        notes.insert(PROFILE_KEY.to_owned(), own.weights.profile.name().to_owned());
    }
    let settings = settings(own.weights);
    if !settings.is_empty() {
        notes.insert(SETTINGS_KEY.to_owned(), settings);
    }
    if let Some(lease) = shared_lease::line(own.lease) {
        notes.insert(shared_lease::KEY.to_owned(), lease);
    }
    if let Some(to) = metadata.migration_to {
        notes.insert(MIGRATION_TO_KEY.to_owned(), to.to_string());
    }
    if let Some(Ready { from, uri }) = &metadata.ready {
        notes.insert(READY_KEY.to_owned(), format!("{from} {uri}"));
    }
    let record = HostRecord {
        host_ts: seconds(look.started),
        host_time: text(look.started),
        host_id: own.host_id,
        score: core.claimed_score(decides_by.policy).total,
        engine_status: look
            .local
            .engine
            .clone()
            .unwrap_or_else(|| EngineStatus::unknown("the engine-health monitor has no result")),
        hostname: own.hostname.to_owned(),
        maintenance: metadata.maintenance,
        stopped: metadata.stopped,
        conf_on_shared_storage: own.conf_on_shared_storage,
        vm_conf_refresh_ts: seconds(own.vm_conf_refreshed),
        vm_conf_refresh_time: text(own.vm_conf_refreshed),
        state: metadata.state.name().to_owned(),
        timeout: metadata.timeout.map(text),
        notes,
    };
    Some(record.encode())
}
