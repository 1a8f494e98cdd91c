//! What is refused, what becomes of each thing that deployment made, and that an interrupted one goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use broker_api::status::HostRow;
use ha_config::{HostedEngineConf, Paths};
use metadata_format::{EngineStatus, HostId, HostRecord, Score};

use super::facts::{Facts, Member, Vm};
use super::*;
use crate::deploy::job_tests::request;
use crate::deploy::made::{ChangedMaintenance, ChangedService, DaemonDirectory, MadeDirectory, MadeFile};
use crate::deploy::services::{ServiceState, Services};
use crate::deploy::storage::find::{Hosts, Seen};
use crate::deploy::testing::{Heard, Recorded};
use crate::deploy::{Made, Moment, StepId};
use crate::deployed;
use crate::repair::tests::Host;
use crate::status::View;

const ON: ServiceState = ServiceState { is_enabled: true, is_active: true };
const OFF: ServiceState = ServiceState { is_enabled: false, is_active: false };

fn id(number: u16) -> HostId {
    HostId::new(number).unwrap()
}

fn row(number: u16, score: u32) -> Vec<u8> {
    HostRecord {
        host_ts: 100,
        host_time: "then".into(),
        host_id: id(number),
        score: Score(score),
        engine_status: EngineStatus::parse("vm-down"),
        hostname: format!("h{number}"),
        maintenance: false,
        stopped: false,
        conf_on_shared_storage: true,
        vm_conf_refresh_ts: 100,
        vm_conf_refresh_time: "then".into(),
        state: "EngineDown".into(),
        timeout: None,
        notes: BTreeMap::new(),
    }
    .encode()
    .unwrap()
}

/// Host 1, beside others with these scores.
fn member(vm: Vm, others: &[u32]) -> Member {
    let numbers = 2..;
    let blocks: BTreeMap<u16, Vec<u8>> = numbers
        .zip(others)
        .map(|(number, score)| (number, row(number, *score)))
        .chain([(1, row(1, 2400))])
        .collect();
    let alive: Vec<u16> = blocks.keys().copied().collect();
    let seen = |number: &u16| {
        let seen = Seen { block: Some(Ok(format!("h{number}"))), last_seen: None, owner: None };
        (id(*number), seen)
    };
    Member {
        conf: HostedEngineConf::parse(
            &Paths::default(),
            "fqdn=e\nhost_id=1\nsdUUID=sd\nvmid=vm\nstorage=/srv/he\ndomainType=posixfs\n",
        ),
        id: id(1),
        vm,
        view: Ok(View::from_blocks(&blocks, &alive)),
        hosts: Ok(Hosts(blocks.keys().map(seen).collect())),
        agent_runs: true,
    }
}

fn judged(member: Member, force: bool) -> Result<String, String> {
    Facts { member: Some(member), story: None }.judge(force).map(|notes| notes.join("; "))
}

#[test]
fn a_vm_without_a_place_to_go_stays_unless_forced() {
    assert_eq!(judged(member(Vm::NotHere, &[2400]), false).unwrap(), "");
    assert!(judged(member(Vm::Here, &[2400]), false).unwrap().contains("it moves to another one first"));
    for others in [&[][..], &[0][..]] {
        let error = judged(member(Vm::Here, others), false).unwrap_err();
        assert!(error.contains("no other host can take it") && error.contains("--vm-shutdown"), "{error}");
        let note = judged(member(Vm::Here, others), true).unwrap();
        assert!(note.contains("it is shut down, because of --force"), "{note}");
    }
    let mut young = member(Vm::Here, &[2400]);
    let Some(HostRow::Good(row)) = young.view.as_mut().unwrap().rows.get_mut(&id(2)) else { panic!("a row") };
    (row.live, row.unchanged_secs) = (false, Some(4));
    let note = judged(young, false).unwrap();
    assert!(note.contains("it moves to h2 (id 2) first, once that can take it"), "{note}");
    let unknown = || member(Vm::Unknown("libvirtd does not run".to_owned()), &[2400]);
    assert!(judged(unknown(), false).unwrap_err().contains("libvirtd does not run"));
    assert!(judged(unknown(), true).unwrap().contains("because of --force"));
}

/// Nobody would move it, and shutting it down is the operator's decision.
#[test]
fn force_does_not_help_where_no_agent_acts() {
    let mut still = member(Vm::Here, &[2400]);
    still.view.as_mut().unwrap().global_maintenance = Some(true);
    assert!(judged(still, true).unwrap_err().contains("--mode=none"));
    let mut dead = member(Vm::Here, &[2400]);
    dead.agent_runs = false;
    assert!(judged(dead, true).unwrap_err().contains("start ovirt-ha-agent"));
    let mut mute = member(Vm::Here, &[2400]);
    mute.view = Err("no such file".to_owned());
    assert!(judged(mute, true).unwrap_err().contains("Start ovirt-ha-broker"));
}

