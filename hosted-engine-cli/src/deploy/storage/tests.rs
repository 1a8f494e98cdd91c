//! The steps on a directory, with file leases: from nothing to a domain that is found, and back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ha_config::{HostedEngineConf, VmConf};

use super::testing::{Site, first_host, take_back};
use super::*;
use crate::deploy::questions::StorageLookups as _;
use crate::deploy::storage::files::MadeDomain;
use crate::deploy::testing::{Heard, Recorded, cut_after};
use crate::deploy::{self, FirstHost, Journal, Step, Undo as _, Undone};
use crate::setup::ClusterConf;

/// Everything below a directory: kind, size, target of a link. Sizes of directories differ by file system.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    fn add(root: &Path, at: &Path, all: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            let what = if meta.is_symlink() {
                format!("link to {}", fs::read_link(&path).unwrap().display())
            } else if meta.is_dir() {
                add(root, &path, all);
                "directory".to_owned()
            } else {
                format!("{} bytes", meta.size())
            };
            all.insert(path.strip_prefix(root).unwrap().to_owned(), what);
        }
    }
    let mut all = BTreeMap::new();
    add(root, root, &mut all);
    all
}

fn request() -> Request {
    Request::FirstHost(Box::new(first_host(StorageKind::Directory, "/srv/he")))
}

fn first(request: &Request) -> &FirstHost {
    match request {
        Request::FirstHost(first) => first,
        Request::FurtherHost(_) => unreachable!("tests make first hosts"),
    }
}

#[test]
fn a_first_host_makes_a_domain_that_others_find() {
    let (site, request, heard) = (Site::new(), request(), Heard::default());
    let tools = Recorded::default();
    let world = site.world(&request, &tools, &heard);
    let before = tree(site.dir.path());
    let journal = site.dir.path().join("journal");
    let mut journal = Journal::begin(&journal, 0, request.clone()).unwrap();
    deploy::run(&Site::steps(), world, &mut journal).unwrap();

    let backend = backend(&request);
    let found = backend.find(&world).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].sd_uuid, first(&request).ids.sd);
    let cluster = ClusterConf::read(&found[0].configuration).unwrap();
    let conf: HostedEngineConf = cluster.parsed(&site.paths);
    assert_eq!(fs::metadata(conf.metadata_path().unwrap()).unwrap().len(), 8 << 20);
    assert_eq!(fs::metadata(conf.vm_disk_path().unwrap()).unwrap().len(), 1 << 30);
    assert_eq!(conf.vm_disk_path().unwrap(), backend.volume(&world, Role::Disk));
    assert_eq!(conf.vm_lease_path().unwrap(), backend.vm_lease(&world).unwrap().path);
    assert_eq!(conf.ids_path().unwrap(), backend.ids(&world).path);
    for path in [conf.lockspace_path(), conf.ids_path(), conf.vm_lease_path()] {
        let bytes = fs::metadata(path.unwrap()).unwrap().len();
        assert!(bytes == 1 << 20 || bytes == 8 << 20, "{bytes}");
    }
    assert!(fs::read_link(conf.metadata_path().unwrap()).unwrap().starts_with("../images"));
    assert_eq!(VmConf::parse("vm.conf", &cluster.vm_conf).unwrap().mem_size().unwrap(), 128);
    assert!(site.dir.path().join("rhev/data-center/mnt/_srv_he").is_symlink());

    take_back(world, &mut journal).unwrap();
    fs::remove_file(site.dir.path().join("journal")).unwrap();
    assert_eq!(tree(site.dir.path()), before);
    let warned: Vec<_> = heard.all().into_iter().filter(|line| line.starts_with('!')).collect();
    assert!(warned.is_empty(), "{warned:?}");
}

/// Somebody else's, on the same storage.
fn put_foreign_files(site: &Site) {
    let storage = site.dir.path().join("srv/he");
    fs::create_dir_all(storage.join("other/images")).unwrap();
    fs::write(storage.join("other/images/disk"), "theirs").unwrap();
    fs::create_dir(storage.join(".4d4c5b5e-0000-4000-8000-1f2e3d4c5b6a.setup")).unwrap();
}

/// What a deployment leaves whatever becomes of it: nothing but its journal.
fn without_journal(site: &Site) -> BTreeMap<PathBuf, String> {
    let mut all = tree(site.dir.path());
    all.retain(|path, _| !path.starts_with("journal"));
    all
}

