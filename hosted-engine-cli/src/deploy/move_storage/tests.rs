//! A move on real files, cut before each line of its journal, gone on with or undone; and what it refuses.

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Mutex;

use engine_vm::lease::LeaseOwner;
use ha_config::ha_toml::LeaseAdapter;
use ha_config::{HostedEngineConf, Paths, atomic};

use super::facts::{Seen, same_storage};
use super::lease::FormerLease;
use super::*;
use crate::deploy::job::run;
use crate::deploy::questions::StorageLookups as _;
use crate::deploy::services::{ServiceState, Services};
use crate::deploy::storage::testing::{Site, first_host, storage as storage_at};
use crate::deploy::storage::{Role, backend};
use crate::deploy::testing::{Heard, Recorded, cut_after};
use crate::deploy::{FirstHost, FurtherHost, Ids, Outcome, Secrets, StorageKind, undo};
use crate::leases::{self, ChangeArgs, LeaseCommand};
use crate::setup::ClusterConf;
use crate::terminal::{Exit, Terminal};

const DISK: u64 = 9 << 20;
const CONTENT: &[u8] = b"the engine's own data";

/// A lease that is a file: there while it can be taken. Who holds it is known to this process alone.
#[derive(Clone)]
struct InFile {
    path: PathBuf,
    held: Rc<Cell<u32>>,
}

struct Holding(Rc<Cell<u32>>);

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl FormerLease for InFile {
    fn take(&self, _: &World<'_>) -> Result<Box<dyn Any>, DeployError> {
        if !self.path.exists() {
            return Err(DeployError::Refused("there is no lease".to_owned()));
        }
        self.held.set(self.held.get() + 1);
        Ok(Box::new(Holding(self.held.clone())))
    }

    fn retire(&self, _: &World<'_>) -> Result<(), DeployError> {
        assert_eq!(self.held.get(), 1, "it is retired by who holds it");
        fs::remove_file(&self.path).map_err(DeployError::io("remove", &self.path))
    }

    fn is_retired(&self, _: &World<'_>) -> Result<bool, DeployError> {
        Ok(!self.path.exists())
    }
}

/// A service manager with the two services.
struct Both(Mutex<BTreeMap<String, ServiceState>>);

impl Services for Both {
    fn state(&self, service: &str) -> Result<Option<ServiceState>, DeployError> {
        Ok(self.0.lock().unwrap().get(service).copied())
    }
    fn set(&self, service: &str, state: ServiceState) -> Result<(), DeployError> {
        self.0.lock().unwrap().insert(service.to_owned(), state);
        Ok(())
    }
    fn restart(&self, service: &str) -> Result<(), DeployError> {
        panic!("{service} needs no restart");
    }
}

/// A host whose cluster is on `/srv/he`, with another directory `/srv/new`.
struct Stage {
    site: Site,
    old: Request,
    services: Both,
    lease: InFile,
}

impl Stage {
    fn new() -> Self {
        let site = Site::new();
        fs::create_dir_all(site.dir.path().join("srv/new")).unwrap();
        fs::create_dir_all(site.paths.hosted_engine_conf_dir()).unwrap();
        fs::create_dir_all(site.paths.setup_state_dir()).unwrap();
        fs::create_dir_all(site.paths.run_dir()).unwrap();
        let old = Request::FirstHost(Box::new(first_host(StorageKind::Directory, "/srv/he")));
        let (tools, heard) = (Recorded::new(&[]), Heard::default());
        let world = site.world(&old, &tools, &heard);
        let journal = site.paths.deploy_journal();
        run(&Site::steps(), world, &mut Journal::begin(&journal, 0, old.clone()).unwrap()).unwrap();
        let volume = |role| backend(&old).volume(&world, role);
        let disk = fs::OpenOptions::new().write(true).open(volume(Role::Disk)).unwrap();
        disk.set_len(DISK).unwrap();
        disk.write_all_at(CONTENT, 5 << 20).unwrap();
        let shared = ClusterConf::read(&volume(Role::Configuration)).unwrap();
        let own = shared.hosted_engine_conf.replace("host_id=None", "host_id=1") + "password=secret\n";
        fs::write(site.paths.hosted_engine_conf(), own).unwrap();
        fs::write(site.paths.answers_conf(), &shared.answers).unwrap();
        let lease = InFile { path: site.dir.path().join("lease"), held: Rc::default() };
        fs::write(&lease.path, "").unwrap();
        let on = ServiceState { is_enabled: true, is_active: true };
        let services = ["ovirt-ha-agent", "ovirt-ha-broker"].map(|name| (name.to_owned(), on));
        Self { services: Both(Mutex::new(services.into())), site, old, lease }
    }

