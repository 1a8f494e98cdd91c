//! Which steps a request needs, in their order; and what each makes, for those who ask before.

use super::host_files::{Directories, HostConfiguration, MainConfiguration};
use super::services_steps::{Broker, HandOver};
use super::{Request, Step, StepId, firewall, move_storage, network, storage, vm};

/// The steps, the first one first.
pub fn steps(request: &Request) -> Vec<Box<dyn Step>> {
    match request {
        _ if request.moves().is_some() => move_storage::steps(request),
        Request::FirstHost(_) => vec![
            Box::new(Directories),
            Box::new(network::MakeBridge),
            Box::new(firewall::OpenFirewall),
            Box::new(storage::Connect),
            Box::new(storage::MakeDomain),
            Box::new(vm::FillDisk(storage::backend(request))),
            Box::new(storage::WriteLeases),
            Box::new(storage::ShareConfiguration),
            Box::new(HostConfiguration),
            Box::new(MainConfiguration),
            Box::new(Broker),
            Box::new(vm::StartEngineVm::default()),
            Box::new(vm::AwaitEngine::default()),
            Box::new(HandOver),
        ],
        Request::FurtherHost(_) => vec![
            Box::new(Directories),
            Box::new(network::MakeBridge),
            Box::new(firewall::OpenFirewall),
            Box::new(storage::Connect),
            Box::new(HostConfiguration),
            Box::new(MainConfiguration),
            Box::new(Broker),
            Box::new(HandOver),
        ],
    }
}

impl StepId {
    /// All, in their order.
    pub const ALL: [Self; 16] = [
        Self::Directories,
        Self::Bridge,
        Self::Firewall,
        Self::StorageConnection,
        Self::StorageDomain,
        Self::Disk,
        Self::Leases,
        Self::SharedConfiguration,
        Self::CloseFormerDomain,
        Self::LeaveFormerDomain,
        Self::HostConfiguration,
        Self::MainConfiguration,
        Self::Broker,
        Self::EngineVm,
        Self::EngineAnswers,
        Self::HandOver,
    ];

