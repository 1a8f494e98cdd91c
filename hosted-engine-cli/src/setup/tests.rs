//! Set-up on a directory, without a lock manager.

use std::fs;

use ha_config::{DomainType, HostedEngineConf, Paths, VmConf};
use metadata_format::HostId;

use super::*;

const TOML: &str = "[lease]\nadapter = \"file\"\n[score]\nprofile = \"founding\"\n";

struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A host whose storage is the site's shared directory.
    fn host(&self, number: u16) -> Paths {
        let paths = Paths::new(self.dir.path().join(number.to_string()));
        let mount = storage().mount_dir(&paths);
        if !mount.exists() {
            fs::create_dir_all(self.dir.path().join("shared")).unwrap();
            fs::create_dir_all(mount.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(self.dir.path().join("shared"), mount).unwrap();
        }
        paths
    }
}

fn storage() -> StorageSpec {
    StorageSpec {
        domain_type: DomainType::Posixfs,
        storage: "shared:/a_b".to_owned(),
        name: "hosted_storage".to_owned(),
        disk: DiskSource::Empty(1 << 30),
    }
}

fn cluster() -> ClusterSpec {
    ClusterSpec {
        fqdn: "engine.example.com".to_owned(),
        bridge: "ovirtmgmt".to_owned(),
        gateway: Some("192.0.2.1".to_owned()),
        network_test: "ping".to_owned(),
        tcp_target: None,
        vm: VmSpec::new(),
        ha_toml: TOML.to_owned(),
    }
}

fn host(id: u16) -> HostSpec {
    HostSpec { host_id: HostId::new(id).unwrap(), hostname: format!("h{id}") }
}

#[test]
fn storage_then_two_hosts() {
    let site = Site::new();
    let (first, second) = (site.host(1), site.host(2));
    let made = create_storage(&first, &storage(), &cluster(), 1_700_000_000, &Quiet).unwrap();
    let found = find_cluster(&second, &storage()).unwrap();
    assert_eq!(found, made);
    configure_host(&first, &made, &host(1), &Quiet).unwrap();
    configure_host(&second, &found, &host(2), &Quiet).unwrap();

    let conf = HostedEngineConf::load(&second).unwrap();
    assert!(conf.is_configured().unwrap());
    assert_eq!(conf.require_host_id().unwrap().get(), 2);
    assert_eq!(fs::metadata(conf.metadata_path().unwrap()).unwrap().len(), 8 << 20);
    assert_eq!(fs::metadata(conf.vm_disk_path().unwrap()).unwrap().len(), 1 << 30);
    for path in [conf.lockspace_path(), conf.ids_path(), conf.vm_lease_path()] {
        let bytes = fs::metadata(path.unwrap()).unwrap().len();
        assert!(bytes == 1 << 20 || bytes == 8 << 20, "{bytes}");
    }
    assert!(fs::read_link(conf.metadata_path().unwrap()).unwrap().starts_with("../images"));
    assert_eq!(ClusterConf::read(&conf.conf_volume_path().unwrap().unwrap()).unwrap(), made);
    let vm = VmConf::load_active(&second).unwrap();
    assert_eq!(vm.vm_id().unwrap(), conf.vmid().unwrap());
    assert_eq!(conf.vm_conf_path(), second.vm_conf());
    assert_eq!(
        ha_config::HaToml::load(&second).unwrap().score.profile,
        ha_config::ha_toml::ScoreProfile::Founding
    );
    let vm_links = conf.storage_domain_dir().unwrap();
    assert!(
        !fs::read_dir(vm_links.parent().unwrap())
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().ends_with(".setup") })
    );
}

#[test]
fn storage_in_use_is_refused_and_left_alone() {
    let site = Site::new();
    let first = site.host(1);
    create_storage(&first, &storage(), &cluster(), 0, &Quiet).unwrap();
    let error = create_storage(&first, &storage(), &cluster(), 0, &Quiet).unwrap_err().to_string();
    assert!(error.contains("carries a hosted engine already"), "{error}");
    find_cluster(&first, &storage()).unwrap();
}

