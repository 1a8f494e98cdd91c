//! Who may have which number, on a directory, without a lock manager.

use ha_config::Paths;
use metadata_format::HostId;

use super::*;
use crate::repair::tests::Host;
use crate::shared_file::SharedFile;

fn spec(id: u16, name: &str) -> HostSpec {
    HostSpec { host_id: HostId::new(id).unwrap(), hostname: name.to_owned() }
}

fn cluster(host: &Host) -> ClusterConf {
    ClusterConf::read(&host.conf.conf_volume_path().unwrap().unwrap()).unwrap()
}

#[test]
fn a_deployed_host_keeps_its_number() {
    let host = Host::new();
    refuse_other_host(&host.paths, &cluster(&host), &spec(1, "h1")).unwrap();
    let error = refuse_other_host(&host.paths, &cluster(&host), &spec(2, "h1")).unwrap_err().to_string();
    assert!(error.contains("this host is number 1 of a hosted engine"), "{error}");
}

#[test]
fn an_id_with_a_block_or_a_lease_of_another_host_is_refused() {
    let host = Host::new();
    // The same storage on a host that is not deployed.
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::new(root.path());
    std::fs::create_dir_all(paths.storage_mounts()).unwrap();
    let mount = host.conf.mount_dir().unwrap();
    let here = paths.storage_mounts().join(mount.file_name().unwrap());
    std::os::unix::fs::symlink(&mount, here).unwrap();
    let join = |name: &str| {
        refuse_other_host(&paths, &cluster(&host), &spec(3, name)).map_err(|error| error.to_string())
    };
    join("h3").unwrap();

    host.put(3, &[b'x'; 600]);
    let error = join("h3").unwrap_err();
    assert!(error.contains("host id 3 has a block that cannot be read"), "{error}");
    host.put(3, &[0; 600]);

    let mut lease = vec![0_u8; 4096];
    lease[..4].copy_from_slice(&0x1221_2010_u32.to_le_bytes());
    lease[12] = 0;
    let mut sector = lease[..512].to_vec();
    sector[104..109].copy_from_slice(b"other");
    sector[152] = 9;
    lease[1024..1536].copy_from_slice(&sector);
    SharedFile::open(&host.conf.lockspace_path().unwrap(), true).unwrap().write(0, &lease).unwrap();
    let error = join("h3").unwrap_err();
    assert!(error.contains("host id 3 belongs to the host \"other\""), "{error}");
    join("other").unwrap();
}
