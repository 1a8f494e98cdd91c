use super::*;
use crate::deploy::storage::testing::storage;
use crate::deploy::testing::Recorded;

const FINDMNT: &str = "findmnt --json --nocanonicalize --output SOURCE,FSTYPE,OPTIONS --mountpoint";
const HE: &str = "/rhev/data-center/mnt/a.example:_he";

fn mount(kind: StorageKind, connection: &str, options: &str) -> Mount {
    let storage = Storage { mount_options: options.to_owned(), ..storage(kind, connection) };
    Mount::of(&Paths::default(), &storage).unwrap().unwrap()
}

fn nfs(options: &str) -> String {
    format!("mount -t nfs -o soft,nosharecache,timeo=100,retrans=3,{options} a.example:/he {HE}")
}

#[test]
fn each_kind_has_its_command_line() {
    let gluster = "/rhev/data-center/mnt/glusterSD/a.example:_he";
    for (kind, options, systemd, expected) in [
        (StorageKind::Nfs, "", true, nfs("nolock,retry=0")),
        (StorageKind::Nfs3, "", true, nfs("nfsvers=3,nolock,retry=0")),
        (StorageKind::Nfs3, "lock,retry=2", true, nfs("nfsvers=3,lock,retry=2")),
        (StorageKind::Nfs4, "noatime,timeo=200", true, nfs("nfsvers=4,noatime,timeo=200,retry=0")),
        (StorageKind::Glusterfs, "", false, format!("mount -t glusterfs a.example:/he {gluster}")),
        (
            StorageKind::Glusterfs,
            "backup-volfile-servers=b:c",
            true,
            format!(
                "systemd-run --scope --quiet --slice=ovirt-ha-glusterfs mount -t glusterfs -o \
                 backup-volfile-servers=b:c a.example:/he {gluster}"
            ),
        ),
    ] {
        let tools = Recorded::new(&[(&expected, 0, "", "")]);
        mount(kind, "a.example:/he/", options).mount(&tools, systemd).unwrap();
        tools.assert_over();
    }
    assert_eq!(Mount::of(&Paths::default(), &storage(StorageKind::Directory, "/srv")).unwrap(), None);
}

#[test]
fn nfs_is_tried_with_version_3_when_the_server_knows_no_other() {
    let refusal = "mount.nfs: access denied by server while mounting a.example:/he\n";
    let calls = [nfs("nolock,retry=0"), nfs("nfsvers=3,nolock,retry=0")];
    let tools = Recorded::new(&[(&calls[0], 32, "", refusal), (&calls[1], 0, "", "")]);
    mount(StorageKind::Nfs, "a.example:/he", "").mount(&tools, false).unwrap();
    tools.assert_over();
}

#[test]
fn each_refusal_says_what_to_do() {
    let first = nfs("nfsvers=4,retry=0");
    for (said, advice) in [
        ("mount.nfs: access denied by server while mounting a.example:/he", "list of hosts"),
        (
            "mount.nfs: mounting a.example:/he failed, reason given by server: No such file or directory",
            "showmount -e a.example names what it exports",
        ),
        (
            "mount.nfs: Failed to resolve server a.example: Name or service not known",
            "the name a.example does not resolve",
        ),
        ("mount.nfs: Connection refused", "a.example answers, but serves no nfs"),
        ("mount.nfs: Connection timed out", "a.example does not answer"),
        ("mount.nfs: No route to host", "a.example does not answer"),
        ("mount.nfs: Stale file handle", "exportfs -ra"),
        (
            "mount.nfs: requested NFS version or transport protocol is not supported",
            "does not speak that version",
        ),
        ("mount.nfs: No such device", "kernel knows no nfs"),
        (
            "mount: /rhev: unknown filesystem type 'nfs'.\n       dmesg(1) may have more information after \
             failed mount system call.",
            "install nfs-utils or nfs-common",
        ),
    ] {
        let tools = Recorded::new(&[(&first, 32, "", said)]);
        let error =
            mount(StorageKind::Nfs4, "a.example:/he", "").mount(&tools, false).unwrap_err().to_string();
        assert!(error.starts_with("cannot mount a.example:/he: `mount -t nfs "), "{error}");
        assert!(error.contains(advice), "{error}");
    }
}

#[test]
fn glusterfs_says_little_and_the_advice_more() {
    let call = "mount -t glusterfs a.example:/he /rhev/data-center/mnt/glusterSD/a.example:_he";
    for said in ["Mount failed. Check the log file  for more details.", "Mounting glusterfs on /rhev failed."]
    {
        let tools = Recorded::new(&[(call, 1, "", said)]);
        let error = mount(StorageKind::Glusterfs, "a.example:/he", "").mount(&tools, false);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("gluster volume status he, on a.example") && error.contains("/var/log"),
            "{error}"
        );
    }
}