#[test]
fn storage_that_cannot_be_read_needs_force() {
    let lost = || Member { hosts: Err("I/O error".to_owned()), ..member(Vm::NotHere, &[2400]) };
    assert!(judged(lost(), false).unwrap_err().contains("--connect-storage"));
    assert!(judged(lost(), true).unwrap().contains("stay there, because of --force"));
}

#[test]
fn the_last_host_is_told_that_the_cluster_ends_and_how_to_delete_it() {
    let facts = Facts { member: Some(member(Vm::NotHere, &[])), story: None };
    assert!(facts.judge(false).unwrap()[0].contains("the hosted engine ends, its storage domain stays"));
    let end = facts.end_of_cluster().unwrap();
    assert!(end.contains("--join=/srv/he") && end.contains("rm -r ") && end.contains("/sd"), "{end}");
    let facts = Facts { member: Some(member(Vm::NotHere, &[2400])), story: None };
    assert_eq!(facts.end_of_cluster(), None);
}

#[test]
fn a_host_that_is_no_member_is_refused() {
    let none = Facts { member: None, story: None };
    assert!(none.judge(true).unwrap_err().contains("is not deployed"));
}

/// A service manager with two services that run.
struct Running(Mutex<BTreeMap<String, ServiceState>>);

impl Running {
    fn new() -> Self {
        let all = ["ovirt-ha-agent", "ovirt-ha-broker"].map(|name| (name.to_owned(), ON));
        Self(Mutex::new(BTreeMap::from(all)))
    }

    fn all_off(&self) -> bool {
        self.0.lock().unwrap().values().all(|state| *state == OFF)
    }
}

impl Services for Running {
    fn state(&self, service: &str) -> Result<Option<ServiceState>, DeployError> {
        Ok(self.0.lock().unwrap().get(service).copied())
    }

    fn set(&self, service: &str, wanted: ServiceState) -> Result<(), DeployError> {
        self.0.lock().unwrap().insert(service.to_owned(), wanted);
        Ok(())
    }

    fn restart(&self, service: &str) -> Result<(), DeployError> {
        Err(DeployError::Refused(format!("{service} needs no restart")))
    }
}

struct Stage {
    dir: tempfile::TempDir,
    paths: Paths,
    services: Running,
}

impl Stage {
    /// A deployment that made some of each kind.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        fs::create_dir_all(paths.setup_state_dir()).unwrap();
        let mut journal = Journal::begin(&paths.deploy_journal(), 0, request()).unwrap();
        let mut make = |step, all: Vec<(Made, Box<dyn Fn()>)>| {
            journal.begin_step(step).unwrap();
            for (made, act) in all {
                let number = journal.will(made).unwrap();
                act();
                journal.did(number).unwrap();
            }
            journal.end_step(step).unwrap();
        };
        let directory = |path: PathBuf| -> (Made, Box<dyn Fn()>) {
            (
                MadeDirectory { path: path.clone() }.into(),
                Box::new(move || fs::create_dir_all(&path).unwrap()),
            )
        };
        let file = |path: PathBuf, text: &'static str| -> (Made, Box<dyn Fn()>) {
            let written = MadeFile { path: path.clone(), content: Some(text.to_owned()) };
            (written.into(), Box::new(move || fs::write(&path, text).unwrap()))
        };
        let service = |name: &str, before| -> (Made, Box<dyn Fn()>) {
            (ChangedService { name: name.to_owned(), before, reads_files: false }.into(), Box::new(|| {}))
        };
        let state = paths.state_dir();
        let daemons = DaemonDirectory { path: state.clone(), before: None };
        let copies = paths.backup_dir();
        make(
            StepId::Directories,
            vec![
                directory(paths.resolve("/etc")),
                directory(paths.hosted_engine_conf_dir()),
                (daemons.into(), Box::new(move || fs::create_dir_all(&copies).unwrap())),
            ],
        );
        make(
            StepId::StorageDomain,
            vec![directory(dir.path().join("domain")), file(dir.path().join("domain/disk"), "disk")],
        );
        make(
            StepId::HostConfiguration,
            vec![file(paths.resolve("/etc/one"), "one"), file(paths.resolve("/etc/two"), "two")],
        );
        make(StepId::MainConfiguration, vec![file(paths.hosted_engine_conf(), "vmid=8b2b\n")]);
        make(
            StepId::HandOver,
            vec![
                // Undone as the deployment were, it would run again.
                service("ovirt-ha-broker", ServiceState { is_enabled: false, is_active: true }),
                service("ovirt-ha-agent", OFF),
                (ChangedMaintenance { before: true, after: false }.into(), Box::new(|| {})),
            ],
        );
        journal.over(Outcome::Deployed).unwrap();
        fs::write(paths.backup_dir().join("block"), "old").unwrap();
        Self { dir, paths, services: Running::new() }
    }

    /// From the point on at which the host is no member any more, cut after so many lines.
    fn attempt(&self, moments: Option<u32>) -> Result<Vec<String>, DeployError> {
        let (heard, tools) = (Heard::default(), Recorded::new(&[]));
        let open_vm = |_: &HostedEngineConf| Err(anyhow::anyhow!("there is no VM"));
        let hands = Hands {
            paths: &self.paths,
            tools: &tools,
            report: &heard,
            services: &self.services,
            open_vm: &open_vm,
        };
        let facts = Facts { member: None, story: None };
        let watch = |journal: &mut Journal| {
            if let Some(mut left) = moments {
                journal.watch(Box::new(move |_: Moment, _: &str| {
                    left = left.checked_sub(1).ok_or_else(|| DeployError::Refused("cut".to_owned()))?;
                    Ok(())
                }));
            }
        };
        take_out(&hands, &facts, false, watch).map(|()| heard.all())
    }

    fn left(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut stack = vec![self.dir.path().to_owned()];
        while let Some(at) = stack.pop() {
            for entry in fs::read_dir(&at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    stack.push(path);
                } else {
                    all.push(path.strip_prefix(self.dir.path()).unwrap().display().to_string());
                }
            }
        }
        all.sort();
        all
    }
}

