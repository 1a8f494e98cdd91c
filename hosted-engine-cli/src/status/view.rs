//! What a status display is made of, from either kind of broker.

use std::collections::BTreeMap;

use broker_api::status::{GoodRow, HostRow, LeaseState, MigrationReport, StatusDocument, StorageState};
use broker_api::{BrokerClient, ClientError};
use engine_vm::VmActivity;
use jiff::tz::TimeZone;
use metadata_format::text::printable;
use metadata_format::{GlobalBlock, HostBlock, HostId, VmState, ctime};

use crate::moving;

/// Everything that the renderings need.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// Whether the cluster is in global maintenance; `None` when nobody knows.
    pub global_maintenance: Option<bool>,
    /// One row for each block that is there.
    pub rows: BTreeMap<HostId, HostRow>,
    /// What must be known before the rows are believed.
    pub warnings: Vec<Warning>,
    /// The broker's document, when it has one.
    pub document: Option<Box<StatusDocument>>,
}

/// One thing that must be known before the rows are believed. Times are wall-clock seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A storage request hangs.
    StorageStuck {
        /// Since when.
        since: i64,
        /// What hangs.
        operation: String,
        /// When the next try begins.
        next_try: Option<i64>,
    },
    /// The last storage request failed.
    StorageFailed {
        /// Since when.
        since: i64,
        /// Which error, and what to do.
        error: String,
        /// When the next try begins.
        next_try: Option<i64>,
    },
    /// The storage domain is being connected.
    StorageConnecting {
        /// Since when.
        since: i64,
        /// What is waited for.
        step: String,
        /// Why the last try failed, and what to do.
        error: Option<String>,
        /// When the next try begins.
        next_try: Option<i64>,
    },
    /// The broker has not read the metadata file yet.
    StorageUnread,
    /// The host id lease was lost.
    LeaseLost {
        /// Since when.
        since: i64,
        /// The lock manager's words.
        error: String,
    },
    /// The host id lease is not there yet.
    LeaseJoining {
        /// Since when.
        since: i64,
    },
    /// The cluster block cannot be read.
    GlobalBlock {
        /// Why, and what to do.
        error: String,
    },
    /// The cluster block has lines that we do not know.
    UnknownGlobalKeys(Vec<String>),
    /// Nothing resets this host when it stands still beyond its leases.
    NoWatchdog,
    /// This host's agent wants something to be seen.
    Agent(String),
}

impl Warning {
    /// One sentence.
    pub fn sentence(&self, zone: &TimeZone) -> String {
        match self {
            Self::StorageStuck { since, operation, next_try } => format!(
                "Storage stuck since {} ({operation}{}): the rows show what was read before",
                stamp(*since, zone),
                next(*next_try, zone)
            ),
            Self::StorageFailed { since, error, next_try } => {
                format!(
                    "Storage fails since {}: {error}{}; the rows show what was read before",
                    stamp(*since, zone),
                    next(*next_try, zone)
                )
            }
            Self::StorageConnecting { since, step, error, next_try } => {
                let since = stamp(*since, zone);
                let mut text =
                    format!("Storage is being connected through VDSM since {since}: waiting for {step}");
                if let Some(error) = error {
                    text.push_str("; the last try failed: ");
                    text.push_str(error);
                }
                text.push_str(&next(*next_try, zone));
                text
            }
            Self::StorageUnread => "The broker has not read the metadata file yet".to_owned(),
            Self::LeaseLost { since, error } => {
                format!("This host lost its host id lease at {}: {error}", stamp(*since, zone))
            }
            Self::LeaseJoining { since } => {
                format!("This host waits for its host id lease since {}", stamp(*since, zone))
            }
            Self::GlobalBlock { error } => format!("Global maintenance is unknown: {error}"),
            Self::UnknownGlobalKeys(keys) => {
                format!("The cluster block has lines that this release does not know: {}", keys.join(", "))
            }
            Self::NoWatchdog => "No watchdog: a host that freezes and thaws after its lease was taken runs a second engine VM \
                 for a moment (see 'Without a watchdog' in the operator's guide)"
                .to_owned(),
            Self::Agent(text) => format!("This host's agent warns: {text}"),
        }
    }
}

/// When the next try begins, as the end of a sentence.
fn next(at: Option<i64>, zone: &TimeZone) -> String {
    at.map_or_else(String::new, |at| format!("; next try at {}", stamp(at, zone)))
}

