//! The steps on a directory, with file leases: from nothing to a domain that is found, and back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ha_config::{HostedEngineConf, VmConf};

use super::testing::{Site, first_host};
use super::*;
use crate::deploy::testing::{Heard, Recorded};
use crate::deploy::{self, FirstHost, Journal};
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

    deploy::undo(world, &mut journal).unwrap();
    fs::remove_file(site.dir.path().join("journal")).unwrap();
    assert_eq!(tree(site.dir.path()), before);
    let warned: Vec<_> = heard.all().into_iter().filter(|line| line.starts_with('!')).collect();
    assert!(warned.is_empty(), "{warned:?}");
}