#[test]
fn cut_after_any_line_it_is_undone_or_goes_on() {
    let complete = {
        let (site, request) = (Site::new(), request());
        let (tools, heard) = (Recorded::default(), Heard::default());
        let mut journal = Journal::begin(&site.dir.path().join("journal"), 0, request.clone()).unwrap();
        deploy::run(&Site::steps(), site.world(&request, &tools, &heard), &mut journal).unwrap();
        tree(site.dir.path()).len()
    };
    let (mut lines, mut is_over) = (0, false);
    while !is_over {
        for goes_on in [false, true] {
            let (site, request) = (Site::new(), request());
            let (tools, heard) = (Recorded::default(), Heard::default());
            let world = site.world(&request, &tools, &heard);
            put_foreign_files(&site);
            let before = without_journal(&site);
            let path = site.dir.path().join("journal");
            let mut journal = Journal::begin(&path, 0, request.clone()).unwrap();
            is_over = cut_after(lines, || deploy::run(&Site::steps(), world, &mut journal)).is_ok();
            drop(journal);
            if is_over {
                break;
            }
            let mut journal = Journal::open(&path).unwrap().unwrap();
            if goes_on {
                deploy::run(&Site::steps(), world, &mut journal).unwrap();
                assert_eq!(backend(&request).find(&world).unwrap().len(), 1, "after {lines} lines");
                // The foreign ones: two directories, one in it, and a file.
                assert_eq!(tree(site.dir.path()).len(), complete + 4, "after {lines} lines");
            }
            take_back(world, &mut journal).unwrap();
            assert_eq!(without_journal(&site), before, "after {lines} lines");
            let left: Vec<_> = heard.all().into_iter().filter(|line| line.starts_with("! Left")).collect();
            assert!(left.is_empty(), "after {lines} lines: {left:?}");
        }
        lines += 1;
    }
    assert!(lines > 20, "{lines}");
}

#[test]
fn an_undoing_that_is_cut_goes_on() {
    for lines in 0..8 {
        let (site, request) = (Site::new(), request());
        let (tools, heard) = (Recorded::default(), Heard::default());
        let world = site.world(&request, &tools, &heard);
        let before = without_journal(&site);
        let path = site.dir.path().join("journal");
        let mut journal = Journal::begin(&path, 0, request.clone()).unwrap();
        deploy::run(&Site::steps()[..3], world, &mut journal).unwrap_or(());
        drop(journal);
        fs::write(&path, fs::read_to_string(&path).unwrap().replace("{\"over\":\"deployed\"}\n", ""))
            .unwrap();
        let mut journal = Journal::open(&path).unwrap().unwrap();
        drop(cut_after(lines, || take_back(world, &mut journal)));
        drop(journal);
        let mut journal = Journal::open(&path).unwrap().unwrap();
        if journal.story().outcome.is_none() {
            take_back(world, &mut journal).unwrap();
        }
        assert_eq!(without_journal(&site), before, "after {lines} lines");
    }
}

/// A complete domain, to be changed before it is taken back.
fn undo_after(change: impl FnOnce(&MadeDomain)) -> (Vec<String>, bool) {
    let (site, request) = (Site::new(), request());
    let (tools, heard) = (Recorded::default(), Heard::default());
    let world = site.world(&request, &tools, &heard);
    let mut journal = Journal::begin(&site.dir.path().join("journal"), 0, request.clone()).unwrap();
    deploy::run(&Site::steps(), world, &mut journal).unwrap();
    let made = MadeDomain::of(site.dir.path().join("srv/he"), first(&request));
    change(&made);
    take_back(world, &mut journal).unwrap();
    let left = heard.all().into_iter().filter(|line| line.starts_with("! Left alone: storage domain"));
    (left.collect(), made.complete().is_dir())
}

