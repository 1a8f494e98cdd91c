//! A world for the loop: a broker with blocks and monitors, a VM, a clock on tokio's paused time.

mod vm;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use broker_api::status::{
    AgentReport, LeaseState, MigrationRequest, MonitorRow, StatusDocument, StorageState, Wake,
};
use clock::{Clock, Monotonic, Wall};
use engine_vm::{LeaseHolding, LeaseOutlook, VmActivity, VmError, VmEvent, VmStatus};
use metadata_format::{EngineStatus, GlobalBlock, HostBlock, HostId, HostRecord, Score};
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use crate::ports::{Addresses, Broker, BrokerError, ConfTrouble, Files, Service};

pub const EPOCH: i64 = 1_700_000_000;

/// What the tests turn and look at.
pub struct World {
    began: Instant,
    state: Mutex<Inner>,
    woken: Notify,
    events: broadcast::Sender<VmEvent>,
}

#[allow(clippy::struct_excessive_bools, reason = "each is a knob of its own")]
pub struct Inner {
    pub broker_up: bool,
    /// Knows the XML-RPC verbs only.
    pub old_broker: bool,
    /// Requests to shared storage hang from this second on.
    pub storage_hangs: bool,
    pub blocks: BTreeMap<u16, Vec<u8>>,
    pub monitors: BTreeMap<String, String>,
    /// The health text follows the VM unless set.
    pub health: Option<String>,
    pub started_monitors: Vec<String>,
    pub calls: Vec<String>,
    pub notified: Vec<String>,
    pub reports: Vec<AgentReport>,
    pub alive: Vec<u16>,
    pub lease: LeaseState,
    /// Hosts whose lease is live, by the lock manager.
    pub lock_manager_live: Option<Vec<HostId>>,
    pub counter: u64,
    pub vm: VmStatus,
    /// Who holds the VM's lease.
    pub outlook: LeaseOutlook,
    /// What the next starts answer; `Ok` when there is nothing.
    pub start_errors: Vec<VmError>,
    /// What the next resumes answer; `Ok` when there is nothing.
    pub resume_errors: Vec<VmError>,
    /// Why vm.conf cannot be compared, beside hanging storage.
    pub conf_trouble: Option<ConfTrouble>,
    pub actions: Vec<(u64, &'static str)>,
    pub maintenance: bool,
    /// What an operator asked the broker for.
    pub migration_request: Option<MigrationRequest>,
    pub service: Vec<&'static str>,
    pub status_text: String,
    /// All status texts with their seconds.
    pub told: Vec<(u64, String)>,
}

pub fn no_vm() -> VmStatus {
    VmStatus { activity: VmActivity::Down, exit: None, lease: LeaseHolding::NoVm, pid: None }
}

pub fn running_vm() -> VmStatus {
    VmStatus { activity: VmActivity::Up, exit: None, lease: LeaseHolding::Held, pid: Some(4711) }
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            woken: Notify::new(),
            events: broadcast::channel(4).0,
            state: Mutex::new(Inner {
                broker_up: true,
                old_broker: false,
                storage_hangs: false,
                blocks: BTreeMap::new(),
                monitors: BTreeMap::new(),
                health: None,
                started_monitors: Vec::new(),
                calls: Vec::new(),
                notified: Vec::new(),
                reports: Vec::new(),
                alive: Vec::new(),
                lease: LeaseState::NotRequested,
                lock_manager_live: None,
                counter: 0,
                vm: no_vm(),
                outlook: LeaseOutlook::Free,
                start_errors: Vec::new(),
                resume_errors: Vec::new(),
                conf_trouble: None,
                actions: Vec::new(),
                maintenance: false,
                migration_request: None,
                service: Vec::new(),
                status_text: String::new(),
                told: Vec::new(),
            }),
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().expect("no test holds it while it panics")
    }

    /// Seconds since the world began.
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    pub fn wake(&self) {
        self.lock().counter += 1;
        self.woken.notify_waiters();
    }

    pub fn set_global_maintenance(&self, on: bool) {
        let mut block = GlobalBlock::default();
        block.set_maintenance(on);
        self.lock().blocks.insert(0, block.encode().expect("fits"));
    }

    /// What this host last published.
    pub fn own(&self) -> Option<HostBlock> {
        let id = HostId::new(1).expect("valid");
        HostBlock::parse(id, self.lock().blocks.get(&1)?).expect("own block parses")
    }

