//! One VM from its creation to its end.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use clock::{Clock, Monotonic, SystemClock};
use engine_vm::lease::LeaseSpec;
use engine_vm::qemu::{Launcher, MachineSource, QemuSettings, QemuVm, QmpRole};
use engine_vm::{ConsoleKind, CpuUse, EngineVm, StartMode, VmActivity, VmError, VmStatus};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::Context;
use super::description::{self, Described, Description};
use super::exit::{self, Exit, Reason};
use super::migrate::Migration;
use super::record::Record;
use super::stats::{self, Processor};
use crate::{Failure, lock};

/// Pause between two looks when no event tells of a change.
const LOOK: Duration = Duration::from_secs(1);
/// How long a guest counts as powering up: what VDSM learns from a guest's agent has no other source here.
const POWERING_UP: Duration = Duration::from_secs(2);

/// One VM.
pub(crate) struct Vm {
    id: String,
    pub(super) directory: PathBuf,
    pub(super) context: Arc<Context>,
    record: Mutex<Record>,
    /// There once it is known what to start.
    qemu: OnceLock<QemuVm>,
    pub(super) state: Mutex<State>,
    /// True when the start, or the wait for an arrival, is over, well or not.
    launched: watch::Sender<bool>,
}

/// What is known of it now.
#[derive(Debug)]
pub(super) struct State {
    pub activity: VmActivity,
    pub exit: Option<Exit>,
    /// When this life of it began.
    pub begun: Monotonic,
    /// Somebody asked for its end.
    pub is_asked: bool,
    /// Since when an I/O error keeps it stopped.
    pub stopped: Option<Monotonic>,
    pub processor: Processor,
    /// Address and port of its graphical console.
    pub console: Option<(String, u16)>,
    pub migration: Migration,
}