#[test]
fn a_domain_that_others_use_or_changed_stays() {
    let (left, is_there) = undo_after(|_| ());
    assert!(left.is_empty() && !is_there, "{left:?}");

    let (left, is_there) = undo_after(|made| {
        let image = made.complete().join("images/4d4c5b5e-0000-4000-8000-1f2e3d4c5b6a");
        fs::create_dir(&image).unwrap();
        fs::write(image.join("disk"), "somebody's").unwrap();
    });
    assert!(is_there && left[0].contains("images/4d4c5b5e-0000-4000-8000-1f2e3d4c5b6a"), "{left:?}");

    let (left, is_there) = undo_after(|made| {
        let metadata = made.complete().join("ha_agent/hosted-engine.metadata");
        let metadata = crate::shared_file::SharedFile::open(&metadata, true).unwrap();
        metadata.write(2 * 4096, b"1|1|77|2|2400|vm-down|h2").unwrap();
    });
    assert!(is_there && left[0].ends_with("host 2 (h2) uses it"), "{left:?}");

    let (left, is_there) = undo_after(|made| {
        let marker = made.complete().join(".hosted-engine-deploy");
        fs::write(marker, "4d4c5b5e-0000-4000-8000-1f2e3d4c5b6a\n").unwrap();
    });
    assert!(is_there && left[0].ends_with("another deployment made it"), "{left:?}");
}

/// A domain that was cut while it was made has some of what a whole one has.
#[test]
fn a_part_of_a_domain_is_taken_back() {
    for keep in 0..30 {
        let (site, request) = (Site::new(), request());
        let (tools, heard) = (Recorded::default(), Heard::default());
        let world = site.world(&request, &tools, &heard);
        let mut journal = Journal::begin(&site.dir.path().join("journal"), 0, request.clone()).unwrap();
        let until_leases = &Site::steps()[..2];
        deploy::run(until_leases, world, &mut journal).unwrap();
        let made = MadeDomain::of(site.dir.path().join("srv/he"), first(&request));
        let whole = tree(&made.unfinished());
        // What goes last when it is removed was there first.
        for path in whole.keys().rev().filter(|path| path.as_os_str() != ".hosted-engine-deploy").skip(keep) {
            let path = made.unfinished().join(path);
            let gone = if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            drop(gone);
        }
        if keep == 0 {
            fs::write(made.unfinished().join(".hosted-engine-deploy"), "").unwrap();
        }
        assert_eq!(made.undo(&world).unwrap(), Undone::TakenBack);
        assert!(!made.unfinished().exists(), "{keep}");
        assert_eq!(made.undo(&world).unwrap(), Undone::Absent);
    }
}

#[test]
fn storage_is_refused_with_its_reason() {
    let (site, heard, tools) = (Site::new(), Heard::default(), Recorded::default());
    let refusal = |request: &Request| {
        let mut journal = Journal::begin(&site.dir.path().join("journal"), 0, request.clone()).unwrap();
        let error = deploy::run(&Site::steps(), site.world(request, &tools, &heard), &mut journal);
        let error = error.unwrap_err().to_string();
        deploy::undo(site.world(request, &tools, &heard), &mut journal).unwrap();
        error
    };
    let storage =
        |connection: &str| Request::FirstHost(Box::new(first_host(StorageKind::Directory, connection)));
    assert!(refusal(&storage("srv/he")).contains("no directory's absolute path"));
    assert!(refusal(&storage("/srv/nowhere")).contains("/srv/nowhere is no directory: make it"));

    let other = site.dir.path().join("srv/he/4d4c5b5e-0000-4000-8000-1f2e3d4c5b6a/ha_agent");
    fs::create_dir_all(&other).unwrap();
    let said = refusal(&storage("/srv/he"));
    assert!(
        said.contains("carries a hosted engine already (storage domain 4d4c5b5e") && other.is_dir(),
        "{said}"
    );
    fs::remove_dir_all(site.dir.path().join("srv/he")).unwrap();
    fs::create_dir(site.dir.path().join("srv/he")).unwrap();

    let mut without_sanlock = first_host(StorageKind::Directory, "/srv/he");
    without_sanlock.ha_toml = String::new();
    let said = refusal(&Request::FirstHost(Box::new(without_sanlock)));
    assert!(said.contains("the lock manager is needed"), "{said}");
    assert_eq!(fs::read_dir(site.dir.path().join("srv/he")).unwrap().count(), 0);
}