    /// Its word in the journal.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Directories => "directories",
            Self::Bridge => "bridge",
            Self::Firewall => "firewall",
            Self::StorageConnection => "storage-connection",
            Self::StorageDomain => "storage-domain",
            Self::Leases => "leases",
            Self::Disk => "disk",
            Self::SharedConfiguration => "shared-configuration",
            Self::CloseFormerDomain => "close-former-domain",
            Self::LeaveFormerDomain => "leave-former-domain",
            Self::HostConfiguration => "host-configuration",
            Self::MainConfiguration => "main-configuration",
            Self::Broker => "broker",
            Self::EngineVm => "engine-vm",
            Self::EngineAnswers => "engine-answers",
            Self::HandOver => "hand-over",
        }
    }

    /// What it makes or changes, for people.
    pub const fn makes(self) -> &'static str {
        match self {
            Self::Directories => {
                "directories below /etc, /run, /var/lib and /var/log, where they are missing"
            }
            Self::Bridge => {
                "the management bridge over the network card, with its addresses, routes and name servers"
            }
            Self::Firewall => {
                "rules that let the console, migrations and VDSM in, where a firewall is managed"
            }
            Self::StorageConnection => "a mount below /rhev/data-center/mnt, or the login to the target",
            Self::StorageDomain => {
                "the storage domain with its volumes, under a name that nobody takes for a domain"
            }
            Self::Leases => "two lockspaces and the lease of the VM's disk, by the lock manager",
            Self::Disk => "the content of the VM's disk",
            Self::SharedConfiguration => {
                "the cluster's configuration; from now on other hosts find the domain"
            }
            Self::CloseFormerDomain => {
                "the lease of the VM's disk on the former storage is retired: no host can start the VM from there; a note \
                 says where it is; from now on other hosts find the new domain"
            }
            Self::LeaveFormerDomain => {
                "the agent is stopped, the former storage's lockspaces are left, the broker is stopped"
            }
            Self::HostConfiguration => {
                "agent.conf, broker.conf, ha.toml, vm.conf; what libvirt's files must say"
            }
            Self::MainConfiguration => "answers.conf and hosted-engine.conf: this host counts as deployed",
            Self::Broker => {
                "the broker runs, this host is in the lockspaces; a first host: global maintenance"
            }
            Self::EngineVm => "the engine VM runs under its lease",
            Self::EngineAnswers => "nothing: it waits for the engine's health page",
            Self::HandOver => "the agent runs, both services start at boot, global maintenance ends",
        }
    }

    /// How that is taken back, for people.
    pub const fn unmakes(self) -> &'static str {
        match self {
            Self::Directories => {
                "what the daemons wrote is removed, directories when they are empty; logs stay"
            }
            Self::Bridge => "the network card gets its addresses and routes back, the bridge goes",
            Self::Firewall => "the rules are removed",
            Self::StorageConnection => "unmounted, or logged out, when it was not there before",
            Self::StorageDomain => {
                "removed, when it carries this deployment's mark and no other host is in it"
            }
            Self::Leases | Self::Disk => "goes with the storage domain",
            Self::SharedConfiguration => "goes with the storage domain, which gets its unfinished name back",
            Self::CloseFormerDomain => "not at all: from here on there is only --resume",
            Self::LeaveFormerDomain => "both services as they were",
            Self::HostConfiguration => {
                "new files are removed, changed ones get their text back, unless somebody changed them"
            }
            Self::MainConfiguration => "removed: this host does not count as deployed",
            Self::Broker => "the lockspaces are left in order, the broker is stopped",
            Self::EngineVm => "the VM is powered off, when it is this one",
            Self::EngineAnswers => "nothing",
            Self::HandOver => {
                "global maintenance is set again, the agent is stopped, the services as they were"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::deploy::job_tests::request;

    #[test]
    fn each_step_comes_once_and_the_host_counts_as_deployed_before_its_daemons_start() {
        let ids: Vec<_> = steps(&request()).iter().map(|step| step.id()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        let place = |id| ids.iter().position(|other| *other == id);
        assert!(ids.iter().map(|id| StepId::ALL.iter().position(|other| other == id)).is_sorted());
        for id in StepId::ALL {
            assert_eq!(serde_json::to_value(id).unwrap(), id.word());
        }
        assert!(place(StepId::MainConfiguration) < place(StepId::Broker));
        assert_eq!(ids.last(), Some(&StepId::HandOver));
    }

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/deploy.md");

    fn row(step: &dyn Step) -> String {
        format!("| {} | {} | {} |\n", step.id().word(), step.makes(), step.unmakes())
    }

    /// `UPDATE_DOCS=1` writes them anew.
    #[test]
    fn the_tables_of_steps_in_the_documentation_are_these() {
        let written = std::fs::read_to_string(PAGE).unwrap();
        let moving = |further: bool| -> Vec<String> {
            steps(&move_storage::testing::request(further)).iter().map(|step| row(step.as_ref())).collect()
        };
        let deploying = steps(&request()).iter().map(|step| row(step.as_ref())).collect();
        let mut page = written.clone();
        for (kind, rows) in
            [("", deploying), (" of the first host's move", moving(false)), (" of following", moving(true))]
        {
            let begin =
                format!("| step{kind} | makes or changes | how it is undone |\n| --- | --- | --- |\n");
            let (head, rest) = page.split_once(&begin).expect("docs/deploy.md has the table");
            let tail = rest.split_once("\n\n").map_or("", |(_, tail)| tail);
            page = format!("{head}{begin}{}\n{tail}", rows.concat());
        }
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(PAGE, &page).unwrap();
        }
        assert_eq!(page, written, "docs/deploy.md is stale: run this test with UPDATE_DOCS=1");
    }
}