    fn conf(&self) -> HostedEngineConf {
        HostedEngineConf::load(&self.site.paths).unwrap()
    }

    fn old(&self) -> &FirstHost {
        let Request::FirstHost(first) = &self.old else { unreachable!("made as a first host") };
        first
    }

    fn former(&self) -> Former {
        Former { hosted_engine_conf: cluster::without_password(&self.conf()) }
    }

    fn request(&self) -> Request {
        let ids = Ids { vm: self.old().ids.vm, disk: self.old().ids.disk, ..Ids::draw() };
        let first = first_host(StorageKind::Directory, "/srv/new");
        Request::FirstHost(Box::new(FirstHost { ids, moves: Some(self.former()), ..first }))
    }

    fn act<T>(&self, request: &Request, act: impl FnOnce(World<'_>) -> T) -> T {
        let (tools, heard) = (Recorded::new(&[]), Heard::default());
        let world = World { services: &self.services, ..self.site.world(request, &tools, &heard) };
        act(world)
    }

    fn journal(&self, request: &Request) -> Journal {
        let path = journal(&self.site.paths);
        Journal::open(&path).unwrap().unwrap_or_else(|| Journal::begin(&path, 0, request.clone()).unwrap())
    }

    /// Begins, or goes on.
    fn moves(&self, request: &Request) -> Result<(), DeployError> {
        let mut journal = self.journal(request);
        let steps = until_changed_over(request, Box::new(self.lease.clone()));
        self.act(request, |world| run(&steps, world, &mut journal))
    }

    fn undoes(&self, request: &Request) -> Result<(), DeployError> {
        let mut journal = self.journal(request);
        self.act(request, |world| {
            refuse_behind(journal.story(), &world, &self.lease)?;
            undo(world, &mut journal)
        })
    }

    /// Where the VM could be started now: from no more than one place, ever.
    fn can_start_from(&self, request: &Request) -> Vec<&'static str> {
        let Request::FirstHost(first) = request else { unreachable!("a move's beginning") };
        let is_shown = self.site.dir.path().join("srv/new").join(first.ids.sd.to_string()).is_dir();
        [(self.lease.path.exists(), "old"), (is_shown, "new")]
            .into_iter()
            .filter_map(|(can, place)| can.then_some(place))
            .collect()
    }

    fn assert_moved(&self, request: &Request, when: &str) {
        let Request::FirstHost(first) = request else { unreachable!("a move's beginning") };
        assert_eq!(self.can_start_from(request), ["new"], "{when}");
        let conf = self.conf();
        assert_eq!(conf.sd_uuid().unwrap(), first.ids.sd.to_string(), "{when}");
        assert_eq!(conf.require_host_id().unwrap().get(), 1, "{when}");
        assert_eq!(conf.iscsi_password(), None, "the former storage's is of no use: {when}");
        let disk = fs::File::open(conf.vm_disk_path().unwrap()).unwrap();
        let mut content = vec![0; CONTENT.len()];
        disk.read_exact_at(&mut content, 5 << 20).unwrap();
        assert_eq!(content, CONTENT, "{when}");
        let shared = ClusterConf::read(&conf.conf_volume_path().unwrap().unwrap()).unwrap();
        assert!(shared.vm_conf.contains(&first.ids.sd.to_string()), "{when}");
        assert!(!shared.vm_conf.contains(&self.old().ids.sd.to_string()), "{when}");
        assert_eq!(atomic::read_text(&self.site.paths.vm_conf()).unwrap(), shared.vm_conf, "{when}");
        let former = self.old_conf();
        assert!(former.vm_disk_path().unwrap().exists(), "the former domain stays: {when}");
        let notice = moved_notice(&former).unwrap();
        assert!(notice.contains(&first.ids.sd.to_string()), "{when}: {notice}");
        assert!(notice.contains("posixfs /srv/new") && notice.contains("--follow"), "{when}: {notice}");
        assert_eq!(moved_notice(&conf), None, "{when}");
    }

