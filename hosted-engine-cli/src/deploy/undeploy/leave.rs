//! Leaving the cluster: the engine VM goes, then the agent, then this host's block and number.

use std::time::Duration;

use broker_api::BrokerClient;
use clock::{Clock as _, SystemClock};
use metadata_format::HostBlock;

use super::facts::{Member, Vm};
use crate::deploy::DeployError;
use crate::deploy::carry_out::Hands;
use crate::deploy::made::JoinedLockspaces;
use crate::deploy::services::ServiceState;
use crate::deploy::services_steps::{AGENT, BROKER, asked};
use crate::maintenance;
use crate::repair;
use crate::shared_file::SharedFile;
use crate::terminal::{Exit, Terminal};

/// From its start until a broker answers.
const BROKER_PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
const OFF: ServiceState = ServiceState { is_enabled: false, is_active: false };

/// A member that leaves.
pub(super) struct Leaving<'a> {
    pub hands: &'a Hands<'a>,
    pub member: &'a Member,
    pub force: bool,
}

impl Leaving<'_> {
    /// Local maintenance: the VM leaves, and the agent starts none. Nothing to do once the agent does not run.
    pub fn empty_host(&self) -> Result<(), DeployError> {
        if !self.member.agent_runs {
            return Ok(());
        }
        self.hands.report.info("Emptying this host by local maintenance");
        let (paths, id) = (self.hands.paths, self.member.id);
        let broker = BrokerClient::new(paths.broker_socket());
        let vm_is_here = self.member.vm == Vm::Here;
        let refused = |text: String| Err(DeployError::Refused(text));
        asked(async {
            let host = maintenance::Host { paths, id, broker: &broker };
            let exit = maintenance::empty(host, vm_is_here, self.force, &mut Terminal::default()).await;
            let back =
                "the host stays in local maintenance (hosted-engine --set-maintenance --mode=none ends that)";
            match exit {
                Ok(Exit::OK) => {}
                Ok(_) => return refused(format!("this host is not empty: {back}")),
                Err(error) => return refused(format!("this host cannot be emptied: {error:#}")),
            }
            // Opened here: VDSM's client wants a runtime.
            match (self.hands.open_vm)(&self.member.conf) {
                Ok(vm) => match vm.status().await {
                    Ok(status) if status.exists() => {
                        refused(format!("the engine VM is still on this host: {back}"))
                    }
                    Ok(_) => Ok(()),
                    Err(_) if self.force => Ok(()),
                    Err(error) => {
                        refused(format!("whether the engine VM has left is not known: {error}; {back}"))
                    }
                },
                // Known and forced before.
                Err(_) => Ok(()),
            }
        })?
    }

    /// Its last words are in its block: stopped in order.
    pub fn stop_agent(&self) -> Result<(), DeployError> {
        self.hands.report.info("Stopping the agent");
        stop(self.hands, AGENT)?;
        let block = || {
            let path = self.member.conf.metadata_path().ok()?;
            let bytes = repair::read_block(&SharedFile::open(&path, false).ok()?, self.member.id).ok()?;
            HostBlock::parse(self.member.id, &bytes).ok()?
        };
        if self.member.agent_runs && block().is_some_and(|block| !block.stopped) {
            self.hands.report.warning(&format!(
                "The agent did not write that it stopped; its log says why: {}",
                self.hands.paths.agent_log().display()
            ));
        }
        Ok(())
    }

    /// Through the broker, which writes it only under the lease on the number: nobody else's block can be hit.
    pub fn forget_block(&self) -> Result<(), DeployError> {
        let Ok(hosts) = &self.member.hosts else {
            // Forced before.
            self.stays_behind("shared storage cannot be read");
            return Ok(());
        };
        let has_block = hosts.0.get(&self.member.id).is_some_and(|seen| seen.block.is_some());
        if !has_block && !self.member.agent_runs {
            return Ok(());
        }
        let forgotten = self.start_broker().and_then(|()| {
            let forgotten = asked(repair::forget_this_host(self.hands.paths, self.hands.report))?;
            forgotten.map_err(|stop| DeployError::Refused(stop.text))
        });
        match forgotten {
            Ok(()) => Ok(()),
            Err(error) if self.force => {
                self.stays_behind(&error.to_string());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn stays_behind(&self, why: &str) {
        self.hands.report.warning(&format!(
            "This host's block stays on shared storage: {why}. On another host: hosted-engine --clean-metadata \
             --host-id={}",
            self.member.id
        ));
    }

    fn start_broker(&self) -> Result<(), DeployError> {
        let services = self.hands.services;
        let Some(now) = services.state(BROKER)? else { return Ok(()) };
        if !now.is_active {
            self.hands.report.info("Starting the broker, which removes the block");
            services.set(BROKER, ServiceState { is_active: true, ..now })?;
        }
        let broker = BrokerClient::new(self.hands.paths.broker_socket());
        let end = SystemClock.monotonic().plus(BROKER_PATIENCE);
        asked(async {
            loop {
                match broker.status().await {
                    Ok(_) => return Ok(()),
                    Err(error) if SystemClock.monotonic() >= end => {
                        return Err(DeployError::Refused(format!("the broker does not answer: {error}")));
                    }
                    // Its socket appears some time after its start.
                    Err(_) => tokio::time::sleep(LOOK).await,
                }
            }
        })?
    }

    /// In both lockspaces.
    pub fn give_up_number(&self) -> Result<(), DeployError> {
        self.hands.report.info(&format!("Giving host id {} up", self.member.id));
        let uuid = self.member.conf.sd_uuid().ok().and_then(|text| uuid::Uuid::try_parse(text).ok());
        let sd_uuid = uuid.unwrap_or_default();
        let given = JoinedLockspaces { host_id: self.member.id.get(), sd_uuid }
            .give_up(self.hands.paths, self.hands.open_vm);
        match given {
            Ok(_) => Ok(()),
            // What holds a lease may be the VM: that is never overridden where the VM can be here.
            Err(error) if self.force && self.member.vm == Vm::NotHere => {
                self.hands
                    .report
                    .warning(&format!("{error}; the lock manager gives it up once this host restarts"));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Stopped, and not started at boot. Of one that goes on with an interrupted one, perhaps both.
pub(super) fn stop_services(hands: &Hands<'_>) -> Result<(), DeployError> {
    hands.report.info("Stopping the broker");
    stop(hands, AGENT)?;
    stop(hands, BROKER)
}

fn stop(hands: &Hands<'_>, service: &str) -> Result<(), DeployError> {
    match hands.services.state(service)? {
        None | Some(OFF) => Ok(()),
        Some(_) => hands.services.set(service, OFF),
    }
}