    pub fn own_state(&self) -> String {
        let own = self.own();
        let line = own.as_ref().and_then(|own| own.extra.lines().find_map(|l| l.strip_prefix("state=")));
        line.unwrap_or("-").to_owned()
    }

    /// Another host writes its block.
    pub fn write_other(&self, id: u16, score: u32, status: &EngineStatus) {
        let record = HostRecord {
            host_ts: i64::try_from(self.now()).expect("small"),
            host_time: String::new(),
            host_id: HostId::new(id).expect("valid"),
            score: Score(score),
            engine_status: status.clone(),
            hostname: format!("h{id}"),
            maintenance: false,
            stopped: false,
            conf_on_shared_storage: true,
            vm_conf_refresh_ts: 0,
            vm_conf_refresh_time: String::new(),
            state: "EngineDown".to_owned(),
            timeout: None,
            notes: BTreeMap::from([("score_profile".to_owned(), "founding".to_owned())]),
        };
        self.lock().blocks.insert(id, record.encode().expect("encodes"));
    }

    async fn reach(&self, call: &str) -> Result<(), BrokerError> {
        tokio::task::yield_now().await;
        let mut inner = self.lock();
        inner.calls.push(call.to_owned());
        if inner.broker_up {
            Ok(())
        } else {
            Err(BrokerError { refused: false, detail: "cannot connect to the broker".to_owned() })
        }
    }
}

impl Clock for World {
    fn monotonic(&self) -> Monotonic {
        Monotonic::from_duration(self.began.elapsed() + Duration::from_secs(1000))
    }

    fn wall(&self) -> Wall {
        Wall(EPOCH + 1000 + i64::try_from(self.now()).expect("small"))
    }
}

impl Inner {
    fn health_text(&self) -> String {
        if let Some(text) = &self.health {
            return text.clone();
        }
        let text = if self.vm.activity == VmActivity::PausedByIoError {
            r#"{"vm": "up", "health": "bad", "detail": "Paused", "reason": "bad vm status"}"#
        } else if self.vm.exists() {
            r#"{"vm": "up", "health": "good", "detail": "Up"}"#
        } else {
            r#"{"vm": "down", "health": "bad", "detail": "unknown", "reason": "vm not running on this host"}"#
        };
        text.to_owned()
    }
}

#[async_trait]
impl Broker for World {
    async fn start_monitor(
        &self,
        kind: &str,
        _options: &BTreeMap<String, Option<String>>,
    ) -> Result<String, BrokerError> {
        self.reach("start_monitor").await?;
        let mut inner = self.lock();
        inner.started_monitors.push(kind.to_owned());
        let value = match kind {
            "network" => "1.0",
            "mem-free" => "8000",
            "cpu-load-no-engine" | "mem-load" => "0.1",
            _ => "True",
        };
        inner.monitors.insert(kind.to_owned(), value.to_owned());
        Ok(kind.to_owned())
    }

    async fn status_monitor(&self, id: &str) -> Result<Option<String>, BrokerError> {
        self.reach("status_monitor").await?;
        let inner = self.lock();
        match inner.monitors.get(id) {
            Some(_) if id == "engine-health" => Ok(Some(inner.health_text())),
            Some(value) => Ok(Some(value.clone())),
            None => Err(BrokerError { refused: true, detail: format!("no monitor {id} runs") }),
        }
    }

    async fn get_stats(&self) -> Result<BTreeMap<u16, Vec<u8>>, BrokerError> {
        self.reach("get_stats").await?;
        Ok(self.lock().blocks.clone())
    }

    async fn put_stats(&self, host: HostId, bytes: &[u8]) -> Result<(), BrokerError> {
        self.reach("put_stats").await?;
        if self.lock().storage_hangs {
            std::future::pending::<()>().await;
        }
        let mut inner = self.lock();
        if !matches!(inner.lease, LeaseState::Held { .. }) {
            return Err(BrokerError { refused: true, detail: "the host id is not held".to_owned() });
        }
        inner.blocks.insert(host.get(), bytes.to_vec());
        Ok(())
    }

    async fn push_hosts_state(&self, alive: &[HostId]) -> Result<(), BrokerError> {
        self.reach("push_hosts_state").await?;
        self.lock().alive = alive.iter().map(|id| id.get()).collect();
        Ok(())
    }

