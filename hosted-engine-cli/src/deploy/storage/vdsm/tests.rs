//! The storage's steps through VDSM's stand-in, in this process, without a lock manager: from nothing to a domain that is
//! found, and back, cut at every line of the journal.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::Parser as _;
use ha_config::Paths;
use ha_config::ha_toml::Hypervisor;
use vdsm_client::BLANK_UUID;
use vdsm_stand_in::args::{Arguments, MakeCertificates};
use vdsm_stand_in::{certificates, server};

use super::*;
use crate::deploy::storage::testing::{Site, first_host, storage};
use crate::deploy::storage::{Connect, backend};
use crate::deploy::testing::Heard;
use crate::deploy::{
    self, Call, FurtherHost, HostIdentity, Installed, Journal, Outcome, Said, Step, ToolError, Tools, Undone,
};

/// One runtime for all stand-ins: their clients bring their own.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());

/// A host on which nothing is mounted. The look at the connected storage runs its true programs.
pub(in crate::deploy) struct Unmounted;

impl Tools for Unmounted {
    fn ask(&self, call: &Call) -> Result<Said, ToolError> {
        match call.program {
            "findmnt" => Ok(Said { code: 1, ..Said::default() }),
            _ => Installed.ask(call),
        }
    }
}

/// A host with its VDSM, and the directory that a server exports.
pub(in crate::deploy) struct Host {
    pub(in crate::deploy) site: Site,
    pub(in crate::deploy) request: Request,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Host {
    fn new() -> Self {
        Self::on(first_host(StorageKind::Nfs, "server:/srv/he"))
    }

    pub(in crate::deploy) fn on(mut first: FirstHost) -> Self {
        let site = Site::new();
        let root = site.dir.path();
        let pki = root.join("etc/pki/vdsm");
        let names = vec!["127.0.0.1".to_owned()];
        let wanted = MakeCertificates {
            directory: pki,
            authority: None,
            name: Some("localhost".to_owned()),
            also: names,
        };
        certificates::make(&wanted).unwrap();
        let text = root.to_str().unwrap();
        let arguments =
            Arguments::parse_from(["", "--root", text, "--without-sanlock", "--monitor-interval", "1"]);
        let listener = RUNTIME.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let task = RUNTIME
            .spawn(async move { server::serve(&arguments.serve, vec![listener], || ()).await.unwrap() });
        first.hypervisor = Hypervisor::Vdsm;
        first.ha_toml = format!(
            "[vm]\nhypervisor = \"vdsm\"\n[vdsm]\naddress = \"{address}\"\n[lease]\nadapter = \"file\"\n"
        );
        Self { site, request: Request::FirstHost(Box::new(first)), task }
    }

    pub(in crate::deploy) fn first(&self) -> &FirstHost {
        match &self.request {
            Request::FirstHost(first) => first,
            Request::FurtherHost(_) => unreachable!("it is a first host"),
        }
    }

    pub(in crate::deploy) fn journal(&self) -> PathBuf {
        self.site.dir.path().join("journal")
    }

    /// Goes on, or undoes, until it is over or `moments` have passed; what the operator was told.
    pub(super) fn attempt(&self, undoes: bool, moments: Option<u32>) -> Result<Vec<String>, DeployError> {
        let heard = Heard::default();
        let world = self.site.world(&self.request, &Unmounted, &heard);
        let mut journal = match Journal::open(&self.journal())? {
            Some(journal) => journal,
            None => Journal::begin(&self.journal(), 0, self.request.clone())?,
        };
        if journal.story().outcome.is_some() {
            return Ok(heard.all());
        }
        if let Some(mut left) = moments {
            journal.watch(Box::new(move |_, _| {
                left = left.checked_sub(1).ok_or_else(|| DeployError::Refused("cut".to_owned()))?;
                Ok(())
            }));
        }
        if undoes {
            deploy::undo(world, &mut journal)?;
        } else {
            deploy::run(&Site::steps(), world, &mut journal)?;
        }
        Ok(heard.all())
    }

    /// Runs all steps, and stops before the line that says that everything is over: nothing more can be undone after it.
    pub(super) fn all_but_the_end(&self) {
        let heard = Heard::default();
        let world = self.site.world(&self.request, &Unmounted, &heard);
        let mut journal = Journal::begin(&self.journal(), 0, self.request.clone()).unwrap();
        journal.watch(Box::new(|_, line| {
            let is_last = line.contains("\"over\"");
            if is_last { Err(DeployError::Refused("cut".to_owned())) } else { Ok(()) }
        }));
        let error = deploy::run(&Site::steps(), world, &mut journal).unwrap_err();
        assert_eq!(error.to_string(), "cut");
    }

    /// What is on the storage and below the host's directories for it, but not the certificates.
    pub(super) fn tree(&self) -> Vec<PathBuf> {
        fn walk(root: &Path, at: &Path, all: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(at).into_iter().flatten().map(Result::unwrap) {
                all.push(entry.path().strip_prefix(root).unwrap().to_owned());
                if entry.file_type().unwrap().is_dir() {
                    walk(root, &entry.path(), all);
                }
            }
        }
        let root = self.site.dir.path();
        let mut all = Vec::new();
        for name in ["srv", "rhev", "run/vdsm/storage", "dev", "sys"] {
            walk(root, &root.join(name), &mut all);
        }
        // Where VDSM mounts, logs in to and prepares things its own directories stay.
        let own = [
            "rhev/data-center",
            "rhev/data-center/mnt",
            "rhev/data-center/mnt/blockSD",
            "run/vdsm/storage",
            "dev/mapper",
            "sys/class",
            "sys/class/iscsi_session",
        ];
        all.retain(|path| !own.iter().any(|own| path == Path::new(own)));
        all.sort();
        all
    }
}

#[test]
fn a_first_host_has_vdsm_make_a_domain_that_others_find() {
    let host = Host::new();
    let before = host.tree();
    host.all_but_the_end();

    let heard = Heard::default();
    let world = host.site.world(&host.request, &Unmounted, &heard);
    let (first, backend) = (host.first(), backend(&host.request));
    let info =
        ask(&world, async |vdsm| vdsm.domain_info(&first.ids.sd.to_string()).await.map_err(while_("test")));
    let info = info.unwrap();
    assert_eq!((info.name.as_deref(), info.pools.len()), (Some("hosted_storage"), 0));
    let found = backend.find(&world).unwrap();
    assert_eq!(found.iter().map(|found| found.sd_uuid).collect::<Vec<_>>(), [first.ids.sd]);
    let cluster = ClusterConf::read(&found[0].configuration).unwrap();
    let conf = cluster.parsed(&host.site.paths);
    assert_eq!(fs::metadata(conf.metadata_path().unwrap()).unwrap().len(), 8 << 20);
    assert!(fs::metadata(conf.lockspace_path().unwrap()).unwrap().len() >= 1 << 20);
    for role in [Role::Metadata, Role::Lockspace, Role::Configuration, Role::Disk] {
        assert!(backend.volume(&world, role).is_file(), "{role:?}");
    }
    assert!(backend.ids(&world).path.is_file());
    assert!(backend.vm_lease(&world).unwrap().path.is_file());

    // Another host finds its volumes; another first host finds no room.
    let further = Request::FurtherHost(Box::new(FurtherHost {
        hypervisor: Hypervisor::Vdsm,
        storage: storage(StorageKind::Nfs, "server:/srv/he"),
        network: first.network.clone(),
        host: HostIdentity { id: 2, name: "h2".to_owned() },
        sd_uuid: first.ids.sd,
        moves: None,
    }));
    fs::create_dir_all(host.site.paths.ha_toml().parent().unwrap()).unwrap();
    fs::write(host.site.paths.ha_toml(), &first.ha_toml).unwrap();
    let joining = host.site.world(&further, &Unmounted, &heard);
    for role in [Role::Metadata, Role::Lockspace, Role::Configuration, Role::Disk] {
        assert_eq!(Vdsm.volume(&joining, role), Vdsm.volume(&world, role), "{role:?}");
    }
    let journal = host.site.dir.path().join("journal-2");
    let mut journal = Journal::begin(&journal, 0, further.clone()).unwrap();
    let connect: Vec<Box<dyn Step>> = vec![Box::new(Connect)];
    deploy::run(&connect, joining, &mut journal).unwrap();
    let mut second = first_host(StorageKind::Nfs, "server:/srv/he");
    (second.hypervisor, second.ha_toml) = (Hypervisor::Vdsm, first.ha_toml.clone());
    let second = Request::FirstHost(Box::new(second));
    let mut journal = Journal::begin(&host.site.dir.path().join("journal-3"), 0, second.clone()).unwrap();
    let error =
        deploy::run(&connect, host.site.world(&second, &Unmounted, &heard), &mut journal).unwrap_err();
    assert!(error.to_string().starts_with("server:/srv/he carries a hosted engine already"), "{error}");

    let mut journal = Journal::open(&host.journal()).unwrap().unwrap();
    deploy::undo(world, &mut journal).unwrap();
    assert_eq!(host.tree(), before);
}

#[test]
fn cut_at_every_line_it_is_gone_on_with_and_undone() {
    is_gone_on_with_and_undone(&Host::new);
}

/// Wherever the journal was cut.
pub(super) fn is_gone_on_with_and_undone(make: &dyn Fn() -> Host) {
    let whole = make();
    let before = whole.tree();
    whole.attempt(false, None).unwrap();
    let parts = whole.tree().len();
    for moments in 0.. {
        let host = make();
        if host.attempt(false, Some(moments)).is_ok() {
            assert!(moments > 20, "only {moments} moments");
            break;
        }
        let warned: Vec<String> = host.attempt(true, None).unwrap();
        let outcome = Journal::read(&host.journal()).unwrap().unwrap().outcome;
        if outcome == Some(Outcome::Deployed) {
            // The last line of all was there.
            continue;
        }
        assert!(warned.iter().all(|line| !line.starts_with('!')), "after {moments}: {warned:?}");
        assert_eq!(host.tree(), before, "undone after {moments}");

        fs::remove_file(host.journal()).unwrap();
        host.attempt(false, Some(moments)).unwrap_err();
        host.attempt(false, None).unwrap();
        assert_eq!(host.tree().len(), parts, "gone on with after {moments}");
    }
}

/// Undoes a whole domain after `change` has been done to it; how undoing the domain ended.
fn undone_after(change: impl FnOnce(&Host)) -> BTreeMap<String, Undone> {
    let host = Host::new();
    let heard = Heard::default();
    let world = host.site.world(&host.request, &Unmounted, &heard);
    host.all_but_the_end();
    change(&host);
    let mut journal = Journal::open(&host.journal()).unwrap().unwrap();
    deploy::undo(world, &mut journal).unwrap();
    let domain = host.site.dir.path().join("srv/he").join(host.first().ids.sd.to_string());
    let story = journal.story();
    let all = story.items.iter().filter_map(|item| {
        let value = serde_json::to_value(&item.made).unwrap();
        let kind = value.as_object().unwrap().keys().next().unwrap().clone();
        Some((kind, item.undone.clone()?))
    });
    let all: BTreeMap<_, _> = all.collect();
    assert_eq!(domain.is_dir(), all["made-by-vdsm"] != Undone::TakenBack);
    all
}

#[test]
fn a_domain_that_is_not_only_this_deployments_stays() {
    let meta = |host: &Host| {
        let first = host.first();
        let domain = host.site.dir.path().join("srv/he").join(first.ids.sd.to_string());
        let disk = domain.join("images").join(first.ids.disk.image.to_string());
        (domain, disk.join(first.ids.disk.volume.to_string()).with_extension("meta"))
    };
    assert_eq!(undone_after(|_| {})["made-by-vdsm"], Undone::TakenBack);
    let left = undone_after(|host| fs::create_dir(meta(host).0.join("images").join(BLANK_UUID)).unwrap());
    let why = format!("the image {BLANK_UUID} is in it, which this deployment did not make");
    assert_eq!(left["made-by-vdsm"], Undone::LeftAlone(why));
    let left = undone_after(|host| {
        let path = meta(host).1;
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("deployment", "something")).unwrap();
    });
    let why = "nothing in it says that this deployment made it".to_owned();
    assert_eq!(left["made-by-vdsm"], Undone::LeftAlone(why));
    let left = undone_after(|host| {
        let path = meta(host).0.join("dom_md/metadata");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("POOL_UUID=", &format!("POOL_UUID={}", Uuid::from_u128(7)))).unwrap();
    });
    let why = format!("it is in the storage pool {} of an engine", Uuid::from_u128(7));
    assert_eq!(left["made-by-vdsm"], Undone::LeftAlone(why));
}

