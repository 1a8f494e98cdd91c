//! The steps that only a move has.

use std::path::PathBuf;
use std::rc::Rc;

use clock::{Clock as _, SystemClock};
use ha_config::atomic::{self, Mode};
use ha_config::{HostedEngineConf, KeyValueFile, conf_archive};
use serde::{Deserialize, Serialize};

use super::lease::Held;
use super::note::{self, ClosedFormer};
use super::{cluster, copy, former};
use crate::deploy::host_files::{cluster as cluster_of, give_to_broker, replace};
use crate::deploy::made::JoinedLockspaces;
use crate::deploy::services::ServiceState;
use crate::deploy::services_steps::{AGENT, BROKER, asked, service};
use crate::deploy::storage::{Role, backend, hosted_engine_conf};
use crate::deploy::{DeployError, FirstHost, Job, Request, Step, StepId, Undo, Undone, World, vm};
use crate::setup::{ClusterConf, SetupError};
use crate::shared_file::SharedFile;

fn first<'w>(world: &World<'w>) -> Result<&'w FirstHost, DeployError> {
    match world.request {
        Request::FirstHost(first) => Ok(first),
        Request::FurtherHost(_) => {
            Err(DeployError::Refused("a host that follows makes no storage".to_owned()))
        }
    }
}

/// The cluster's configuration in the new domain, which stays hidden.
pub(super) struct ShareMoved;

/// The VM's disk, under its lease on the former storage.
pub(super) struct CopyDisk(pub Rc<Held>);

/// The way of no return.
pub(super) struct CloseFormer(pub Rc<Held>);

/// This host's daemons stop, and it leaves the former lockspaces.
pub(super) struct LeaveFormer;

/// This host's files name the new storage.
pub(super) struct ChangeOver;

/// The VM runs under its new lease.
pub(super) struct StartVm;

impl Step for ShareMoved {
    fn id(&self) -> StepId {
        StepId::SharedConfiguration
    }

    fn title(&self) -> String {
        "Taking the cluster's configuration along".to_owned()
    }

    fn makes(&self) -> &'static str {
        "the cluster's configuration in the new domain, with the new storage in it"
    }

    fn unmakes(&self) -> &'static str {
        "goes with the storage domain"
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let world = &job.world;
        let conf = former(world)?.conf(world.paths);
        let volume = conf.conf_volume_path()?.ok_or_else(|| {
            DeployError::Refused("this cluster has no configuration volume on shared storage".to_owned())
        })?;
        let moved = cluster::moved(ClusterConf::read(&volume)?, &hosted_engine_conf(world, first(world)?)?)?;
        let now = u64::try_from(SystemClock.wall().0).unwrap_or(0);
        let archive = conf_archive::write(&moved.files(), now).map_err(SetupError::from)?;
        let volume = SharedFile::open(&backend(world.request).volume(world, Role::Configuration), true);
        Ok(volume.and_then(|volume| volume.write(0, &archive)).map_err(SetupError::from)?)
    }
}

impl Step for CopyDisk {
    fn id(&self) -> StepId {
        StepId::Disk
    }

    fn title(&self) -> String {
        "Copying the VM's disk".to_owned()
    }

    fn makes(&self) -> &'static str {
        "the content of the VM's disk, copied under its lease on the former storage and read back"
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        self.0.copy(&job.world)
    }
}

impl Held {
    fn copy(&self, world: &World<'_>) -> Result<(), DeployError> {
        let holding = self.lease.take(world)?;
        let from = former(world)?.conf(world.paths).vm_disk_path()?;
        copy::copy(world, &from, &backend(world.request).volume(world, Role::Disk))?;
        *self.holding.borrow_mut() = Some(holding);
        Ok(())
    }
}

impl Step for CloseFormer {
    fn id(&self) -> StepId {
        StepId::CloseFormerDomain
    }

    fn title(&self) -> String {
        "Closing the former storage".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let (world, lease) = (job.world, &self.0.lease);
        let (conf, sd) = (former(&world)?.conf(world.paths), first(&world)?.ids.sd);
        if lease.is_retired(&world)? {
            if !note::is_to(&conf, sd)? {
                return Err(DeployError::Refused(
                    "the former storage was closed by another move than this one, and the VM may run elsewhere: take \
                     this one back (hosted-engine --move-storage --undo), and follow that one (--move-storage --follow)"
                        .to_owned(),
                ));
            }
        } else {
            if self.0.holding.borrow().is_none() {
                world.report.info("The VM may have run since its disk was copied: copying it again");
                self.0.copy(&world)?;
            }
            // First the note: it says whose move it was that closed the storage.
            let text = cluster_of(&world)?.hosted_engine_conf;
            job.make(ClosedFormer { sd }, |world| note::write(world, &text))?;
            lease.retire(&job.world)?;
        }
        drop(self.0.holding.borrow_mut().take());
        backend(job.world.request).complete(job)
    }
}

