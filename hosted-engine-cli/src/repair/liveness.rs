//! Which hosts are alive, from shared storage alone: whose block or lease changes while one looks.
//!
//! The clock of another host is never compared with ours. A host that shows no sign within the time in which it must
//! have renewed is *silent*, not dead: a frozen host comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clock::{Clock, SystemClock};
use ha_config::{HaToml, HostedEngineConf};
use metadata_format::{BLOCK_SIZE, BlockError, GlobalBlock, HostBlock, HostId, MAX_HOST_ID, block_offset};
use sanlock_client::DeltaRecord;

use super::Stop;
use crate::delta_lease;
use crate::setup::Report;
use crate::shared_file::SharedFile;

/// All hosts' blocks and leases at one moment.
pub(super) struct Snapshot {
    /// Block 0.
    pub global: Vec<u8>,
    /// Blocks that are present.
    pub blocks: BTreeMap<HostId, Vec<u8>>,
    /// Leases that there ever were.
    pub leases: BTreeMap<HostId, DeltaRecord>,
}

impl Snapshot {
    pub fn read(conf: &HostedEngineConf) -> Result<Self, Stop> {
        let lockspace = SharedFile::open(&conf.lockspace_path()?, false)?;
        let leases = delta_lease::read_all(&lockspace)?;
        let metadata = SharedFile::open(&conf.metadata_path()?, false)?;
        let bytes = metadata.read(0, usize::from(MAX_HOST_ID) * BLOCK_SIZE + BLOCK_SIZE)?;
        let mut parts = bytes.chunks(BLOCK_SIZE);
        let global = parts.next().unwrap_or_default().to_vec();
        let ids = (1..=MAX_HOST_ID).filter_map(|id| HostId::new(id).ok());
        let blocks =
            ids.zip(parts).filter(|(_, block)| block[0] != 0).map(|(id, block)| (id, block.to_vec()));
        Ok(Self { global, blocks: blocks.collect(), leases })
    }

    /// Global maintenance; false when block 0 cannot be read.
    pub fn global_maintenance(&self) -> bool {
        GlobalBlock::parse(&self.global).is_ok_and(|block| block.maintenance())
    }

    /// A host's block.
    pub fn block(&self, host: HostId) -> Result<Option<HostBlock>, BlockError> {
        self.blocks.get(&host).map_or(Ok(None), |bytes| HostBlock::parse(host, bytes))
    }

    /// A host's name, for messages.
    pub fn name(&self, host: HostId) -> String {
        let from_block = self.block(host).ok().flatten().map(|block| block.hostname);
        let name = from_block.or_else(|| self.leases.get(&host).map(|lease| lease.owner.clone()));
        name.map_or_else(|| format!("host {host}"), |name| format!("host {host} ({name})"))
    }

    /// Hosts that may be alive: their lease was not given up, or their agent did not say that it stopped.
    pub fn suspects(&self) -> BTreeSet<HostId> {
        let held = self.leases.iter().filter(|(_, lease)| lease.is_taken()).map(|(id, _)| *id);
        let active = self.blocks.keys().copied().filter(|id| match self.block(*id) {
            Ok(block) => block.is_some_and(|block| !block.stopped),
            Err(_) => true,
        });
        held.chain(active).collect()
    }

    /// What shows that `host` was alive between this and `later`, if anything does.
    pub fn sign_of_life(&self, later: &Self, host: HostId, look_at_lease: bool) -> Option<&'static str> {
        let renewed = match (self.leases.get(&host), later.leases.get(&host)) {
            (Some(before), Some(after)) => before.renewed_until(after),
            (None, Some(after)) => after.is_taken(),
            (_, None) => false,
        };
        if renewed && look_at_lease {
            return Some("it renews its lease");
        }
        let after = later.blocks.get(&host)?;
        let changed = self.blocks.get(&host) != Some(after);
        let stopped = later.block(host).ok().flatten().is_some_and(|block| block.stopped);
        (changed && !stopped).then_some("it writes its block")
    }
}

/// How long a living host may take to show a sign.
pub(super) fn patience(toml: &HaToml, snapshot: &Snapshot) -> Duration {
    let slowest =
        snapshot.leases.values().filter(|lease| lease.is_taken()).map(|lease| lease.io_timeout).max();
    // Renewals come every 2 N, and each may take N.
    let lease = Duration::from_secs(3 * slowest.map_or(u64::from(toml.lease.io_timeout), u64::from));
    lease.max(toml.timers.loop_interval * 3)
}

/// Looks at `hosts` until one shows a sign of life or their time is over; gives those that did and the last look.
/// `own` is a host whose lease this host itself renews, so that only its block counts.
pub(super) async fn watch(
    conf: &HostedEngineConf,
    first: Snapshot,
    hosts: &BTreeSet<HostId>,
    own: Option<HostId>,
    patience: Duration,
    report: &dyn Report,
) -> Result<(BTreeMap<HostId, &'static str>, Snapshot), Stop> {
    let mut live = BTreeMap::new();
    if hosts.is_empty() {
        return Ok((live, first));
    }
    report.info(&format!("Watching {} for up to {} s", names(&first, hosts), patience.as_secs_f64().ceil()));
    let begun = SystemClock.monotonic();
    loop {
        // Storage sends no events.
        tokio::time::sleep(Duration::from_millis(500).min(patience)).await;
        let later = Snapshot::read(conf)?;
        for host in hosts {
            if let Some(sign) = first.sign_of_life(&later, *host, own != Some(*host)) {
                live.insert(*host, sign);
            }
        }
        if !live.is_empty() || SystemClock.monotonic().saturating_since(begun) >= patience {
            return Ok((live, later));
        }
    }
}

/// Hosts by number and name.
pub(super) fn names<'h>(snapshot: &Snapshot, hosts: impl IntoIterator<Item = &'h HostId>) -> String {
    let mut all: Vec<_> = hosts.into_iter().map(|host| snapshot.name(*host)).collect();
    let more = all.len().saturating_sub(8);
    all.truncate(8);
    let list = all.join(", ");
    if more == 0 { list } else { format!("{list} and {more} more") }
}

/// The bytes of one host's block as they are now.
pub(crate) fn read_block(file: &SharedFile, host: HostId) -> Result<Vec<u8>, Stop> {
    Ok(file.read(block_offset(host.get()), BLOCK_SIZE)?)
}
