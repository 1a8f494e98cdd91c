use super::*;

const TEXT: &str = "\
fqdn=engine.example.com
host_id=2
domainType=posixfs
storage=shared:/engine_data
sdUUID=sd-1
vm_disk_id=img-1
vm_disk_vol_id=vol-1
conf=/run/ovirt-hosted-engine-ha/vm.conf
somebody_elses=kept
password=hunter2
";

fn conf(text: &str) -> HostedEngineConf {
    HostedEngineConf::parse(&Paths::new("/r"), text)
}

#[test]
fn paths_follow_from_the_keys() {
    let conf = conf(TEXT);
    let sd = Path::new("/r/rhev/data-center/mnt/shared:_engine__data/sd-1");
    assert_eq!(conf.storage_domain_dir().unwrap(), sd);
    assert_eq!(conf.metadata_path().unwrap(), sd.join("ha_agent/hosted-engine.metadata"));
    assert_eq!(conf.lockspace_path().unwrap(), sd.join("ha_agent/hosted-engine.lockspace"));
    assert_eq!(conf.ids_path().unwrap(), sd.join("dom_md/ids"));
    assert_eq!(conf.vm_disk_path().unwrap(), sd.join("images/img-1/vol-1"));
    assert_eq!(conf.vm_lease_path().unwrap(), sd.join("images/img-1/vol-1.lease"));
    assert_eq!(conf.vm_lease_name().unwrap(), "vol-1");
    assert_eq!(conf.vm_conf_path(), Path::new("/r/run/ovirt-hosted-engine-ha/vm.conf"));
}

#[test]
fn gluster_and_block_domains_lie_elsewhere() {
    let gluster = conf("domainType=glusterfs\nstorage=a:/v/\nsdUUID=s\n");
    assert_eq!(gluster.storage_domain_dir().unwrap(), Path::new("/r/rhev/data-center/mnt/glusterSD/a:_v/s"));
    let block = conf("domainType=fc\nsdUUID=s\nvm_disk_id=i\nvm_disk_vol_id=v\n");
    assert_eq!(block.storage_domain_dir().unwrap(), Path::new("/r/rhev/data-center/mnt/blockSD/s"));
    assert_eq!(block.vm_disk_path().unwrap(), Path::new("/r/run/vdsm/storage/s/i/v"));
    assert!(block.vm_lease_path().is_err());
}

#[test]
fn a_lease_among_others_has_its_place_and_no_other_is_guessed() {
    let block = |offset: &str| conf(&format!("domainType=iscsi\nsdUUID=s\nvm_lease_offset={offset}\n"));
    let leases = PathBuf::from("/r/rhev/data-center/mnt/blockSD/s/dom_md/leases");
    assert_eq!(block("109051904").vm_lease_place().unwrap(), (leases, 104 << 20));
    for offset in ["", "0", "-1", "104857601", "x"] {
        let error = block(offset).vm_lease_place().unwrap_err().to_string();
        assert!(error.contains("vm_lease_offset") && error.contains("hypervisor = \"vdsm\""), "{error}");
    }
    let file = conf(TEXT);
    assert_eq!(file.vm_lease_place().unwrap(), (file.vm_lease_path().unwrap(), 0));
}

#[test]
fn a_connection_has_one_normal_form() {
    for (written, normal, name) in [
        ("a:/v/", "a:/v", "a:_v"),
        ("a://exports//x_y/./z/", "a:/exports/x_y/z", "a:_exports_x__y_z"),
        ("a:/b/../c", "a:/c", "a:_c"),
        ("a:/", "a:/", "a:_"),
        ("[fd00::1]:/v", "[fd00::1]:/v", "[fd00::1]:_v"),
        ("gluster1:vol", "gluster1:vol", "gluster1:vol"),
        ("/srv/he", "/srv/he", "_srv_he"),
    ] {
        assert_eq!(normal_connection(written), normal);
        assert_eq!(escape_connection(written), name);
    }
}

#[test]
fn configured_needs_an_id_and_no_false() {
    assert!(conf("host_id=1\n").is_configured().unwrap());
    assert!(conf("host_id=1\nconfigured=True\n").is_configured().unwrap());
    assert!(!conf("host_id=1\nconfigured=False\n").is_configured().unwrap());
    assert!(!conf("fqdn=x\n").is_configured().unwrap());
    let error = conf("host_id=2001\n").is_configured().unwrap_err().to_string();
    assert!(error.contains("hosted-engine.conf:1: host_id=\"2001\""), "{error}");
}