#[test]
fn a_further_host_finds_what_the_first_one_made() {
    let (site, request, heard) = (Site::new(), request(), Heard::default());
    let tools = Recorded::default();
    let mut journal = Journal::begin(&site.dir.path().join("journal"), 0, request.clone()).unwrap();
    deploy::run(&Site::steps(), site.world(&request, &tools, &heard), &mut journal).unwrap();
    let made = first(&request);
    let further = Request::FurtherHost(Box::new(deploy::FurtherHost {
        hypervisor: ha_config::ha_toml::Hypervisor::Qemu,
        storage: made.storage.clone(),
        network: made.network.clone(),
        host: deploy::HostIdentity { id: 2, name: "h2".to_owned() },
        sd_uuid: made.ids.sd,
        moves: None,
    }));
    // The same directory on another host.
    let second = Site::new();
    fs::remove_dir(second.dir.path().join("srv/he")).unwrap();
    std::os::unix::fs::symlink(site.dir.path().join("srv/he"), second.dir.path().join("srv/he")).unwrap();
    let before = without_journal(&second);
    let (world, first_world) = (second.world(&further, &tools, &heard), site.world(&request, &tools, &heard));
    let mut journal = Journal::begin(&second.dir.path().join("journal"), 0, further.clone()).unwrap();
    deploy::run(&[Box::new(Connect) as Box<dyn Step>], world, &mut journal).unwrap();
    let (ours, theirs) = (backend(&further), backend(&request));
    for role in [Role::Metadata, Role::Lockspace, Role::Configuration, Role::Disk] {
        let paths = (ours.volume(&world, role), theirs.volume(&first_world, role));
        assert_eq!(fs::canonicalize(paths.0).unwrap(), fs::canonicalize(paths.1).unwrap());
    }
    assert!(ours.vm_lease(&world).unwrap().path.is_file() && ours.ids(&world).path.is_file());
    take_back(world, &mut journal).unwrap();
    assert_eq!(without_journal(&second), before);
    assert_eq!(theirs.find(&first_world).unwrap().len(), 1, "the cluster stays");
}

#[test]
fn who_looks_for_a_cluster_leaves_no_trace() {
    let (site, request, heard) = (Site::new(), request(), Heard::default());
    let tools = Recorded::default();
    let mut journal = Journal::begin(&site.dir.path().join("journal"), 0, request.clone()).unwrap();
    deploy::run(&Site::steps(), site.world(&request, &tools, &heard), &mut journal).unwrap();
    let found = site.hands(&tools, &heard).clusters(&first(&request).storage, &site.secrets).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].sd_uuid, found[0].next_id), (first(&request).ids.sd, Some(1)));
    assert_eq!(found[0].fqdn, "engine.example.com");

    let other = Site::new();
    let state = other.paths.setup_state_dir();
    let without_state = || {
        let mut all = tree(other.dir.path());
        all.retain(|path, _| {
            !other.dir.path().join(path).starts_with(&state)
                && !state.starts_with(other.dir.path().join(path))
        });
        all
    };
    let before = without_state();
    let target = other.paths.storage_mounts().join("a.example:_he");
    let findmnt = format!(
        "findmnt --json --nocanonicalize --output SOURCE,FSTYPE,OPTIONS --mountpoint {}",
        target.display()
    );
    let mount = format!(
        "mount -t nfs -o soft,nosharecache,timeo=100,retrans=3,nfsvers=4,retry=0 a.example:/he {}",
        target.display()
    );
    let umount = format!("umount {}", target.display());
    let nfs = super::testing::storage(StorageKind::Nfs4, "a.example:/he");
    let mounted =
        r#"{"filesystems": [{"source":"a.example:/he", "fstype":"nfs4", "options":"rw,relatime,vers=4.2"}]}"#;
    let tools = Recorded::new(&[
        (&findmnt, 1, "", ""),
        (&mount, 0, "", ""),
        (&findmnt, 0, mounted, ""),
        (&umount, 0, "", ""),
    ]);
    assert_eq!(other.hands(&tools, &heard).clusters(&nfs, &other.secrets).unwrap(), []);
    tools.assert_over();
    assert_eq!(without_state(), before);

    let tools = Recorded::new(&[
        (&findmnt, 1, "", ""),
        (&mount, 32, "", "mount.nfs: Connection refused"),
        (&findmnt, 1, "", ""),
    ]);
    let error = other.hands(&tools, &heard).clusters(&nfs, &other.secrets).unwrap_err().to_string();
    assert!(error.contains("a.example answers, but serves no nfs"), "{error}");
    assert_eq!(without_state(), before);
}