#[test]
fn a_server_that_does_not_answer_is_asked_once() {
    let tools = Recorded::new(&[(&nfs("nolock,retry=0"), 32, "", "mount.nfs: Connection timed out\n")]);
    mount(StorageKind::Nfs, "a.example:/he", "").mount(&tools, false).unwrap_err();
    tools.assert_over();
}

#[test]
fn what_is_mounted_is_told_by_its_server() {
    let answer = |source: &str, fstype: &str, options: &str| {
        format!(
            r#"{{"filesystems": [{{"source":"below","fstype":"ext4","options":"rw"}},
                {{"source":"{source}","fstype":"{fstype}","options":"{options}"}}]}}"#
        )
    };
    let options = "rw,relatime,vers=4.2,rsize=131072,soft,nosharecache,proto=tcp,timeo=100,retrans=3";
    let ask = |out: &str, code: i32| {
        let tools = Recorded::new(&[(&format!("{FINDMNT} {HE}"), code, out, "")]);
        mount(StorageKind::Nfs, "a.example:/he", "").is_mounted(&tools)
    };
    assert!(!ask("", 1).unwrap());
    assert!(ask(&answer("a.example:/he", "nfs4", options), 0).unwrap());
    assert!(ask(&answer("a.example://he", "nfs4", options), 0).unwrap(), "as NFS 4 shows it");
    let error = ask(&answer("b.example:/he", "nfs4", options), 0).unwrap_err().to_string();
    assert!(error.contains("b.example:/he is mounted at") && error.contains("umount"), "{error}");
    let error = ask("nonsense", 0).unwrap_err().to_string();
    assert!(error.contains("findmnt"), "{error}");

    for (fstype, options, version) in [
        ("nfs4", options, Some("v4_2")),
        ("nfs", "rw,vers=3,mountvers=3", Some("v3")),
        ("fuse.glusterfs", "rw,vers=3", None),
    ] {
        let mounted =
            Mounted { source: "a:/b".to_owned(), fstype: fstype.to_owned(), options: options.to_owned() };
        assert_eq!(mounted.nfs_version().as_deref(), version);
    }
    assert!(is_same("a:he", "a:/he/") && !is_same("a:/he", "a:/he2"));
}

#[test]
fn what_cannot_be_mounted_is_refused_by_value() {
    for (kind, connection, options, part) in [
        (StorageKind::Nfs, "/srv/he", "", "server:/path"),
        (StorageKind::Nfs, "a.example:he", "", "a.example:he"),
        (StorageKind::Nfs4, "-a:/he", "", "-a:/he"),
        (StorageKind::Nfs3, "a b:/he", "", "a b:/he"),
        (StorageKind::Glusterfs, "a.example:/", "", "server:/volume"),
        (StorageKind::Nfs, "a:/he", "ro", "write to the storage"),
        (StorageKind::Nfs, "a:/he", "noatime,,x", "commas"),
        (StorageKind::Nfs, "a:/he", "noatime soft", "noatime soft"),
        (StorageKind::Nfs, "a:/he", "vers=4.2", "nfs, nfs3 or nfs4"),
        (StorageKind::Glusterfs, "a:/he", "password=x", "no passwords"),
    ] {
        let storage = Storage { mount_options: options.to_owned(), ..storage(kind, connection) };
        let error = check(&storage).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    for connection in ["a.example:/", "[fd00::1]:/he", "192.0.2.1:/he"] {
        check(&storage(StorageKind::Nfs, connection)).unwrap();
    }
}

#[test]
fn a_deployed_host_mounts_what_the_first_one_found() {
    for (conf, expected) in [
        (
            "domainType=nfs\nstorage=a.example:/he\nnfs_version=v4_2\n",
            nfs("nfsvers=4,minorversion=2,retry=0"),
        ),
        ("domainType=nfs\nstorage=a.example:/he\nnfs_version=v3\n", nfs("nfsvers=3,nolock,retry=0")),
        ("domainType=nfs4\nstorage=a.example:/he\nmnt_options=hard\n", nfs("nfsvers=4,hard,retry=0")),
        ("domainType=nfs\nstorage=a.example:/he\nnfs_version=auto\n", nfs("nolock,retry=0")),
    ] {
        let conf = HostedEngineConf::parse(&Paths::default(), conf);
        let tools = Recorded::new(&[(&expected, 0, "", "")]);
        Mount::of_conf(&conf).unwrap().unwrap().mount(&tools, false).unwrap();
    }
    let conf = HostedEngineConf::parse(&Paths::default(), "domainType=iscsi\n");
    assert_eq!(Mount::of_conf(&conf).unwrap(), None);
}

#[test]
fn a_busy_mount_says_who_can_tell() {
    let call = format!("umount {HE}");
    let tools = Recorded::new(&[(&call, 32, "", &format!("umount: {HE}: target is busy.\n"))]);
    let error = Mount::unmount(&tools, Path::new(HE)).unwrap_err().to_string();
    assert!(error.contains("target is busy") && error.contains(&format!("fuser -vm {HE}")), "{error}");
}
