use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::*;
use crate::deploy::storage::testing::{Site, storage};
use crate::deploy::testing::{Heard, Recorded, cut_after};
use crate::deploy::{Call, Iscsi, Lun, Outcome, Said, StorageKind, ToolError, Tools};
use ha_config::Secret;

const TARGET: &str = "iqn.2014-07.org.example:he";
const LOGIN: &str = "iscsiadm -m node -T iqn.2014-07.org.example:he -p 192.0.2.1:3260,1 --login";
const LOGOUT: &str = "iscsiadm -m node -T iqn.2014-07.org.example:he -p 192.0.2.1:3260,1 --logout";
const SESSIONS: &str = "iscsiadm -m session";
const NONE: &str = "iscsiadm: No active sessions.\n";
const SETTLE: &str = "udevadm settle --timeout 30";
const LSBLK: &str =
    "lsblk --json --bytes --paths --output NAME,TYPE,SIZE,VENDOR,MODEL,TRAN,FSTYPE,MOUNTPOINTS";

fn iscsi(connection: &str) -> Storage {
    let iscsi =
        Iscsi { target: TARGET.to_owned(), tpgt: 1, ports: vec![3260], user: None, discovery_user: None };
    Storage { iscsi: Some(iscsi), ..storage(StorageKind::Iscsi, connection) }
}

fn discovery(host: &str) -> String {
    format!("iscsiadm -m discovery -t sendtargets -p {host}:3260 -o nonpersistent")
}

/// A host that has settings for the target's portal.
fn site() -> Site {
    let site = Site::new();
    let record = site.paths.resolve("/etc/iscsi/nodes").join(TARGET).join("192.0.2.1,3260,1/default");
    std::fs::create_dir_all(record.parent().unwrap()).unwrap();
    std::fs::write(record, "# BEGIN RECORD 2.1.8\nnode.startup = manual\n# END RECORD\n").unwrap();
    site
}

fn journal(site: &Site) -> PathBuf {
    site.paths.setup_state_dir().join("look.journal")
}

#[test]
fn targets_are_listed_once_with_all_their_portals() {
    let (site, report) = (Site::new(), Heard::default());
    let out = format!("192.0.2.7:3260,3 {TARGET}\n192.0.2.1:3260,2 {TARGET}\n192.0.2.1:3260,1 iqn.b\n");
    let tools = Recorded::new(&[
        (&discovery("192.0.2.1"), 0, &out, ""),
        (&discovery("192.0.2.2"), 4, "", "iscsiadm: connection login retries (reopen_max) 5 exceeded\n"),
        (&discovery("192.0.2.7"), 0, &out, ""),
    ]);
    let found =
        site.hands(&tools, &report).targets(&iscsi("192.0.2.1,192.0.2.2,192.0.2.7"), &site.secrets).unwrap();
    tools.assert_over();
    let portal = |host: &str| (host.to_owned(), 3260);
    assert_eq!(
        found,
        [
            Target {
                name: TARGET.to_owned(),
                tpgt: 3,
                portals: vec![portal("192.0.2.7"), portal("192.0.2.1")]
            },
            Target { name: "iqn.b".to_owned(), tpgt: 1, portals: vec![portal("192.0.2.1")] },
        ]
    );
    let heard = report.all();
    assert!(heard.len() == 1 && heard[0].contains("192.0.2.2:3260"), "{heard:?}");

    // The group is that of the portal that was given, whatever was told first.
    let tools = Recorded::new(&[(&discovery("192.0.2.1"), 0, &out, "")]);
    let found = site.hands(&tools, &report).targets(&iscsi("192.0.2.1"), &site.secrets).unwrap();
    assert_eq!(found[0].tpgt, 2);
}

#[test]
fn without_targets_it_is_said_why() {
    let (site, report) = (Site::new(), Heard::default());
    let none = "iscsiadm: No portals found\n";
    let tools = Recorded::new(&[(&discovery("192.0.2.1"), 21, "", none)]);
    let error = site.hands(&tools, &report).targets(&iscsi("192.0.2.1"), &site.secrets).unwrap_err();
    assert!(error.to_string().contains("initiatorname.iscsi"), "{error}");

    let mut storage = iscsi("192.0.2.1");
    storage.iscsi.as_mut().unwrap().discovery_user = Some("ed".to_owned());
    let error = site.hands(&Recorded::default(), &report).targets(&storage, &site.secrets).unwrap_err();
    assert!(error.to_string().contains("\"ed\" is not known"), "{error}");

    // With its password the portal is asked as that user, in a call that does not show it.
    let secrets = Secrets { iscsi_discovery: Some(Secret::new("sesame")), ..Secrets::default() };
    let tools = AsUser(Mutex::default());
    let found = site.hands(&tools, &report).targets(&storage, &secrets).unwrap();
    assert_eq!(found[0].name, TARGET);
    let calls = tools.0.into_inner().unwrap();
    assert!(calls.len() == 1 && calls[0].program == "unshare", "{calls:?}");
    assert!(!calls[0].to_string().contains("sesame"), "{calls:?}");
    let input = calls[0].input.as_ref().unwrap().reveal();
    assert!(input.contains(".username = ed\n") && input.contains(".password = sesame\n"));
}

/// Finds the target, whoever asks.
struct AsUser(Mutex<Vec<Call>>);

impl Tools for AsUser {
    fn ask(&self, call: &Call) -> Result<Said, ToolError> {
        self.0.lock().unwrap().push(call.clone());
        Ok(Said { code: 0, out: format!("192.0.2.1:3260,1 {TARGET}\n"), err: String::new() })
    }
}