#[test]
fn bad_values_are_named() {
    for (text, part) in [
        ("domainType=ext4\n", "domainType=\"ext4\""),
        ("fqdn=x\n", "the key domainType is missing"),
        ("domainType=nfs\nstorage=a:/b\nsdUUID=../x\n", "sdUUID=\"../x\""),
    ] {
        let error = conf(text).storage_domain_dir().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn network_tests() {
    assert_eq!(conf("").network_test().unwrap(), NetworkTest::Ping);
    assert_eq!(conf("network_test=none\n").network_test().unwrap(), NetworkTest::None);
    assert_eq!(
        conf("network_test=tcp\ntcp_t_address=h\ntcp_t_port=22\n").network_test().unwrap(),
        NetworkTest::Tcp { address: "h".to_owned(), port: 22 }
    );
    assert!(conf("network_test=tcp\ntcp_t_address=h\n").network_test().is_err());
    assert!(conf("network_test=arp\n").network_test().is_err());
}

#[test]
fn passwords_stay_out_of_debug_and_others_sight() {
    use std::os::unix::fs::PermissionsExt;
    assert!(!format!("{:?}", conf(TEXT)).contains("hunter2"));
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path());
    std::fs::create_dir_all(paths.hosted_engine_conf_dir()).unwrap();
    std::fs::write(paths.hosted_engine_conf(), TEXT).unwrap();
    let mut conf = HostedEngineConf::load(&paths).unwrap();
    conf.update([("host_id", "7")]).unwrap();
    assert_eq!(conf.require_host_id().unwrap().get(), 7);
    assert_eq!(
        std::fs::read_to_string(paths.hosted_engine_conf()).unwrap(),
        TEXT.replace("host_id=2", "host_id=7")
    );
    let mode = std::fs::metadata(paths.hosted_engine_conf()).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0);
}

#[test]
fn local_maintenance_is_either_key() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path());
    assert_eq!(HaConf::load(&paths).unwrap(), HaConf::default());
    std::fs::create_dir_all(paths.state_dir()).unwrap();
    let manual = HaConf { local_maintenance_manual: true, ..HaConf::default() };
    manual.store(&paths).unwrap();
    assert!(HaConf::load(&paths).unwrap().is_maintenance());
    assert_eq!(
        std::fs::read_to_string(paths.ha_conf()).unwrap(),
        "local_maintenance=False\nlocal_maintenance_manual=True\n"
    );
    let forced = HaConf { local_maintenance_force: true, ..manual };
    forced.store(&paths).unwrap();
    assert_eq!(HaConf::load(&paths).unwrap(), forced);
    manual.store(&paths).unwrap();
    assert!(!std::fs::read_to_string(paths.ha_conf()).unwrap().contains("force"));
    std::fs::write(paths.ha_conf(), "local_maintenance=perhaps\n").unwrap();
    assert!(HaConf::load(&paths).unwrap_err().to_string().contains("perhaps"));
}

#[test]
fn storage_at_an_ipv6_address_is_mounted_where_vdsm_mounts_it() {
    let nfs = conf("domainType=nfs\nstorage=[2001:db8::1]:/export/he_data\nsdUUID=s\n");
    let wanted = "/r/rhev/data-center/mnt/[2001:db8::1]:_export_he__data/s";
    assert_eq!(nfs.storage_domain_dir().unwrap(), Path::new(wanted));
}

/// The words that the existing tools write into ha.conf, in every combination, and what they read from ours.
#[test]
fn local_maintenance_survives_a_change_of_release_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path());
    std::fs::create_dir_all(paths.state_dir()).unwrap();
    for (local, manual) in [(false, false), (true, false), (false, true), (true, true)] {
        let theirs = format!(
            "local_maintenance={}\nlocal_maintenance_manual={}\n",
            bool_text(local),
            bool_text(manual)
        );
        std::fs::write(paths.ha_conf(), &theirs).unwrap();
        let read = HaConf::load(&paths).unwrap();
        let wanted =
            HaConf { local_maintenance: local, local_maintenance_manual: manual, ..HaConf::default() };
        assert_eq!(read, wanted);
        assert_eq!(read.is_maintenance(), local || manual);
        read.store(&paths).unwrap();
        assert_eq!(std::fs::read_to_string(paths.ha_conf()).unwrap(), theirs);
    }
}