/// VDSM's part may be cut in the middle of what is one thing here.
#[test]
fn a_pool_that_was_only_begun_is_left() {
    for verbs in 0..=3 {
        let host = Host::new();
        let before = host.tree();
        let heard = Heard::default();
        let world = host.site.world(&host.request, &Unmounted, &heard);
        let first = host.first();
        attach(&world).unwrap();
        let (sd, pool) = (first.ids.sd.to_string(), first.ids.deploy.to_string());
        ask(&world, async |vdsm| {
            let new = NewDomain {
                domain: sd.clone(),
                domain_type: 1,
                arguments: "server:/srv/he".to_owned(),
                name: made::mark(first.ids.deploy),
                block_size: 0,
            };
            vdsm.domain_create(&new).await.map_err(while_("test"))?;
            if verbs > 0 {
                vdsm.pool_create(&pool, "x", &sd).await.map_err(while_("test"))?;
            }
            if verbs > 1 {
                vdsm.pool_connect(&pool, 1, &sd).await.map_err(while_("test"))?;
            }
            if verbs > 2 {
                let task = vdsm.spm_start(&pool).await.map_err(while_("test"))?;
                finish(vdsm, &task, "test").await?;
            }
            Ok(())
        })
        .unwrap();
        let undo = |made: &dyn deploy::Undo| made.undo(&world).unwrap();
        let ended = undo(&TemporaryPool { pool: first.ids.deploy, sd: first.ids.sd, host_id: 1 });
        assert_eq!(ended == Undone::TakenBack, verbs > 1, "{verbs}: {ended:?}");
        assert_eq!(undo(&MadeByVdsm::of(first)), Undone::TakenBack, "{verbs}");
        assert_eq!(undo(&MadeByVdsm::of(first)), Undone::Absent, "{verbs}");
        let connected = ConnectedByVdsm { what: "it".to_owned() };
        assert_eq!(undo(&connected), Undone::TakenBack, "{verbs}");
        assert_eq!(undo(&connected), Undone::Absent, "{verbs}");
        assert_eq!(host.tree(), before);
    }
}