/// Two paths before multipath has taken them, a disk of another target, the host's own.
fn disks(site: &Site) -> String {
    let dev = site.paths.resolve("/dev");
    let links = [
        ("disk/by-id/scsi-36001405aaaaaaaaaaaaaaaaaaaaaaaaa", "sda"),
        ("disk/by-path/ip-192.0.2.1:3260-iscsi-iqn.2014-07.org.example:he-lun-0", "sda"),
        ("disk/by-path/ip-192.0.2.9:3260-iscsi-iqn.other-lun-0", "sdb"),
    ];
    for (link, disk) in links {
        let link = dev.join(link);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::fs::write(dev.join(disk), "").unwrap();
        std::os::unix::fs::symlink(dev.join(disk), link).unwrap();
    }
    let disk = |name: &str, transport: &str, kind: &str| {
        format!(
            r#"{{"name":"{}","type":"disk","size":1073741824,"vendor":"LIO-ORG","model":"he","tran":"{transport}",
            "fstype":{kind},"mountpoints":[null]}}"#,
            dev.join(name).display()
        )
    };
    let all = [
        disk("sda", "iscsi", r#""LVM2_member""#),
        disk("sda", "iscsi", "null"),
        disk("sdb", "iscsi", "null"),
        disk("sdc", "fc", "null"),
        disk("nvme0n1", "nvme", "null"),
    ];
    format!(r#"{{"blockdevices":[{}]}}"#, all.join(","))
}

#[test]
fn the_targets_devices_are_listed_and_its_session_is_ended() {
    let (site, report) = (site(), Heard::default());
    let disks = disks(&site);
    let tools = Recorded::new(&[
        (SESSIONS, 21, "", NONE),
        (LOGIN, 0, "", ""),
        (SETTLE, 0, "", ""),
        (LSBLK, 0, &disks, ""),
        (LOGOUT, 0, "", ""),
    ]);
    let found = site.hands(&tools, &report).devices(&iscsi("192.0.2.1"), &site.secrets).unwrap();
    tools.assert_over();
    let sda = site.paths.resolve("/dev/sda").display().to_string();
    let expected = Device {
        id: "36001405aaaaaaaaaaaaaaaaaaaaaaaaa".to_owned(),
        bytes: 1 << 30,
        about: format!("LIO-ORG he, iscsi, {sda}, LVM2_member"),
    };
    assert_eq!(found, [expected]);
    assert_eq!(Journal::read(&journal(&site)).unwrap().unwrap().outcome, Some(Outcome::Undone));

    // Without an adapter what else there is can be taken, but nothing that is this host's alone.
    let tools = Recorded::new(&[(SETTLE, 0, "", ""), (LSBLK, 0, &disks, "")]);
    let fc = storage(StorageKind::Fc, "");
    let found = site.hands(&tools, &report).devices(&fc, &site.secrets).unwrap();
    tools.assert_over();
    assert!(found.len() == 1 && found[0].about.ends_with("sdc, nothing is seen on it"), "{found:?}");
    let heard = report.all();
    assert!(heard.iter().any(|line| line.contains("! this host has no Fibre Channel adapter")), "{heard:?}");
}

/// Cut at each line of its journal, a look leaves nothing behind once the next one was there.
#[test]
fn a_look_that_is_cut_is_taken_back_by_the_next() {
    for lines in 1..8 {
        let (site, report) = (site(), Heard::default());
        let disks = disks(&site);
        let whole = [
            (SESSIONS, 21, "", NONE),
            (LOGIN, 0, "", ""),
            (SETTLE, 0, "", ""),
            (LSBLK, 0, disks.as_str(), ""),
            (LOGOUT, 0, "", ""),
        ];
        let tools = Recording::new(&whole);
        let first =
            cut_after(lines, || site.hands(&tools, &report).devices(&iscsi("192.0.2.1"), &site.secrets));
        site.hands(&tools, &report).devices(&iscsi("192.0.2.1"), &site.secrets).unwrap();
        let (logins, logouts) = (tools.count(LOGIN), tools.count(LOGOUT));
        assert!(logouts >= logins, "{lines} lines: {logins} logins, {logouts} logouts, {first:?}");
    }
}

/// Programs that answer the same call in the same way each time, and count it.
struct Recording {
    answers: Vec<(String, Said)>,
    calls: Mutex<Vec<String>>,
}

impl Recording {
    fn new(answers: &[(&str, i32, &str, &str)]) -> Self {
        let said = |code, out: &str, err: &str| Said { code, out: out.to_owned(), err: err.to_owned() };
        let answers =
            answers.iter().map(|(call, code, out, err)| ((*call).to_owned(), said(*code, out, err)));
        Self { answers: answers.collect(), calls: Mutex::default() }
    }

    fn count(&self, call: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|one| *one == call).count()
    }
}

impl Tools for Recording {
    fn ask(&self, call: &Call) -> Result<Said, ToolError> {
        let call = call.to_string();
        let (_, said) = self.answers.iter().find(|(known, _)| *known == call).expect(&call);
        self.calls.lock().unwrap().push(call);
        Ok(said.clone())
    }
}

#[test]
fn a_device_that_is_there_needs_no_list() {
    let (site, report) = (Site::new(), Heard::default());
    let path = site.dir.path().join("srv/he/disk");
    std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let mut storage = iscsi("192.0.2.1");
    storage.lun = Some(Lun { id: path.display().to_string(), bytes: 0 });
    let found = site.hands(&Recorded::default(), &report).devices(&storage, &site.secrets).unwrap();
    assert_eq!((found[0].bytes, Path::new(&found[0].id)), (1 << 20, path.as_path()));
    assert!(!journal(&site).exists());
}
