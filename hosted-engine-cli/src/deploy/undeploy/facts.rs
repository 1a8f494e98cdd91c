//! What must be known before a host is taken out, what speaks against it, and what is going to be done.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use broker_api::BrokerClient;
use ha_config::{DomainType, HostedEngineConf, Paths};
use metadata_format::HostId;

use super::files;
use crate::cli::OpenVm;
use crate::deploy::services::Services;
use crate::deploy::services_steps::{AGENT, asked};
use crate::deploy::storage::find::Hosts;
use crate::deploy::{BOTH_WAYS, DeployError, Journal, Outcome, Story};
use crate::deployed;
use crate::migrate::reasons;
use crate::status::View;

/// How long a read of shared storage may take before it counts as hanging.
const READ: Duration = Duration::from_secs(10);

/// Whether the engine VM is on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Vm {
    Here,
    NotHere,
    /// Why nobody knows.
    Unknown(String),
}

/// This host as a member of its cluster.
#[derive(Debug)]
pub(super) struct Member {
    pub conf: HostedEngineConf,
    pub id: HostId,
    pub vm: Vm,
    /// What the broker knows of the cluster, or why it does not say.
    pub view: Result<View, String>,
    /// The host ids on shared storage, or why they cannot be read.
    pub hosts: Result<Hosts, String>,
    pub agent_runs: bool,
}

/// What is known.
#[derive(Debug)]
pub(super) struct Facts {
    /// `None` once hosted-engine.conf is gone, when an interrupted one goes on.
    pub member: Option<Member>,
    /// The journal of the deployment that made this host a member; `None` when something else did.
    pub story: Option<Story>,
}

impl Facts {
    /// Looks.
    pub fn gather(paths: &Paths, services: &dyn Services, open_vm: &OpenVm) -> anyhow::Result<Self> {
        let story = Journal::read(&paths.deploy_journal())?;
        let story = story.filter(|story| story.outcome != Some(Outcome::Undone));
        let conf = deployed::configuration(paths)?;
        let id = conf.as_ref().map(HostedEngineConf::host_id).transpose()?.flatten();
        let member = match conf.zip(id) {
            Some((conf, id)) => Some(Member::look(conf, id, services, open_vm)?),
            None => None,
        };
        Ok(Self { member, story })
    }

    /// What the operator should know before confirming.
    ///
    /// # Errors
    /// What speaks against taking the host out, and what to do.
    pub fn judge(&self, force: bool) -> Result<Vec<String>, String> {
        if self.story.as_ref().is_some_and(|story| story.outcome.is_none() && !story.is_undeploying) {
            return Err(format!(
                "the deployment of this host was interrupted: it is no member yet\n{BOTH_WAYS}"
            ));
        }
        let is_going_on = self.story.as_ref().is_some_and(|story| story.is_undeploying);
        match &self.member {
            None if is_going_on => Ok(vec!["what is left of an interrupted --undeploy is done".to_owned()]),
            None => Err("this host is not deployed: there is nothing to take out".to_owned()),
            Some(member) => member.judge(force),
        }
    }

    /// In steps, for people.
    pub fn plan(&self, paths: &Paths, notes: &[String]) -> String {
        let mut text = String::new();
        let mut line = |words: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {words}");
        };
        if let Some(member) = &self.member {
            line(&format!("Host {} leaves {}", member.id, member.conf.fqdn().unwrap_or("its hosted engine")));
        }
        for note in notes {
            line(&format!("note: {note}"));
        }
        if let Some(member) = &self.member {
            if member.agent_runs {
                line("local maintenance is set: the engine VM leaves this host, and does not come back");
                line("ovirt-ha-agent is stopped in order");
            }
            line(&format!(
                "the block of host {} is removed from the shared status; a copy is kept",
                member.id
            ));
            line(&format!("host id {} is given up in the lockspaces", member.id));
        }
        line("ovirt-ha-broker is stopped, and neither service starts at boot any more");
        for words in files::plan(paths, self.story.as_ref()) {
            line(&words);
        }
        text
    }

    /// Of the last host: what becomes of the storage domain.
    pub fn end_of_cluster(&self) -> Option<String> {
        let member = self.member.as_ref().filter(|member| member.is_last())?;
        let domain = member.conf.storage_domain_dir().ok()?;
        let sd = member.conf.sd_uuid().unwrap_or_default();
        let is_block = member.conf.domain_type().is_ok_and(DomainType::is_block);
        let delete = if is_block {
            format!("vgremove {sd}")
        } else {
            format!("with the storage mounted: rm -r {}", domain.display())
        };
        Some(format!(
            "It was the last host: the hosted engine has ended. Its storage domain {sd} with the engine VM's disk is as it \
             was: a host that joins it (hosted-engine --deploy --join={}) brings the VM back. To delete it for ever, {delete}\n",
            member.conf.storage().unwrap_or("STORAGE")
        ))
    }
}