    fn old_conf(&self) -> HostedEngineConf {
        request_of(&self.journal_story()).conf(&self.site.paths)
    }

    fn journal_story(&self) -> Story {
        Journal::read(&journal(&self.site.paths)).unwrap().unwrap()
    }

    fn has_journal(&self) -> bool {
        Journal::read(&journal(&self.site.paths)).unwrap().is_some()
    }
}

fn request_of(story: &Story) -> &Former {
    story.request.moves().unwrap()
}

#[test]
fn a_cluster_moves_with_its_disk_and_leaves_a_note() {
    let stage = Stage::new();
    let request = stage.request();
    assert!(!serde_json::to_string(&request).unwrap().contains("secret"), "the journal has no passwords");
    stage.moves(&request).unwrap();
    stage.assert_moved(&request, "at once");
    let error = stage.act(&request, |world| {
        refuse_behind(&stage.journal_story(), &world, &stage.lease).unwrap_err().to_string()
    });
    assert!(error.contains("closed already") && error.contains("--resume"), "{error}");
    // Whoever looks at the former storage finds nothing to join, and is told where it went.
    let (tools, heard) = (Recorded::new(&[]), Heard::default());
    let (hands, old) = (stage.site.hands(&tools, &heard), &stage.old().storage);
    assert_eq!(hands.clusters(old, &Secrets::default()).unwrap(), []);
    assert!(heard.all().iter().any(|text| text.contains("moved to other storage (posixfs /srv/new")));
    assert_eq!(
        hands.clusters(&storage_at(StorageKind::Directory, "/srv/new"), &Secrets::default()).unwrap().len(),
        1
    );
    // Nor does a host that stayed behind make itself another lease there.
    let behind = format!("{}configured=True\n", request.moves().unwrap().hosted_engine_conf);
    fs::write(stage.site.paths.hosted_engine_conf(), behind).unwrap();
    let mut terminal = Terminal::recording();
    let make = LeaseCommand::LeaseCreate(ChangeArgs { name: "vm".to_owned(), json: false, force: false });
    assert_eq!(leases::run(&make, &stage.site.paths, &mut terminal), Exit::FAILED);
    let refusal = terminal.recorded().err;
    assert!(refusal.contains("--move-storage --follow"), "{refusal}");
    let all_off = stage.services.0.lock().unwrap().values().all(|state| !state.is_active);
    assert!(all_off, "the daemons were on the former storage");
}

/// However it is cut, the VM can be started from one place at most, from the former one as long as it can be undone, and
/// both ways lead to their end.
#[test]
fn cut_before_each_line_it_is_gone_on_with_or_undone_and_the_vm_has_one_place() {
    let mut undone = 0;
    for lines in 1..100 {
        let stage = Stage::new();
        let (before, request) = (fs::read(stage.site.paths.hosted_engine_conf()).unwrap(), stage.request());
        if cut_after(lines, || stage.moves(&request)).is_ok() {
            assert!(lines > 20, "{lines} lines");
            break;
        }
        assert!(stage.has_journal());
        let when = format!("cut before line {}", lines + 1);
        let places = stage.can_start_from(&request);
        assert!(places.len() <= 1, "{when}: {places:?}");
        match stage.undoes(&request) {
            Ok(()) => {
                undone += 1;
                assert_eq!(places, ["old"], "{when}");
                assert_eq!(stage.can_start_from(&request), ["old"], "{when}");
                assert_eq!(fs::read(stage.site.paths.hosted_engine_conf()).unwrap(), before, "{when}");
                assert_eq!(fs::read_dir(stage.site.dir.path().join("srv/new")).unwrap().count(), 0, "{when}");
                assert_eq!(moved_notice(&stage.conf()), None, "{when}");
                assert_eq!(stage.journal_story().outcome, Some(Outcome::Undone), "{when}");
                // And again from the beginning.
                let request = stage.request();
                stage.moves_anew(&request);
                stage.assert_moved(&request, &when);
            }
            Err(error) => {
                assert!(error.to_string().contains("closed already"), "{when}: {error}");
                assert_ne!(places, ["old"], "{when}");
                stage.moves(&request).unwrap();
                stage.assert_moved(&request, &when);
            }
        }
        let stage = Stage::new();
        let request = stage.request();
        cut_after(lines, || stage.moves(&request)).unwrap_err();
        stage.moves(&request).unwrap();
        stage.assert_moved(&request, &when);
    }
    assert!(undone > 8, "{undone}");
}

