//! ovirt-ha-agent: reads the command line and this host's files, connects the ports, runs the loop.
//!
//! Exit codes: 0 a clean end, 1 a failure, 2 a wrong command line, 78 this host is not set up (or its
//! configuration cannot be used): starting again will not help before somebody changes a file.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use broker_api::BrokerClient;
use clap::Parser;
use engine_vm::qemu::QmpRole;

use ha_agent::agent::Agent;
use ha_agent::engine_conf::EngineConf;
use ha_agent::fencer::ConfiguredFencer;
use ha_agent::hostname::{self, HostName};
use ha_agent::ports::{HostFiles, KernelAddresses, Ports, Systemd};
use ha_agent::settings::{self, AgentConfig, SetupError};
use ha_config::{AgentConf, HaToml, Paths};
use jiff::tz::TimeZone;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

/// `EX_CONFIG` of sysexits.h; the service is not started again after it.
const EXIT_CONFIG: u8 = 78;

/// The high-availability agent of the hosted engine: decides where the engine VM runs, and acts on it.
#[derive(Parser)]
#[command(name = "ovirt-ha-agent", version)]
struct Arguments {
    /// Directory that stands for / in every path
    #[arg(long, value_name = "DIR", env = ha_config::ROOT_ENV, default_value = "/")]
    root: PathBuf,
    /// Print the decisions for the recorded observations in FILE (- for standard input) and exit
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// With --replay: all policy switches off, as the existing release decides
    #[arg(long, requires = "replay")]
    plain: bool,
    /// What to log: error, warn, info, debug, trace, or a filter such as `ha_agent=debug`
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.replay {
        Some(file) => replay(file, arguments.plain),
        None => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ovirt-ha-agent: {error:#}");
            let config = error.is::<SetupError>() || error.is::<ha_config::ConfigError>();
            if config { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn replay(file: &Path, plain: bool) -> anyhow::Result<()> {
    let mut text = String::new();
    let name = file.display();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    }
    let steps = ha_agent::replay::replay(&text, plain).with_context(|| format!("cannot replay {name}"))?;
    match writeln!(std::io::stdout(), "{steps}") {
        // Whoever reads has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let paths = Paths::new(&arguments.root);
    let conf = settings::load_conf(&paths)?;
    let agent_conf = AgentConf::load(&paths)?;
    let toml = HaToml::load(&paths)?;
    let HostName { name, trouble } = hostname::of_host(&paths, toml.vm.hypervisor);
    let config = AgentConfig::new(&conf, &agent_conf, &toml, name)?;
    daemon_log::start(&paths.agent_log(), &arguments.log_level)?;
    if let Some(error) = trouble {
        warn!("this host is called {}, as its system says: {error}", config.hostname);
    }
    for key in &agent_conf.unknown {
        let meant = key.nearest.map(|near| format!("; is {near} meant?")).unwrap_or_default();
        let path = paths.agent_conf();
        warn!("{}:{}: [score] {} means nothing here{meant}", path.display(), key.line, key.key);
    }
    // One thread is enough: the loop does one thing at a time.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let vdsm = engine_vm::vdsm::client_of_host(&conf, &toml).map_err(SetupError::Hypervisor)?;
        let vm = engine_vm::of_host(&conf, &toml, QmpRole::Agent, vdsm.as_ref())
            .map_err(SetupError::Hypervisor)?;
        let clock = Arc::new(clock::SystemClock);
        let engine_conf = vdsm
            .map(|vdsm| EngineConf::new(vdsm, &conf, clock.clone(), TimeZone::system()))
            .transpose()?;
        let ports = Ports {
            broker: Arc::new(BrokerClient::new(paths.broker_socket())),
            vm,
            clock,
            files: Arc::new(HostFiles::new(conf, engine_conf)),
            service: Arc::new(Systemd),
            fencer: Arc::new(ConfiguredFencer::new(toml.fencing, paths)),
            addresses: Arc::new(KernelAddresses),
        };
        let (tell, stop) = watch::channel(false);
        let agent = Agent::new(ports, config, TimeZone::system(), stop);
        let mut agent = std::pin::pin!(agent.run());
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                biased;
                _ = terminate.recv() => { tell.send_replace(true); }
                _ = interrupt.recv() => { tell.send_replace(true); }
                _ = hangup.recv() => {
                    info!("restart the agent to have its configuration read again; the engine VM does not notice");
                }
                () = &mut agent => return Ok(()),
            }
        }
    });
    // A read of shared storage that hangs is not waited for.
    runtime.shutdown_background();
    result
}