impl Member {
    fn look(
        conf: HostedEngineConf,
        id: HostId,
        services: &dyn Services,
        open_vm: &OpenVm,
    ) -> Result<Self, DeployError> {
        let broker = BrokerClient::new(conf.paths().broker_socket());
        let (vm, view) = asked(async {
            let vm = match open_vm(&conf) {
                Ok(vm) => match vm.status().await {
                    Ok(status) if status.exists() => Vm::Here,
                    Ok(_) => Vm::NotHere,
                    Err(error) => Vm::Unknown(error.to_string()),
                },
                Err(error) => Vm::Unknown(format!("{error:#}")),
            };
            (vm, View::fetch(&broker).await.map_err(|error| error.to_string()))
        })?;
        let hosts = hosts(&conf);
        let agent_runs = services.state(AGENT)?.is_some_and(|state| state.is_active);
        Ok(Self { conf, id, vm, view, hosts, agent_runs })
    }

    /// No other host has a number.
    fn is_last(&self) -> bool {
        self.hosts.as_ref().is_ok_and(|hosts| hosts.others(Some(self.id)).is_none())
    }

    fn judge(&self, force: bool) -> Result<Vec<String>, String> {
        let mut notes = Vec::new();
        if self.is_last() {
            notes.push("this is the last host: the hosted engine ends, its storage domain stays".to_owned());
        }
        match &self.vm {
            Vm::NotHere => {}
            Vm::Unknown(why) if force => notes.push(format!(
                "whether the engine VM runs here is not known ({why}); going on because of --force"
            )),
            Vm::Unknown(why) => {
                return Err(format!(
                    "whether the engine VM runs on this host is not known: {why}. Start the hypervisor, or use --force \
                     when the VM does not run here"
                ));
            }
            Vm::Here => notes.push(self.may_leave(force)?),
        }
        match &self.hosts {
            Ok(_) => {}
            Err(why) if force => notes.push(format!(
                "shared storage cannot be read ({why}): this host's block and number stay there, because of --force"
            )),
            Err(why) => {
                return Err(format!(
                    "shared storage cannot be read: {why}. Connect it first (hosted-engine --connect-storage), or use \
                     --force to leave this host's block and number there"
                ));
            }
        }
        Ok(notes)
    }

    /// How the VM leaves.
    fn may_leave(&self, force: bool) -> Result<String, String> {
        let here = "the engine VM runs on this host";
        let by_hand =
            "shut the VM down first (hosted-engine --set-maintenance --mode=global, then --vm-shutdown)";
        let view = self.view.as_ref().map_err(|why| {
            format!("{here}, and the broker does not say who can take it: {why}. Start ovirt-ha-broker, or {by_hand}")
        })?;
        if view.global_maintenance != Some(false) {
            return Err(format!(
                "{here}, and the cluster is in global maintenance, in which it does not move: end that \
                 (hosted-engine --set-maintenance --mode=none), or shut the VM down (hosted-engine --vm-shutdown)"
            ));
        }
        if !self.agent_runs {
            return Err(format!(
                "{here}, and its agent, which would move it away, does not run: start ovirt-ha-agent, or {by_hand}"
            ));
        }
        if view.somebody_else_can_run_it(self.id) {
            return Ok(format!("{here}: it moves to another one first"));
        }
        let coming = view.coming(self.id);
        if !(force || coming.is_empty()) {
            return Ok(format!("{here}: it moves to {} first, once that can take it", coming.join(" or ")));
        }
        let why = reasons(&view.others(self.id));
        if force {
            return Ok(format!("{here}, and no other can take it{why}: it is shut down, because of --force"));
        }
        Err(format!(
            "{here}, and no other host can take it{why}\nBring another host up, or {by_hand}, or use --force to have it \
             shut down"
        ))
    }
}

/// The host ids on shared storage. A read of storage that hangs does not come back: it is left behind.
fn hosts(conf: &HostedEngineConf) -> Result<Hosts, String> {
    let path = |path: ha_config::Result<PathBuf>| path.map_err(|error| error.to_string());
    let (metadata, lockspace) = (path(conf.metadata_path())?, path(conf.lockspace_path())?);
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody may listen any more.
        let _ = tell.send(Hosts::read(&metadata, &lockspace).map_err(|error| error.to_string()));
    });
    told.recv_timeout(READ).unwrap_or_else(|_| Err(format!("it does not answer within {} s", READ.as_secs())))
}