#[test]
fn what_another_deployment_left_stays() {
    let site = Site::new();
    let first = site.host(1);
    let left = storage().mount_dir(&first).join(".4d4c5b5e-0000-4000-8000-1f2e3d4c5b6a.setup");
    fs::create_dir(&left).unwrap();
    create_storage(&first, &storage(), &cluster(), 0, &Quiet).unwrap();
    assert!(left.exists());
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let site = Site::new();
    let first = site.host(1);
    let spec = StorageSpec { disk: DiskSource::Copy("/no/such/image".into(), 0), ..storage() };
    let error = create_storage(&first, &spec, &cluster(), 0, &Quiet).unwrap_err().to_string();
    assert!(error.contains("/no/such/image"), "{error}");
    assert_eq!(fs::read_dir(storage().mount_dir(&first)).unwrap().count(), 0);
}

#[test]
fn bad_requests_are_refused_before_anything_is_made() {
    let site = Site::new();
    let first = site.host(1);
    let refused = |storage: &StorageSpec, cluster: &ClusterSpec| {
        create_storage(&first, storage, cluster, 0, &Quiet).unwrap_err().to_string()
    };
    let typo = ClusterSpec { ha_toml: "[leese]\n".to_owned(), ..cluster() };
    assert!(refused(&storage(), &typo).contains("did you mean [lease]?"));
    let block = StorageSpec { domain_type: DomainType::Fc, ..storage() };
    assert!(refused(&block, &cluster()).contains("storage of the type fc"));
    let elsewhere = StorageSpec { storage: "other:/x".to_owned(), ..storage() };
    assert!(refused(&elsewhere, &cluster()).contains("other:_x"));
    assert!(
        refused(&storage(), &ClusterSpec { ha_toml: String::new(), ..cluster() }).contains("lock manager")
    );
    assert_eq!(fs::read_dir(storage().mount_dir(&first)).unwrap().count(), 0);
    assert!(find_cluster(&first, &storage()).unwrap_err().to_string().contains("no hosted engine"));
}

#[test]
fn configuring_again_is_harmless_and_another_id_is_refused() {
    let site = Site::new();
    let first = site.host(1);
    let made = create_storage(&first, &storage(), &cluster(), 0, &Quiet).unwrap();
    configure_host(&first, &made, &host(1), &Quiet).unwrap();
    fs::write(first.ha_toml(), "# mine\n").unwrap();
    configure_host(&first, &made, &host(1), &Quiet).unwrap();
    assert_eq!(fs::read_to_string(first.ha_toml()).unwrap(), "# mine\n", "the operator's file stays");
    let error = configure_host(&first, &made, &host(2), &Quiet).unwrap_err().to_string();
    assert!(error.contains("this host is number 1 of a hosted engine"), "{error}");
}

#[test]
fn an_id_with_a_block_or_a_lease_of_another_host_is_refused() {
    let site = Site::new();
    let paths = site.host(3);
    let made = create_storage(&paths, &storage(), &cluster(), 0, &Quiet).unwrap();
    let conf = made.parsed(&paths);
    let metadata = crate::shared_file::SharedFile::open(&conf.metadata_path().unwrap(), true).unwrap();
    metadata.write(3 * 4096, &[b'x'; 600]).unwrap();
    let error = configure_host(&paths, &made, &host(3), &Quiet).unwrap_err().to_string();
    assert!(error.contains("host id 3 has a block that cannot be read"), "{error}");
    assert!(!paths.hosted_engine_conf().exists());
    metadata.write(3 * 4096, &[0; 600]).unwrap();

    let mut lease = vec![0_u8; 4096];
    lease[..4].copy_from_slice(&0x1221_2010_u32.to_le_bytes());
    lease[12] = 0;
    let mut sector = lease[..512].to_vec();
    sector[104..109].copy_from_slice(b"other");
    sector[152] = 9;
    lease[1024..1536].copy_from_slice(&sector);
    let lockspace = crate::shared_file::SharedFile::open(&conf.lockspace_path().unwrap(), true).unwrap();
    lockspace.write(0, &lease).unwrap();
    let error = configure_host(&paths, &made, &host(3), &Quiet).unwrap_err().to_string();
    assert!(error.contains("host id 3 belongs to the host \"other\""), "{error}");
    assert!(!paths.hosted_engine_conf().exists());
    configure_host(&paths, &made, &HostSpec { hostname: "other".to_owned(), ..host(3) }, &Quiet).unwrap();
}
