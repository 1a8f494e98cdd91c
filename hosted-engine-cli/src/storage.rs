//! `--connect-storage`, `--disconnect-storage`: the hosted engine's storage domain on this host, by hand.
//!
//! Where VDSM manages the host it is asked to connect or disconnect. Elsewhere the storage is mounted where deployment
//! mounted it, after each boot by ovirt-ha-storage.service, and unmounted. Disconnecting is refused while somebody here
//! needs the storage.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use broker_api::BrokerClient;
use broker_api::status::LeaseState;
use clap::Args;
use engine_vm::EngineVm;
use ha_config::{HaToml, HostedEngineConf};
use storage_domain::{Connected, DomainError, Monitoring, Step, StorageDomain};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use vdsm_client::Client;

use crate::deploy::Tools;
use crate::deploy::storage as reach;
use crate::shared_file::{SharedFile, UNIT};
use crate::terminal::{Exit, Terminal};

/// How long a read of storage that is not VDSM's may take before it counts as hanging.
const READ: Duration = Duration::from_secs(10);

/// How storage is connected.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ConnectArgs {
    /// As the host's start does it: where VDSM manages the host nothing is done, because the broker asks VDSM.
    #[arg(long)]
    pub at_boot: bool,
}

/// The host's VDSM, where it manages the host.
///
/// # Errors
/// When a configuration file has a value that cannot be used.
pub fn vdsm_of(conf: &HostedEngineConf) -> Result<Option<Client>> {
    Ok(engine_vm::vdsm::client_of_host(conf, &HaToml::load(conf.paths())?)?)
}

/// `--connect-storage`: exit 0 when the storage can be used.
pub async fn connect(
    args: ConnectArgs,
    conf: &HostedEngineConf,
    vdsm: Option<&Client>,
    tools: &dyn Tools,
    terminal: &mut Terminal,
) -> Result<Exit> {
    let Some(vdsm) = vdsm else {
        match reach::attach(conf, tools) {
            Ok(true) => terminal.say(format!("Connected {}", conf.mount_dir()?.display())),
            Ok(false) => {}
            Err(error) => {
                terminal.complain(error.to_string());
                return Ok(Exit::FAILED);
            }
        }
        return check(conf, terminal).await;
    };
    if args.at_boot {
        terminal.say("VDSM manages this host: the broker has it connect the storage");
        return Ok(Exit::OK);
    }
    let (tell, steps) = unbounded_channel();
    let domain = StorageDomain::new(vdsm.clone(), conf.clone());
    let on_step = |step: &Step| drop(tell.send(step.clone()));
    match follow(domain.connect(&on_step), steps, terminal).await {
        Ok(Connected { warnings }) => {
            for warning in warnings {
                terminal.complain(warning);
            }
            terminal.say("The storage domain is connected");
            Ok(Exit::OK)
        }
        Err(error) => Ok(failed(&error, terminal)),
    }
}

/// This host, as far as disconnecting needs it.
pub struct Host<'a> {
    /// Its configuration.
    pub conf: &'a HostedEngineConf,
    /// Its VDSM, where it manages the host.
    pub vdsm: Option<&'a Client>,
    /// Its broker.
    pub broker: &'a BrokerClient,
    /// Its hypervisor, or why it cannot be asked.
    pub vm: Result<&'a dyn EngineVm, String>,
    /// Its programs.
    pub tools: &'a dyn Tools,
}

/// `--disconnect-storage`: exit 0 when it is disconnected. With `force` what speaks against it is only said.
pub async fn disconnect(host: Host<'_>, force: bool, terminal: &mut Terminal) -> Result<Exit> {
    let reasons = reasons_against(&host).await;
    for reason in &reasons {
        terminal.complain(reason);
    }
    if !reasons.is_empty() && !force {
        terminal
            .complain("The storage stays connected. --force disconnects it all the same: what uses it fails");
        return Ok(Exit::FAILED);
    }
    let Some(vdsm) = host.vdsm else {
        let mount = host.conf.mount_dir()?;
        let is_block = host.conf.domain_type()?.is_block();
        let (done, nothing) = if is_block { ("Deactivated", "active") } else { ("Unmounted", "mounted") };
        return Ok(match reach::detach(host.conf, host.tools) {
            Ok(true) => {
                terminal.say(format!("{done} {}", mount.display()));
                Exit::OK
            }
            Ok(false) => {
                terminal.say(format!("Nothing is {nothing} at {} by hosted-engine", mount.display()));
                Exit::OK
            }
            Err(error) => {
                terminal.complain(error.to_string());
                Exit::FAILED
            }
        });
    };
    let (tell, steps) = unbounded_channel();
    let domain = StorageDomain::new(vdsm.clone(), host.conf.clone());
    let on_step = |step: &Step| drop(tell.send(step.clone()));
    match follow(domain.disconnect(&on_step), steps, terminal).await {
        Ok(()) => {
            terminal.say("The storage domain is disconnected");
            Ok(Exit::OK)
        }
        Err(error) => Ok(failed(&error, terminal)),
    }
}

