//! The daemon: builds the broker from this host's files, serves its socket, and tells the service manager how it
//! goes.
//!
//! The watchdog is fed by a tick of the one thread that does everything but blocking I/O: a broker that hangs is
//! restarted, a broker whose *storage* hangs is not. On a clean stop it gives up its host ids without waiting
//! (see [`crate::broker::Broker::give_up_ids`]) and ends within about two seconds, whatever storage does. It never
//! ends by itself because of storage, sanlock or the network.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clock::{Clock, SystemClock};
use engine_vm::VmError;
use engine_vm::qemu::QmpRole;
use ha_config::ha_toml::{Hypervisor, LeaseAdapter};
use ha_config::{ConfigError, HaConf, HaToml, HostedEngineConf, Paths, multipath, sanlock_conf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::broker::{Broker, Monitors, Notifications, Parts};
use crate::ha_conf;
use crate::lockspace::file::FileLockspace;
use crate::lockspace::sanlock::SanlockLockspace;
use crate::lockspace::vdsm::VdsmLockspace;
use crate::lockspace::{Keeper, Lockspace, Pace};
use crate::monitors::{MonitorSet, Surroundings};
use crate::notify::{Notifier, Smtp};
use crate::returned;
use crate::socket::{self, WriterPolicy};
use crate::spawner::{HostSpawner, Spawner};
use crate::supply::{self, VdsmWay};
use crate::wake::WakeCounter;
use crate::whiteboard::direct_io::DirectIo;
use crate::whiteboard::gated::Gated;
use crate::whiteboard::{Service, Timing, Whiteboard};

/// The lockspace that protects the blocks of the metadata file.
const BLOCK_LOCKSPACE: &str = "hosted-engine";

/// How often the tick runs when no watchdog asks for it more often.
const TICK: Duration = Duration::from_secs(5);

/// What a clean stop gives the lock manager, and the mail server, to take the last request.
const LAST_WORDS: Duration = Duration::from_millis(700);

/// This host is not set up, or its files cannot be used: starting again does not help before somebody changes one.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There is no hosted-engine.conf.
    #[error(
        "{} does not exist: this host is not deployed; run hosted-engine --deploy, or stop this service",
        .0.display()
    )]
    NotDeployed(PathBuf),
    /// Deploy has not finished.
    #[error(
        "{} says that this host is not configured (no host_id, or configured=False): finish hosted-engine --deploy",
        .0.display()
    )]
    NotConfigured(PathBuf),
    /// A value in one of the files.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The hypervisor's adapter cannot be used as configured.
    #[error(transparent)]
    Hypervisor(#[from] VmError),
    /// A path or name that sanlock cannot take.
    #[error("the lockspace cannot be used: {0}")]
    Name(#[from] sanlock_client::NameError),
}

/// This host's files.
pub struct Setup {
    /// Where everything is.
    pub paths: Paths,
    /// hosted-engine.conf.
    pub conf: HostedEngineConf,
    /// ha.toml.
    pub toml: HaToml,
}

impl Setup {
    /// Reads and checks them.
    ///
    /// # Errors
    /// Which file is wrong, where, and what to do.
    pub fn load(paths: Paths) -> Result<Self, SetupError> {
        let conf = match HostedEngineConf::load(&paths) {
            Err(error) if error.is_not_found() => {
                return Err(SetupError::NotDeployed(paths.hosted_engine_conf()));
            }
            other => other?,
        };
        if !conf.is_configured()? {
            return Err(SetupError::NotConfigured(paths.hosted_engine_conf()));
        }
        let toml = HaToml::load(&paths)?;
        Ok(Self { paths, conf, toml })
    }

    fn timing(&self) -> Timing {
        let usual = Timing::default();
        let deadline = self.toml.timers.storage_deadline;
        Timing { cycle: self.toml.timers.poll(), deadline, settle: usual.settle, try_anew: deadline * 2 }
    }

    fn lockspace(&self, name: &str, path: PathBuf) -> Result<Arc<dyn Lockspace>, SetupError> {
        let table = &self.toml.lease;
        Ok(match table.adapter {
            LeaseAdapter::File => Arc::new(FileLockspace::new(path)),
            LeaseAdapter::Sanlock => Arc::new(SanlockLockspace::new(
                &self.paths.sanlock_socket(),
                name,
                &path,
                table.io_timeout,
                table.watchdog_timeout,
            )?),
        })
    }
}

impl Setup {
    /// The lockspace that carries the VM's lease. VDSM joins it where it manages the host.
    fn domain_lockspace(
        &self,
        vdsm: Option<&vdsm_client::Client>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Arc<dyn Lockspace>, SetupError> {
        let sd = self.conf.sd_uuid()?;
        let Some(vdsm) = vdsm else { return self.lockspace(sd, self.conf.ids_path()?) };
        let sanlock = match self.toml.lease.adapter {
            LeaseAdapter::File => None,
            LeaseAdapter::Sanlock => Some(self.paths.sanlock_socket()),
        };
        Ok(Arc::new(VdsmLockspace::new(vdsm.clone(), sd, sanlock.as_deref(), Arc::clone(clock))?))
    }
}

impl Notifications for Notifier {
    fn notify(&self, event: &str, detail: &str, options: std::collections::BTreeMap<String, String>) -> bool {
        Self::notify(self, event, detail, &options)
    }
}

/// Runs the broker until it is told to stop.
///
/// # Errors
/// Only at the start: files that cannot be used, a socket that cannot be served.
pub fn run(setup: &Setup) -> anyhow::Result<()> {
    // One thread: everything that blocks has threads of its own, and a tick of this one shows that it works.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve(setup));
    // Threads that hang in storage or in the lock manager are not waited for.
    runtime.shutdown_background();
    result
}

async fn serve(setup: &Setup) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let wake = WakeCounter::default();
    let notifier = Arc::new(Notifier::new(setup.paths.clone(), Smtp, Arc::clone(&clock)));
    let parts = parts(setup, &wake, &clock, Arc::<Notifier>::clone(&notifier))?;
    let broker = Arc::new(Broker::new(parts));

    let run_dir = setup.paths.run_dir();
    std::fs::create_dir_all(&run_dir).with_context(|| format!("cannot create {}", run_dir.display()))?;
    let socket = socket::bind(&setup.paths.broker_socket())?;
    let policy = WriterPolicy::with_writers(&setup.toml.socket.writers);

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, mut stopping) = watch::channel(false);
    let shutdown = async move {
        // The sender lives to the end of this function.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    let serving = tokio::spawn(socket::serve(socket, Arc::clone(&broker), policy, shutdown));
    let runs = Arc::clone(&broker);
    let mut running = tokio::spawn(async move { runs.run().await });
    let (wakes, ha_conf) = (Arc::clone(&broker), HaConf::path(&setup.paths));
    let watching = tokio::spawn(async move { ha_conf::follow(&ha_conf, || wakes.wake_agent()).await });
    let (paths, lease) = (&setup.paths, &setup.toml.lease);
    for warning in multipath::warnings(paths, lease).into_iter().chain(sanlock_conf::warning(paths, lease)) {
        warn!("{warning}");
    }
    info!(version = env!("CARGO_PKG_VERSION"), host_id = ?setup.conf.host_id()?, "broker started");
    tell(&[sd_notify::NotifyState::Ready]);

    let result = tokio::select! {
        biased;
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = tick(&broker) => Ok(()),
        ended = &mut running => Err(anyhow::anyhow!("the broker's work ended by itself, which is a bug: {ended:?}")),
    };
    info!("stopping");
    tell(&[sd_notify::NotifyState::Stopping]);
    stop.send_replace(true);
    // Requests that are under way get the time that the socket gives them.
    if let Err(error) = serving.await {
        warn!("the socket's task failed: {error}");
    }
    // The storage domain's lockspace is VDSM's where VDSM manages the host: the agent has it left when it stops and the VM
    // is away, as the existing release's does. The storage stays connected.
    let domain = setup.toml.vm.hypervisor != Hypervisor::Vdsm;
    if tokio::time::timeout(LAST_WORDS, broker.give_up_ids(domain)).await.is_err() {
        warn!("the lock manager does not answer: the host ids stay until it, or this host, ends");
    }
    for task in [watching, running] {
        task.abort();
        let _ = task.await;
    }
    drop(broker);
    if let Some(notifier) = Arc::into_inner(notifier) {
        notifier.finish(LAST_WORDS).await;
    }
    info!("stopped");
    result
}

fn parts(
    setup: &Setup,
    wake: &WakeCounter,
    clock: &Arc<dyn Clock>,
    notifications: Arc<dyn Notifications>,
) -> anyhow::Result<Parts> {
    let conf = &setup.conf;
    let config = SetupError::Config;
    let vdsm = engine_vm::vdsm::client_of_host(conf, &setup.toml)?;
    let blocks = setup.lockspace(BLOCK_LOCKSPACE, conf.lockspace_path().map_err(config)?)?;
    let domain = setup.domain_lockspace(vdsm.as_ref(), clock)?;
    let spawner: Arc<dyn Spawner> = Arc::new(HostSpawner);
    let pace = Pace { settle: setup.toml.timers.host_alive, ..Pace::default() };
    let keeper = |port| Keeper::start(port, Arc::clone(clock), Arc::clone(&spawner), wake.clone(), pace);
    let lease = keeper(blocks).context("no thread for the lease")?;
    let returned = returned::listen();
    let mut port: Arc<dyn Whiteboard> = Arc::new(DirectIo::new(conf.metadata_path().map_err(config)?));
    if let Some(vdsm) = &vdsm {
        let way = Arc::new(VdsmWay::new(vdsm.clone(), conf).map_err(config)?);
        let gate = supply::keep_open(way, Arc::clone(clock), &spawner, returned.clone())
            .context("no thread for the storage")?;
        port = Arc::new(Gated::new(port, gate));
    }
    let whiteboard = Service::new(
        port,
        Arc::new(lease.clone()),
        Arc::clone(clock),
        &spawner,
        setup.timing(),
        wake.clone(),
    );
    whiteboard.try_anew_on(returned);
    Ok(Parts {
        host_id: conf.host_id().map_err(config)?,
        whiteboard,
        lease,
        domain: keeper(domain).context("no thread for the lease")?,
        monitors: monitors(setup, vdsm, wake, clock, spawner)?,
        notifications,
        wake: wake.clone(),
        clock: Arc::clone(clock),
        alive_list: setup.toml.timers.alive_list,
    })
}

/// Tells the service manager, again and again, that the broker works, and how storage and lease are.
async fn tick(broker: &Broker) {
    let mut usec = 0;
    let watched = sd_notify::watchdog_enabled(false, &mut usec);
    let pause = if watched { TICK.min(Duration::from_micros(usec / 3)) } else { TICK };
    let mut shown = String::new();
    loop {
        tell(&[sd_notify::NotifyState::Watchdog]);
        let headline = broker.headline();
        if headline != shown {
            tell(&[sd_notify::NotifyState::Status(&headline)]);
            shown = headline;
        }
        tokio::time::sleep(pause).await;
    }
}

fn tell(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::debug!("cannot tell the service manager: {error}");
    }
}

/// The monitors, none running yet; a change of the engine's health wakes the agent.
fn monitors(
    setup: &Setup,
    vdsm: Option<vdsm_client::Client>,
    wake: &WakeCounter,
    clock: &Arc<dyn Clock>,
    spawner: Arc<dyn Spawner>,
) -> Result<Arc<dyn Monitors>, SetupError> {
    let vm = engine_vm::of_host(&setup.conf, &setup.toml, QmpRole::Broker, vdsm.as_ref())?;
    let surroundings = Surroundings::of_host(&setup.conf, &setup.toml, vm, vdsm, Arc::clone(clock))?;
    let set = MonitorSet::new(surroundings, spawner);
    set.wake_agents(wake.clone());
    Ok(Arc::new(set))
}