impl Stage {
    fn moves_anew(&self, request: &Request) {
        let path = journal(&self.site.paths);
        let mut journal = Journal::begin(&path, 0, request.clone()).unwrap();
        let steps = until_changed_over(request, Box::new(self.lease.clone()));
        self.act(request, |world| run(&steps, world, &mut journal)).unwrap();
    }
}

/// What was written between the copy and the closing is in the new disk: the copy is made again under the lease.
#[test]
fn a_vm_that_ran_since_its_disk_was_copied_loses_nothing() {
    let stage = Stage::new();
    let request = stage.request();
    let steps = until_changed_over(&request, Box::new(stage.lease.clone()));
    let mut journal = stage.journal(&request);
    // Ends with the copy, as if it was killed there: its lease is free again.
    let copied = steps.iter().position(|step| step.id() == StepId::Disk).unwrap() + 1;
    stage.act(&request, |world| {
        let steps: Vec<&dyn Step> = steps[..copied].iter().map(AsRef::as_ref).collect();
        crate::deploy::job::carry_out(&steps, world, &mut journal).unwrap();
    });
    drop((steps, journal));
    assert_eq!(stage.lease.held.get(), 0);
    let disk = fs::OpenOptions::new().write(true).open(stage.conf().vm_disk_path().unwrap()).unwrap();
    disk.write_all_at(b"written since", 0).unwrap();
    stage.moves(&request).unwrap();
    let mut content = [0; 13];
    let disk = fs::File::open(stage.conf().vm_disk_path().unwrap()).unwrap();
    disk.read_exact_at(&mut content, 0).unwrap();
    assert_eq!(&content, b"written since");
    stage.assert_moved(&request, "after a second copy");
}

/// Two hosts move the same cluster: the one that was cut before it closed the former storage finds it closed by the other.
#[test]
fn of_two_moves_one_counts() {
    let stage = Stage::new();
    let loser = stage.request();
    let lines_to_closing = (1..100)
        .find(|lines| {
            let stage = Stage::new();
            let request = stage.request();
            cut_after(*lines, || stage.moves(&request)).is_ok() || !stage.lease.path.exists()
        })
        .unwrap();
    cut_after(lines_to_closing - 1, || stage.moves(&loser)).unwrap_err();
    assert!(moved_notice(&stage.conf()).is_some(), "it has left its note, and not retired the lease");

    // The other host's: its journal is elsewhere.
    let winner = stage.request();
    let elsewhere = stage.site.dir.path().join("elsewhere.journal");
    let mut journal = Journal::begin(&elsewhere, 0, winner.clone()).unwrap();
    let steps = until_changed_over(&winner, Box::new(stage.lease.clone()));
    let closed = steps.iter().position(|step| step.id() == StepId::CloseFormerDomain).unwrap() + 1;
    fs::remove_dir_all(stage.site.dir.path().join("srv/new")).unwrap();
    fs::create_dir(stage.site.dir.path().join("srv/new")).unwrap();
    stage.act(&winner, |world| {
        let steps: Vec<&dyn Step> = steps[..closed].iter().map(AsRef::as_ref).collect();
        crate::deploy::job::carry_out(&steps, world, &mut journal).unwrap();
    });
    let error = stage.moves(&loser).unwrap_err().to_string();
    assert!(error.contains("closed by another move"), "{error}");
    assert_eq!(stage.can_start_from(&loser), [""; 0], "it shows nothing of its own");
    assert_eq!(stage.can_start_from(&winner), ["new"]);
    stage.undoes(&loser).unwrap();
    assert_eq!(stage.can_start_from(&winner), ["new"], "taking the loser back leaves the winner's alone");
    let to = note::read(&stage.conf()).unwrap().unwrap();
    let Request::FirstHost(first) = &winner else { unreachable!("a move's beginning") };
    assert_eq!(to.sd_uuid().unwrap(), first.ids.sd.to_string());
}