fn failed(error: &DomainError, terminal: &mut Terminal) -> Exit {
    terminal.complain(error.to_string());
    Exit::FAILED
}

/// Does the work, and says what it waits for.
async fn follow<T>(
    work: impl Future<Output = T>,
    mut steps: UnboundedReceiver<Step>,
    terminal: &mut Terminal,
) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            Some(step) = steps.recv() => terminal.complain(format!("Waiting for {step}")),
            done = &mut work => {
                while let Ok(step) = steps.try_recv() {
                    terminal.complain(format!("Waited for {step}"));
                }
                return done;
            }
        }
    }
}

/// Who needs the storage, and what to do first.
async fn reasons_against(host: &Host<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    let vm = match &host.vm {
        Ok(vm) => vm.status().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.clone()),
    };
    match vm {
        Ok(status) if status.exists() => reasons.push(format!(
            "The engine VM is on this host ({}): shut it down or move it away first",
            status.activity.word()
        )),
        Ok(_) => {}
        Err(error) => reasons.push(format!("Whether the engine VM runs on this host is unknown: {error}")),
    }
    // A broker that does not answer is stopped, or holds on to storage that is gone already.
    if let Ok(Some(document)) = host.broker.status().await {
        match document.lease {
            LeaseState::NotRequested => {}
            LeaseState::Joining { .. } | LeaseState::Held { .. } | LeaseState::Lost { .. } => reasons.push(
                "The HA services of this host hold its host id on the storage, or want it: stop them first \
                 (systemctl stop ovirt-ha-agent ovirt-ha-broker)"
                    .to_owned(),
            ),
        }
    }
    if let (Some(vdsm), Ok(sd)) = (host.vdsm, host.conf.sd_uuid())
        && let Ok(Monitoring::Acquired) = storage_domain::monitoring(vdsm, sd).await
    {
        reasons.push(
            "VDSM holds this host's id in the storage domain: put the host into maintenance in the engine, or \
             stop ovirt-ha-agent, first"
                .to_owned(),
        );
    }
    reasons
}

/// Whether the storage is mounted or active, and the metadata file can be read.
async fn check(conf: &HostedEngineConf, terminal: &mut Terminal) -> Result<Exit> {
    let (domain, file) = (conf.storage_domain_dir()?, conf.metadata_path()?);
    let (is_there, is_right, place, way) = if conf.domain_type()?.is_block() {
        ("its volumes are active", "are its volumes active", domain.clone(), "the paths to its LUN")
    } else {
        let mount = conf.mount_dir()?;
        ("it is mounted", "is the right storage mounted", mount, "the server and the network to it")
    };
    let place = place.display();
    // A read of stuck storage does not come back: it is left behind.
    let read = tokio::task::spawn_blocking(move || look(&domain, &file));
    match tokio::time::timeout(READ, read).await {
        Ok(found) => match found.context("the thread that reads the storage failed")? {
            Ok(()) => {
                terminal.say(format!("The storage domain is connected: {is_there} at {place}"));
                return Ok(Exit::OK);
            }
            Err(error) => {
                terminal.complain(format!("{error}; {is_right} at {place}?"));
            }
        },
        Err(_) => terminal.complain(format!(
            "The storage at {place} does not answer within {} s: check {way}",
            READ.as_secs()
        )),
    }
    Ok(Exit::FAILED)
}

fn look(domain: &Path, file: &Path) -> Result<(), String> {
    std::fs::metadata(domain).map_err(|error| format!("{}: {error}", domain.display()))?;
    let read = SharedFile::open(file, false).and_then(|file| file.read(0, UNIT));
    read.map(drop).map_err(|error| error.to_string())
}