impl Vm {
    /// A new one, which does nothing yet.
    pub(super) async fn new(
        context: &Arc<Context>,
        id: &str,
        description: Description,
    ) -> anyhow::Result<Arc<Self>> {
        let record = Record { description, lease: None, is_incoming: false, exit: None };
        let vm = Self::with(context, id, record);
        let directory = vm.directory.clone();
        let kept = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            std::fs::create_dir_all(&directory)
        });
        kept.await?.with_context(|| format!("cannot make {}", vm.directory.display()))?;
        vm.save()?;
        Ok(Arc::new(vm))
    }

    fn with(context: &Arc<Context>, id: &str, record: Record) -> Self {
        let state = State {
            activity: VmActivity::WaitForLaunch,
            exit: None,
            begun: SystemClock.monotonic(),
            is_asked: false,
            stopped: None,
            processor: Processor::default(),
            console: None,
            migration: Migration::default(),
        };
        Self {
            id: id.to_owned(),
            directory: context.directory().join(id),
            context: context.clone(),
            record: Mutex::new(record),
            qemu: OnceLock::new(),
            state: Mutex::new(state),
            launched: watch::Sender::new(false),
        }
    }

    /// One of an earlier life of the stand-in.
    pub async fn recover(context: &Arc<Context>, id: &str) -> anyhow::Result<Arc<Self>> {
        let directory = context.directory().join(id);
        let record =
            Record::load(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
        let (lease, exit, is_incoming) = (record.lease.clone(), record.exit.clone(), record.is_incoming);
        let vm = Arc::new(Self::with(context, id, record));
        vm.launched.send_replace(true);
        let Some(lease) = lease.filter(|_| exit.is_none()) else {
            // It was down already, or was killed with its start.
            let exit = exit.unwrap_or_else(|| Exit::new(Reason::Generic));
            let mut state = lock(&vm.state);
            (state.activity, state.exit) = (VmActivity::Down, Some(exit));
            drop(state);
            return Ok(vm);
        };
        let source = MachineSource::new(|| {
            Err(VmError::Config { detail: "a VM that was found again is not started again".to_owned() })
        });
        let qemu = vm.qemu.get_or_init(|| QemuVm::new(vm.settings(lease, source)));
        let status = qemu.status().await?;
        if status.activity == VmActivity::Down {
            vm.down(Exit::of(status.exit.as_ref(), is_incoming, false));
        } else {
            // What it is before anybody was told: no event.
            let mut state = lock(&vm.state);
            state.activity = status.activity;
            state.begun = Monotonic::from_secs(0);
            drop(state);
            tokio::spawn(vm.clone().follow());
        }
        Ok(vm)
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    fn save(&self) -> anyhow::Result<()> {
        let record = lock(&self.record).clone();
        record
            .save(&self.directory)
            .with_context(|| format!("cannot write into {}", self.directory.display()))
    }

    /// Changes what is kept on disk.
    pub(super) fn keep(&self, change: impl FnOnce(&mut Record)) {
        change(&mut lock(&self.record));
        if let Err(error) = self.save() {
            tracing::warn!("VM {}: {error:#}", self.id);
        }
    }

    pub(super) fn description(&self) -> Description {
        lock(&self.record).description.clone()
    }

    fn settings(&self, lease: LeaseSpec, machine: MachineSource) -> QemuSettings {
        let settings = &self.context.settings;
        QemuSettings {
            watchdog: Duration::from_mins(1),
            run_dir: std::path::absolute(&self.directory).unwrap_or_else(|_| self.directory.clone()),
            program: settings.qemu.clone(),
            accel: settings.accel,
            user: None,
            extra_args: Vec::new(),
            role: QmpRole::Agent,
            lease,
            machine,
            launcher: Launcher::find(false),
        }
    }

    /// Starts it in the background.
    pub fn start(self: &Arc<Self>) {
        let vm = self.clone();
        tokio::spawn(async move {
            if let Err(exit) = vm.launch().await {
                vm.down(exit);
            }
            vm.launched.send_replace(true);
            vm.follow().await;
        });
    }

    async fn launch(&self) -> Result<(), Exit> {
        let (qemu, mode) = self.prepare().await.map_err(Exit::error)?;
        let started = qemu.start(mode).await;
        started.map_err(|error| {
            tracing::warn!("VM {} did not start: {error}", self.id);
            match error {
                VmError::LeaseHeld { .. } => exit::held(),
                VmError::NoLease { detail } => Exit::error(exit::no_lease(&detail)),
                other => Exit::error(other.to_string()),
            }
        })?;
        self.apply(match mode {
            StartMode::Run => VmActivity::PoweringUp,
            StartMode::Paused => VmActivity::Paused,
        });
        Ok(())
    }

    /// Finds out what to start, and how.
    pub(super) async fn prepare(&self) -> Result<(&QemuVm, StartMode), String> {
        let (description, context, directory) =
            (self.description(), self.context.clone(), self.directory.clone());
        let resolved = tokio::task::spawn_blocking(move || resolve(&description, &context, &directory)).await;
        let (described, lease) = resolved.map_err(|error| error.to_string())??;
        self.keep(|record| record.lease = Some(lease.clone()));
        let mode = if described.starts_paused { StartMode::Paused } else { StartMode::Run };
        let source = MachineSource::new(move || Ok(described.machine.clone()));
        Ok((self.qemu.get_or_init(|| QemuVm::new(self.settings(lease, source))), mode))
    }

    /// The hypervisor's side, once there is one.
    pub(super) fn qemu(&self) -> Option<&QemuVm> {
        self.qemu.get()
    }

    fn running(&self) -> Result<&QemuVm, Failure> {
        let is_running = !matches!(lock(&self.state).activity, VmActivity::Down | VmActivity::WaitForLaunch);
        self.qemu().filter(|_| is_running).ok_or_else(Failure::unexpected)
    }

    /// Looks until it is down, and tells of each change.
    pub(super) async fn follow(self: Arc<Self>) {
        let Some(qemu) = self.qemu() else { return };
        let mut events = qemu.events();
        while !self.is_down() {
            match qemu.status().await {
                Ok(status) if status.activity == VmActivity::Down => {
                    let is_incoming = lock(&self.record).is_incoming;
                    let is_asked = lock(&self.state).is_asked;
                    self.down(Exit::of(status.exit.as_ref(), is_incoming, is_asked));
                    return;
                }
                Ok(status) => self.look(qemu, &status).await,
                // As VDSM: what was last known stays.
                Err(error) => tracing::debug!(%error, "cannot look at VM {}", self.id),
            }
            let _ = tokio::time::timeout(LOOK, events.recv()).await;
        }
    }

    async fn look(&self, qemu: &QemuVm, status: &VmStatus) {
        self.apply(status.activity);
        if let Ok(Some(CpuUse::Since(used))) = qemu.cpu_use().await {
            lock(&self.state).processor.sample(SystemClock.monotonic(), used);
        }
        if lock(&self.state).console.is_none()
            && let Ok(console) = qemu.console(ConsoleKind::Graphical).await
            && let Some((address, port)) = console.address.rsplit_once(':')
            && let Ok(port) = port.parse()
        {
            lock(&self.state).console = Some((address.trim_matches(['[', ']']).to_owned(), port));
        }
        self.resume_after_io_error(qemu).await;
    }

    /// VDSM lets a guest go on that an I/O error stopped, once its storage domain is well again.
    async fn resume_after_io_error(&self, qemu: &QemuVm) {
        let Some(stopped) = lock(&self.state).stopped else { return };
        let lease = lock(&self.record).lease.clone();
        let Some(LeaseSpec::Sanlock { lockspace, .. }) = lease else { return };
        if self.context.storage.is_well_since(&lockspace, stopped) {
            match qemu.resume().await {
                Ok(()) => tracing::info!("VM {} goes on: its storage is well again", self.id),
                Err(error) => tracing::warn!("VM {} cannot go on: {error}", self.id),
            }
        }
    }

    /// Takes in what it does now, and tells when that is new.
    pub(super) fn apply(&self, activity: VmActivity) {
        let stats = {
            let mut state = lock(&self.state);
            let is_young = SystemClock.monotonic().saturating_since(state.begun) < POWERING_UP;
            let shown = match activity {
                VmActivity::Up if state.migration.is_preparing() => VmActivity::MigrationSource,
                VmActivity::Up if state.is_asked => VmActivity::PoweringDown,
                VmActivity::Up if is_young && state.activity != VmActivity::Up => VmActivity::PoweringUp,
                other => other,
            };
            state.stopped = match shown {
                VmActivity::PausedByIoError => state.stopped.or_else(|| Some(SystemClock.monotonic())),
                _ => None,
            };
            if state.exit.is_some() || state.activity == shown {
                return;
            }
            state.activity = shown;
            json!({"status": shown.word()})
        };
        self.context.notify(&self.id, &stats);
    }

    pub(super) fn is_down(&self) -> bool {
        lock(&self.state).exit.is_some()
    }

    /// It is down because it runs on another host.
    pub(super) fn has_left(&self) -> bool {
        lock(&self.state).exit.as_ref().is_some_and(Exit::is_departure)
    }

    /// It is down; the first reason stays.
    pub(super) fn down(&self, exit: Exit) {
        let mut stats = exit.stats();
        {
            let mut now = lock(&self.state);
            if now.exit.is_some() {
                return;
            }
            (now.activity, now.exit) = (VmActivity::Down, Some(exit.clone()));
        }
        tracing::info!("VM {} is down: {stats}", self.id);
        self.keep(|record| record.exit = Some(exit));
        stats["status"] = "Down".into();
        stats["vmId"] = self.id.as_str().into();
        self.context.notify(&self.id, &stats);
    }

    /// Its status in VDSM's words.
    pub fn status(&self) -> &'static str {
        lock(&self.state).activity.word()
    }

    /// `VM.getStats`.
    pub fn stats(&self) -> Value {
        stats::of(&self.id, &lock(&self.state))
    }

    /// `VM.destroy`.
    pub async fn destroy(&self) -> Result<(), Failure> {
        lock(&self.state).is_asked = true;
        // A start that is under way ends soon, and cannot be called back.
        let mut launched = self.launched.subscribe();
        if launched.wait_for(|is_over| *is_over).await.is_err() {
            return Err(Failure::unexpected());
        }
        if let Some(qemu) = self.qemu().filter(|_| !self.is_down()) {
            match qemu.destroy().await {
                Ok(()) | Err(VmError::NotRunning) => {}
                Err(error) => return Err(Failure::destroy_failed(&error.to_string())),
            }
        }
        self.down(Exit::new(Reason::AdminShutdown));
        let directory = self.directory.clone();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(directory)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!("cannot remove {}: {error}", self.directory.display());
        }
        Ok(())
    }

    /// Presses the power button, at once: the guest has no agent that could wait, and nobody to tell.
    pub fn shutdown(self: &Arc<Self>) -> Result<Value, Failure> {
        if self.is_down() {
            return Err(Failure::no_such_vm(&self.id));
        }
        self.running()?;
        lock(&self.state).is_asked = true;
        self.apply(VmActivity::PoweringDown);
        let vm = self.clone();
        tokio::spawn(async move {
            let Some(qemu) = vm.qemu() else { return };
            if let Err(error) = qemu.shutdown(Duration::ZERO, "").await {
                tracing::warn!("VM {} does not shut down: {error}", vm.id);
                lock(&vm.state).is_asked = false;
            }
        });
        Ok(Value::Null)
    }

    /// `VM.pause`.
    pub async fn pause(&self) -> Result<Value, Failure> {
        self.running()?.pause().await.map_err(|error| self.refused("pause", &error))?;
        self.apply(VmActivity::Paused);
        Ok(json!({"vmList": {}}))
    }

    /// `VM.cont`.
    pub async fn cont(&self) -> Result<Value, Failure> {
        self.running()?.resume().await.map_err(|error| self.refused("continue", &error))?;
        self.apply(VmActivity::Up);
        Ok(json!({"vmList": {}}))
    }

    fn refused(&self, what: &str, error: &VmError) -> Failure {
        tracing::warn!("VM {} does not {what}: {error}", self.id);
        Failure::unexpected()
    }

    /// `VM.updateDevice`: the ticket of the graphical console.
    pub async fn update_device(&self, params: &Map<String, Value>) -> Result<Value, Failure> {
        let text = |name: &str| params.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("deviceType") != "graphics" {
            return Err(Failure::update_device(&format!(
                "deviceType {:?} is not known here",
                text("deviceType")
            )));
        }
        let seconds = params.get("ttl").and_then(|ttl| ttl.as_u64().or_else(|| ttl.as_str()?.parse().ok()));
        let seconds = seconds.ok_or_else(|| Failure::update_device("ttl must be a number of seconds"))?;
        let qemu = self.running()?;
        let set = qemu.set_console_password(text("password"), Duration::from_secs(seconds)).await;
        set.map_err(|error| Failure::update_device(&error.to_string()))?;
        Ok(json!({}))
    }

    /// The start, or the wait for an arrival, is over.
    pub(super) fn launched(&self) {
        self.launched.send_replace(true);
    }
}

fn resolve(
    description: &Description,
    context: &Context,
    directory: &Path,
) -> Result<(Described, LeaseSpec), String> {
    let described = description.resolve(context)?;
    let lease = description::lease(context, &described, directory)?;
    Ok((described, lease))
}