#[test]
fn what_vdsm_cannot_use_is_refused_by_name() {
    let host = Host::new();
    let heard = Heard::default();
    let connect: Vec<Box<dyn Step>> = vec![Box::new(Connect)];
    let refused = |change: &dyn Fn(&mut FirstHost)| {
        let mut first = host.first().clone();
        change(&mut first);
        let request = Request::FirstHost(Box::new(first));
        let path = host.journal();
        let _ = fs::remove_file(&path);
        let mut journal = Journal::begin(&path, 0, request.clone()).unwrap();
        let world = host.site.world(&request, &Unmounted, &heard);
        deploy::run(&connect, world, &mut journal).unwrap_err().to_string()
    };
    let error = refused(&|first| first.storage = storage(StorageKind::Directory, "/srv/he"));
    assert!(error.starts_with("VDSM cannot use /srv/he of this host as shared storage"), "{error}");
    let error = refused(&|first| first.domain_name = "x".repeat(51));
    assert!(error.contains("VDSM takes 1 to 50 characters"), "{error}");
    let error = refused(&|first| first.storage.connection = "server:/nowhere".to_owned());
    assert!(
        error.starts_with("VDSM cannot connect the storage server: server:/nowhere (status 477)"),
        "{error}"
    );
}

#[test]
fn an_iscsi_session_is_found_by_its_target() {
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session3");
    assert!(!has_session(&dir.path().join("none"), "iqn.a:b").unwrap());
    fs::create_dir(&session).unwrap();
    fs::write(session.join("targetname"), "iqn.a:b\n").unwrap();
    assert!(has_session(dir.path(), "iqn.a:b").unwrap());
    assert!(!has_session(dir.path(), "iqn.a").unwrap());
}

#[test]
fn the_password_is_in_no_line_of_the_journal() {
    let paths = Paths::default();
    let mut site = Site::new();
    site.secrets.iscsi = Some(ha_config::Secret::new("s3cret"));
    let mut first = first_host(StorageKind::Iscsi, "192.0.2.1");
    first.storage.iscsi = Some(deploy::Iscsi {
        target: "iqn.a:b".to_owned(),
        tpgt: 1,
        ports: vec![3260],
        user: Some("u".to_owned()),
        discovery_user: None,
    });
    let request = Request::FirstHost(Box::new(first.clone()));
    let heard = Heard::default();
    let world = World { paths: &paths, ..site.world(&request, &Unmounted, &heard) };
    let conf = conf(&world);
    assert_eq!(conf.file().get("password"), Some("s3cret"));
    for made in [
        deploy::Made::from(ConnectedByVdsm { what: made::label(&first.storage) }),
        MadeByVdsm::of(&first).into(),
    ] {
        assert!(!serde_json::to_string(&made).unwrap().contains("s3cret"));
    }
    assert_eq!(made::label(&first.storage), "iqn.a:b at 192.0.2.1");
}