#[test]
fn a_host_follows_and_can_go_back_until_it_has() {
    let stage = Stage::new();
    let request = stage.request();
    let Request::FirstHost(first) = &request else { unreachable!("a move's beginning") };
    // Another host, for whom nothing is changed over.
    let own = fs::read(stage.site.paths.hosted_engine_conf()).unwrap();
    stage.moves(&request).unwrap();
    fs::write(stage.site.paths.hosted_engine_conf(), &own).unwrap();
    fs::remove_file(stage.site.paths.setup_state_dir().join("move.journal")).unwrap();
    fs::remove_file(stage.site.paths.storage_mounts().join("_srv_new")).unwrap();
    let follow = Request::FurtherHost(Box::new(FurtherHost {
        hypervisor: first.hypervisor,
        storage: storage_at(StorageKind::Directory, "/srv/new"),
        network: first.network.clone(),
        host: first.host.clone(),
        sd_uuid: first.ids.sd,
        moves: Some(stage.former()),
    }));
    for lines in 1..100 {
        let is_over = cut_after(lines, || stage.moves(&follow)).is_ok();
        if is_over {
            break;
        }
        stage.undoes(&follow).unwrap();
        assert_eq!(fs::read(stage.site.paths.hosted_engine_conf()).unwrap(), own, "after {lines} lines");
        fs::remove_file(journal(&stage.site.paths)).unwrap();
    }
    stage.assert_moved(&request, "after following");
}

fn seen() -> Seen {
    Seen {
        adapter: LeaseAdapter::Sanlock,
        lease_vm: None,
        global_maintenance: Ok(Some(true)),
        up_on: Vec::new(),
        lease: Ok(LeaseOwner::Nobody),
        disk: Ok(DISK),
        cluster: Ok(ClusterConf {
            hosted_engine_conf: "sdUUID=x\n".to_owned(),
            vm_conf: "vmId=1\n".to_owned(),
            broker_conf: String::new(),
            ha_toml: String::new(),
            answers: String::new(),
        }),
        moved: None,
        others: Ok(None),
    }
}

#[test]
fn everything_that_stands_in_the_way_is_told_at_once_and_by_itself() {
    assert_eq!(seen().objections(), [""; 0]);
    let held = || Ok(LeaseOwner::Other { detail: "the owner is host id 2".to_owned() });
    for (seen, part) in [
        (Seen { global_maintenance: Ok(Some(false)), ..seen() }, "--mode=global"),
        (Seen { global_maintenance: Ok(None), ..seen() }, "is not known"),
        (Seen { global_maintenance: Err("no such file".to_owned()), ..seen() }, "start ovirt-ha-broker"),
        (Seen { up_on: vec!["h2 (id 2)".to_owned()], ..seen() }, "up on h2 (id 2)"),
        (Seen { lease: held(), ..seen() }, "the owner is host id 2"),
        (Seen { lease: Ok(LeaseOwner::ThisHost), ..seen() }, "held on this host"),
        (Seen { lease: Err("no daemon".to_owned()), ..seen() }, "no daemon"),
        (Seen { lease_vm: Some("engine".to_owned()), ..seen() }, "--lease-use --disk"),
        (Seen { adapter: LeaseAdapter::File, ..seen() }, "file locks"),
        (Seen { moved: Some("the-new".to_owned()), ..seen() }, "moved already"),
        (Seen { disk: Err("I/O error".to_owned()), ..seen() }, "--connect-storage"),
        (Seen { cluster: Err("I/O error".to_owned()), ..seen() }, "--connect-storage"),
        (Seen { others: Err("I/O error".to_owned()), ..seen() }, "other hosts"),
    ] {
        let all = seen.objections();
        assert!(all.len() == 1 && all[0].contains(part), "{part}: {all:?}");
    }
    let all = Seen { up_on: vec!["h2".to_owned()], lease: held(), disk: Err(String::new()), ..seen() };
    assert_eq!(all.objections().len(), 2, "the lease says no more than the row does");
}

#[test]
fn the_storage_that_is_used_is_no_new_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    std::os::unix::fs::symlink("a", dir.path().join("b")).unwrap();
    let conf = |text: &str| HostedEngineConf::parse(&Paths::new(dir.path()), text);
    let same =
        |conf: &HostedEngineConf, new: &str| same_storage(conf, &storage_at(StorageKind::Nfs, new)).is_some();
    let nfs = conf("storage=nas:/he\ndomainType=nfs\n");
    assert!(same(&nfs, "nas:/he/") && same(&nfs, "nas://he") && !same(&nfs, "nas:/he2"));
    let directory = conf("storage=/a\ndomainType=posixfs\n");
    assert!(same(&directory, "/a") && same(&directory, "/b") && !same(&directory, "/c"));
}