fn without_times(all: Vec<String>) -> Vec<String> {
    let plain = |name: String| match name.split_once("/backup.") {
        Some((before, _)) => format!("{before}/backup"),
        None => name,
    };
    all.into_iter().map(plain).collect()
}

#[test]
fn what_deployment_made_on_the_host_goes_and_what_is_the_clusters_stays() {
    let stage = Stage::new();
    fs::write(stage.paths.resolve("/etc/two"), "mine").unwrap();
    let heard = stage.attempt(None).unwrap();
    assert!(heard.iter().any(|line| line.starts_with("! Left alone") && line.contains("two")), "{heard:?}");
    assert!(stage.services.all_off(), "{:?}", stage.services.0);
    let setup = "var/lib/ovirt-hosted-engine-setup";
    assert_eq!(
        without_times(stage.left()),
        [
            "domain/disk".to_owned(),
            "etc/two".to_owned(),
            format!("{setup}/backup"),
            format!("{setup}/deploy.journal")
        ]
    );
    let story = Journal::read(&stage.paths.deploy_journal()).unwrap().unwrap();
    assert_eq!(story.outcome, Some(Outcome::Undone));
}

#[test]
fn cut_at_any_moment_it_goes_on_and_is_recognised() {
    let whole = Stage::new();
    whole.attempt(None).unwrap();
    let expected = without_times(whole.left());
    let mut cuts = 0;
    for moments in 0.. {
        let stage = Stage::new();
        if stage.attempt(Some(moments)).is_ok() {
            break;
        }
        cuts += 1;
        let story = Journal::read(&stage.paths.deploy_journal()).unwrap().unwrap();
        if story.is_undeploying && story.outcome.is_none() {
            let half = deployed::half_deploy(&stage.paths).unwrap().unwrap().to_string();
            assert!(half.contains("go on with hosted-engine --undeploy"), "{half}");
            let error = Facts { member: None, story: Some(story) }.judge(false).unwrap();
            assert_eq!(error, ["what is left of an interrupted --undeploy is done"]);
        }
        if Journal::read(&stage.paths.deploy_journal()).unwrap().unwrap().outcome != Some(Outcome::Undone) {
            stage.attempt(None).unwrap();
        }
        assert_eq!(without_times(stage.left()), expected, "cut after {moments}");
        assert!(stage.services.all_off());
    }
    assert!(cuts > 20, "{cuts}");
}

/// Other tools deployed the host.
#[test]
fn without_a_journal_what_is_as_deployment_writes_it_goes() {
    let host = Host::new();
    let (heard, tools, services) = (Heard::default(), Recorded::new(&[]), Running::new());
    let open_vm = |_: &HostedEngineConf| Err(anyhow::anyhow!("there is no VM"));
    let paths = &host.paths;
    let hands = Hands { paths, tools: &tools, report: &heard, services: &services, open_vm: &open_vm };
    fs::create_dir_all(paths.setup_state_dir()).unwrap();
    fs::write(paths.agent_conf(), "[score]\nbase-score = 7\n").unwrap();
    let conf = HostedEngineConf::load(paths).unwrap();
    let member = Member { conf, ..member(Vm::NotHere, &[]) };
    files::known(&hands, Some(&member)).unwrap();
    files::main_configuration(&hands).unwrap();
    let is_there = |path: &Path| path.exists();
    assert!(
        !is_there(&paths.hosted_engine_conf())
            && !is_there(&paths.ha_toml())
            && !is_there(&paths.broker_conf())
    );
    assert!(is_there(&paths.agent_conf()), "the operator's");
    assert!(is_there(&host.conf.metadata_path().unwrap()), "the cluster's");
    let copies = fs::read_dir(paths.setup_state_dir()).unwrap().count();
    assert!(copies > 0, "a copy of hosted-engine.conf");
    assert!(
        heard.all().iter().any(|line| line.contains("agent.conf: somebody changed it")),
        "{:?}",
        heard.all()
    );
}