    async fn notify(
        &self,
        event: &str,
        detail: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<bool, BrokerError> {
        self.reach("notify").await?;
        assert_eq!(options.get("hostname").map(String::as_str), Some("h1"));
        let text = match event {
            "state_transition" => detail.to_owned(),
            _ => format!("{event} {detail}"),
        };
        self.lock().notified.push(text);
        Ok(false)
    }

    async fn start_domain_monitor(&self, _host: HostId) -> Result<(), BrokerError> {
        self.reach("start_domain_monitor").await
    }

    async fn stop_domain_monitor(&self) -> Result<(), BrokerError> {
        self.reach("stop_domain_monitor").await
    }

    async fn lock_host_id(&self, _host: HostId) -> Result<(), BrokerError> {
        self.reach("lock_host_id").await?;
        let mut inner = self.lock();
        if matches!(inner.lease, LeaseState::NotRequested) {
            inner.lease = LeaseState::Held { since: EPOCH };
        }
        match &inner.lease {
            LeaseState::Held { .. } => Ok(()),
            _ => Err(BrokerError { refused: true, detail: "sanlock refuses".to_owned() }),
        }
    }

    async fn release_host_id(&self) -> Result<(), BrokerError> {
        self.reach("release_host_id").await
    }

    async fn status(&self) -> Result<Option<StatusDocument>, BrokerError> {
        self.reach("status").await?;
        let inner = self.lock();
        if inner.old_broker {
            return Ok(None);
        }
        let row = |id: &String, value: &String| {
            let value = if id == "engine-health" { inner.health_text() } else { value.clone() };
            (id.clone(), MonitorRow { value: Some(value), age_secs: Some(1), error: None })
        };
        let storage = if inner.storage_hangs {
            StorageState::Stuck {
                since: EPOCH + 1000,
                operation: "write of block 1".to_owned(),
                next_try: None,
            }
        } else {
            StorageState::Good { read_ms: 1 }
        };
        Ok(Some(StatusDocument {
            host_id: HostId::new(1).ok(),
            broker_version: "test".to_owned(),
            global_maintenance: Some(false),
            unknown_global_keys: Vec::new(),
            hosts: BTreeMap::new(),
            storage,
            lease: inner.lease.clone(),
            lock_manager_live: inner.lock_manager_live.clone(),
            watchdog: None,
            blocks_read: u64::try_from(self.monotonic().since_start().as_millis()).ok(),
            monitors: inner.monitors.iter().map(|(id, value)| row(id, value)).collect(),
            agent: None,
            migration_request: inner.migration_request,
        }))
    }

    async fn put_agent_report(&self, report: &AgentReport) -> Result<(), BrokerError> {
        self.reach("put_agent_report").await?;
        self.lock().reports.push(report.clone());
        Ok(())
    }

    async fn wake(&self, after: u64, timeout: Duration) -> Result<Option<Wake>, BrokerError> {
        self.reach("wake").await?;
        if self.lock().old_broker {
            return Ok(None);
        }
        let woken = self.woken.notified();
        let counter = self.lock().counter;
        if counter == after {
            let _ = tokio::time::timeout(timeout, woken).await;
        }
        Ok(Some(Wake { counter: self.lock().counter }))
    }
}

#[async_trait]
impl Files for World {
    async fn refresh_vm_conf(&self) -> Result<(), ConfTrouble> {
        let inner = self.lock();
        match &inner.conf_trouble {
            Some(trouble) => Err(trouble.clone()),
            None if inner.storage_hangs => Err(ConfTrouble::Storage("storage does not answer".to_owned())),
            None => Ok(()),
        }
    }

    fn local_maintenance(&self) -> Result<bool, String> {
        Ok(self.lock().maintenance)
    }

    fn maintenance_is_forced(&self) -> Result<bool, String> {
        Ok(false)
    }

    fn vm_memory(&self) -> Result<u64, String> {
        Ok(4096)
    }
}

/// Every link has the same address.
#[async_trait]
impl Addresses for World {
    async fn of_link(&self, _name: &str) -> Result<Option<IpAddr>, String> {
        Ok(Some(IpAddr::from([192, 0, 2, 1])))
    }
}

impl Service for World {
    fn ready(&self) {
        self.lock().service.push("ready");
    }

    fn alive(&self) {
        self.lock().service.push("alive");
    }

    fn status(&self, text: &str) {
        let now = self.now();
        let mut inner = self.lock();
        inner.status_text = text.to_owned();
        inner.told.push((now, text.to_owned()));
    }

    fn stopping(&self) {
        self.lock().service.push("stopping");
    }
}