impl View {
    /// Asks the broker: for its document, else for its blocks.
    pub async fn fetch(broker: &BrokerClient) -> Result<Self, ClientError> {
        if let Some(document) = broker.status().await? {
            return Ok(Self::from_document(document));
        }
        let blocks = broker.get_stats().await?;
        let alive = broker.is_host_alive().await?;
        Ok(Self::from_blocks(&blocks, &alive))
    }

    /// From our broker's document.
    pub fn from_document(document: StatusDocument) -> Self {
        let storage = match &document.storage {
            StorageState::Good { .. } => None,
            StorageState::Starting => Some(Warning::StorageUnread),
            StorageState::Connecting { since, step, error, next_try } => Some(Warning::StorageConnecting {
                since: *since,
                step: step.clone(),
                error: error.clone(),
                next_try: *next_try,
            }),
            StorageState::Stuck { since, operation, next_try } => Some(Warning::StorageStuck {
                since: *since,
                operation: operation.clone(),
                next_try: *next_try,
            }),
            StorageState::Failed { since, error, next_try } => {
                Some(Warning::StorageFailed { since: *since, error: error.clone(), next_try: *next_try })
            }
        };
        let lease = match &document.lease {
            LeaseState::NotRequested | LeaseState::Held { .. } => None,
            LeaseState::Joining { since } => Some(Warning::LeaseJoining { since: *since }),
            LeaseState::Lost { since, error } => {
                Some(Warning::LeaseLost { since: *since, error: error.clone() })
            }
        };
        let watchdog = (document.watchdog == Some(false)).then_some(Warning::NoWatchdog);
        let keys = &document.unknown_global_keys;
        let keys = (!keys.is_empty()).then(|| Warning::UnknownGlobalKeys(keys.clone()));
        let agent =
            document.agent.iter().flat_map(|agent| agent.warnings.iter().cloned().map(Warning::Agent));
        Self {
            global_maintenance: document.global_maintenance,
            rows: document.hosts.clone(),
            warnings: storage.into_iter().chain(lease).chain(keys).chain(agent).chain(watchdog).collect(),
            document: Some(Box::new(document)),
        }
    }

    /// From the raw blocks of a broker without a document.
    pub fn from_blocks(blocks: &BTreeMap<u16, Vec<u8>>, alive: &[u16]) -> Self {
        let mut view = Self::default();
        if blocks.is_empty() {
            view.warnings.push(Warning::StorageUnread);
        }
        for (number, bytes) in blocks {
            // Block 0 is no host's.
            let Ok(id) = HostId::new(*number) else { continue };
            match HostBlock::parse(id, bytes) {
                Ok(None) => {}
                Ok(Some(block)) => {
                    let row = GoodRow::new(block, alive.contains(number), None);
                    view.rows.insert(id, HostRow::Good(Box::new(row)));
                }
                Err(error) => {
                    view.rows.insert(id, HostRow::Bad { error: error.to_string() });
                }
            }
        }
        match blocks.get(&0).map(|bytes| GlobalBlock::parse(bytes)).transpose() {
            Ok(block) => {
                let block = block.unwrap_or_default();
                view.global_maintenance = Some(block.maintenance());
                let keys = block.unknown_lines();
                if !keys.is_empty() {
                    view.warnings.push(Warning::UnknownGlobalKeys(keys));
                }
            }
            Err(error) => view.warnings.push(Warning::GlobalBlock { error: error.to_string() }),
        }
        view
    }

    /// Hosts whose row is live and says that the engine VM is up there, as `name (id)`, without `except`.
    pub fn live_hosts_with_vm(&self, except: Option<HostId>) -> Vec<String> {
        self.live_rows(except)
            .filter(|(_, row)| row.engine_status.vm == VmState::Up)
            .map(|(id, row)| format!("{} (id {id})", row.hostname))
            .collect()
    }

    /// The other hosts than `this`, each as `name (id)`, with the reason why it cannot take the VM, or `None` when it can.
    pub fn others(&self, this: HostId) -> Vec<(HostId, String, Option<String>)> {
        let others = self.rows.iter().filter(|(id, _)| **id != this);
        others.map(|(id, row)| (*id, self.name_of(*id), unfit(row))).collect()
    }

    /// Whether a live host other than `except` could run the VM: its score is above 0.
    pub fn somebody_else_can_run_it(&self, except: HostId) -> bool {
        self.others(except).iter().any(|(_, _, unfit)| unfit.is_none())
    }