impl Step for LeaveFormer {
    fn id(&self) -> StepId {
        StepId::LeaveFormerDomain
    }

    fn title(&self) -> String {
        "Leaving the former storage".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let off = |before| ServiceState { is_active: false, ..before };
        service(job, AGENT, off)?;
        let (paths, open_vm) = (job.world.paths, job.world.open_vm);
        let conf = former(&job.world)?.conf(paths);
        let sd_uuid = conf.sd_uuid()?.parse().map_err(|_| {
            DeployError::Refused(format!("sdUUID={:?} is no uuid", conf.sd_uuid().unwrap_or_default()))
        })?;
        JoinedLockspaces { host_id: conf.require_host_id()?.get(), sd_uuid }.give_up(paths, open_vm)?;
        service(job, BROKER, off)
    }
}

impl Step for ChangeOver {
    fn id(&self) -> StepId {
        StepId::MainConfiguration
    }

    fn title(&self) -> String {
        "Changing this host over to the new storage".to_owned()
    }

    fn makes(&self) -> &'static str {
        "the storage in hosted-engine.conf, answers.conf and vm.conf is the new one; the former file is kept beside the journal"
    }

    fn unmakes(&self) -> &'static str {
        "the former files are put back"
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let paths = job.world.paths;
        let shared = cluster_of(&job.world)?;
        let sd = HostedEngineConf::parse(paths, &former(&job.world)?.hosted_engine_conf);
        let path = paths.hosted_engine_conf();
        let text = cluster::with_storage_of(&atomic::read_text(&path)?, &shared.hosted_engine_conf);
        let mut file = KeyValueFile::parse(path.clone(), &text);
        let password = job.world.secrets.iscsi.clone();
        if let Some(password) = &password {
            file.set("password", password.reveal());
        }
        replace(job, &paths.answers_conf(), &shared.answers, Mode::Private)?;
        let kept = paths.setup_state_dir().join(format!("hosted-engine.conf.{}", sd.sd_uuid()?));
        let replaced = ReplacedFile { path: path.clone(), kept };
        job.make(replaced.clone(), |world| {
            replaced.keep()?;
            let mode = if password.is_some() { Mode::Private } else { Mode::KeepOr644 };
            atomic::write(&path, file.text().as_bytes(), mode)?;
            if password.is_some() { give_to_broker(world, &path) } else { Ok(()) }
        })?;
        // In the run directory; the agent writes them anew.
        for path in [paths.vm_conf(), paths.vm_conf_fallback()] {
            atomic::write(&path, shared.vm_conf.as_bytes(), Mode::KeepOr644)?;
        }
        Ok(())
    }
}

impl Step for StartVm {
    fn id(&self) -> StepId {
        StepId::EngineVm
    }

    fn title(&self) -> String {
        "Starting the engine VM".to_owned()
    }

    fn unmakes(&self) -> &'static str {
        "not at all: it runs where the cluster is"
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let World { paths, open_vm, report, .. } = job.world;
        let conf = HostedEngineConf::load(paths)?;
        asked(async {
            let vm = open_vm(&conf).map_err(|error| DeployError::Refused(format!("{error:#}")))?;
            vm::ensure(vm.as_ref(), report).await
        })?
    }
}

/// A file that another took the place of. It may hold a password, so it is kept in a file of its own, not in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedFile {
    /// Where.
    pub path: PathBuf,
    /// Where the former one is kept, which only root reads.
    pub kept: PathBuf,
}

impl ReplacedFile {
    fn keep(&self) -> Result<(), DeployError> {
        let text = atomic::read_text(&self.path)?;
        Ok(atomic::write(&self.kept, text.as_bytes(), Mode::Private)?)
    }
}

impl Undo for ReplacedFile {
    fn describe(&self) -> String {
        format!("changes in {}", self.path.display())
    }

    fn describe_undo(&self) -> String {
        format!("the former file ({}) is put back", self.kept.display())
    }

    fn undo(&self, _: &World<'_>) -> Result<Undone, DeployError> {
        let text = match atomic::read_text(&self.kept) {
            Err(error) if error.is_not_found() => return Ok(Undone::Absent),
            other => other?,
        };
        atomic::write(&self.path, text.as_bytes(), Mode::KeepOr644)?;
        std::fs::remove_file(&self.kept).map_err(DeployError::io("remove", &self.kept))?;
        Ok(Undone::TakenBack)
    }
}