    /// The other hosts than `this`, each as `name (id)`, that cannot take the VM yet and soon may: their agents write, and
    /// have only just been started, or this host's was. Whoever was seen alive for a minute is live.
    pub fn coming(&self, this: HostId) -> Vec<String> {
        let others = self.rows.iter().filter(|(id, _)| **id != this);
        others.filter(|(_, row)| is_coming(row)).map(|(id, _)| self.name_of(*id)).collect()
    }

    /// Whether the row of an agent that was not stopped is shown as stale.
    pub fn has_stale_rows(&self) -> bool {
        self.rows.values().any(|row| matches!(row, HostRow::Good(row) if !row.live && !row.stopped))
    }

    /// One sentence about a live migration that is under way, or that this host's agent ended in the last minute.
    pub fn moving(&self, zone: &TimeZone) -> Option<String> {
        if let Some(report) = self.migration() {
            let this = self.document.as_ref().and_then(|document| document.host_id);
            return Some(moving::sentence(report, this, &stamp(report.since, zone)));
        }
        let who = |activity: VmActivity| {
            let mut rows = self.live_rows(None).filter(|row| row.1.engine_status.detail == activity.word());
            rows.next().map(|(id, _)| self.name_of(id))
        };
        match (who(VmActivity::MigrationSource), who(VmActivity::MigrationDestination)) {
            (None, None) => None,
            (Some(from), None) => Some(format!("The engine VM is moving away from {from}")),
            (None, Some(to)) => Some(format!("{to} is ready to receive the engine VM")),
            (Some(from), Some(to)) => Some(format!("The engine VM is moving from {from} to {to}")),
        }
    }

    /// What a host's row says of the VM, live or not.
    pub fn vm_state(&self, id: HostId) -> Option<VmState> {
        match self.rows.get(&id)? {
            HostRow::Good(row) => Some(row.engine_status.vm),
            HostRow::Bad { .. } => None,
        }
    }

    /// `name (id)`, as far as it is known.
    pub fn name_of(&self, id: HostId) -> String {
        match self.rows.get(&id) {
            Some(HostRow::Good(row)) => format!("{} (id {id})", safe(&row.hostname)),
            Some(HostRow::Bad { .. }) | None => format!("host {id}"),
        }
    }

    /// This host's agent's live migration, under way or ended lately.
    pub fn migration(&self) -> Option<&MigrationReport> {
        self.document.as_ref()?.agent.as_ref()?.migration.as_ref()
    }

    fn live_rows(&self, except: Option<HostId>) -> impl Iterator<Item = (HostId, &GoodRow)> {
        self.rows.iter().filter_map(move |(id, row)| match row {
            HostRow::Good(row) if row.live && Some(*id) != except => Some((*id, row.as_ref())),
            HostRow::Good(_) | HostRow::Bad { .. } => None,
        })
    }
}

/// Why a host cannot take the VM, by its row.
fn unfit(row: &HostRow) -> Option<String> {
    let why = match row {
        HostRow::Bad { .. } => "its status cannot be read",
        HostRow::Good(row) if !row.live => "its status is not up to date: it is down, or its agent is",
        HostRow::Good(row) if row.stopped => "its agent was stopped",
        HostRow::Good(row) if row.maintenance => "it is in local maintenance",
        HostRow::Good(row) if row.score.0 == 0 => "its score is 0",
        HostRow::Good(_) => return None,
    };
    Some(why.to_owned())
}

/// Seconds without a change of its block after which nobody expects anything of a host any more.
const WRITES_WITHIN: u64 = 30;

fn is_coming(row: &HostRow) -> bool {
    let HostRow::Good(row) = row else { return false };
    let writes = row.unchanged_secs.is_some_and(|secs| secs <= WRITES_WITHIN);
    let begins = ["state=StartState", "state=ReinitializeFSM"]
        .iter()
        .any(|state| row.extra.lines().any(|line| line == *state));
    let can_be_fit = if row.score.0 == 0 { begins } else { !row.live };
    writes && can_be_fit && !row.stopped && !row.maintenance
}

/// A wall-clock second for people.
pub fn stamp(wall_secs: i64, zone: &TimeZone) -> String {
    ctime(wall_secs, zone)
}

/// Text from elsewhere on one line, safe for a terminal.
pub(super) fn safe(text: &str) -> String {
    printable(text.as_bytes(), &[])
}
