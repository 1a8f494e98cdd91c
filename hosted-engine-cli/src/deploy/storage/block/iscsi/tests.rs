use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;
use crate::deploy::storage::testing::{Site, first_host};
use crate::deploy::testing::{Heard, Recorded};
use crate::deploy::{FirstHost, Installed, Journal, Request, Step, StepId, StorageKind, ToolError, run};

const TARGET: &str = "iqn.2014-07.org.example:he";

fn portal(host: &str) -> Portal {
    Portal { host: host.to_owned(), port: 3260, tpgt: 1, target: TARGET.to_owned() }
}

fn request(connection: &str) -> FirstHost {
    let mut first = first_host(StorageKind::Iscsi, connection);
    first.storage.iscsi = Some(Iscsi {
        target: TARGET.to_owned(),
        tpgt: 1,
        ports: vec![3260],
        user: None,
        discovery_user: None,
    });
    first
}

/// open-iscsi's forms (its README, "Getting Started").
#[test]
fn targets_and_sessions_are_read() {
    let call = "iscsiadm -m discovery -t sendtargets -p 192.0.2.1:3260 -o nonpersistent";
    let out =
        format!("192.0.2.1:3260,1 {TARGET}\n[fd00::1]:3261,2 {TARGET}\n192.0.2.9:3260,-1 iqn.other\nnoise\n");
    let tools = Recorded::new(&[(call, 0, &out, "")]);
    let found = discover(&Paths::default(), &tools, "192.0.2.1", 3260, None).unwrap();
    let second = Portal { port: 3261, tpgt: 2, ..portal("fd00::1") };
    let third = Portal { target: "iqn.other".to_owned(), ..portal("192.0.2.9") };
    assert_eq!(found, [portal("192.0.2.1"), second, third]);

    let out = format!(
        "tcp: [1] 192.0.2.1:3260,1 {TARGET} (non-flash)\niser: [12] [fd00::1]:3260,1 {TARGET} (flash)\n"
    );
    let tools = Recorded::new(&[("iscsiadm -m session", 0, &out, "")]);
    assert_eq!(sessions(&tools).unwrap(), [portal("192.0.2.1"), portal("fd00::1")]);
    let tools = Recorded::new(&[("iscsiadm -m session", 21, "", "iscsiadm: No active sessions.\n")]);
    assert_eq!(sessions(&tools).unwrap(), []);
}

/// The words are those of open-iscsi 2.1.8 on a kernel without iSCSI.
#[test]
fn exit_codes_become_advice() {
    let call = "iscsiadm -m discovery -t sendtargets -p [fd00::1]:3260 -o nonpersistent";
    for (code, words, advice) in [
        (
            12,
            "iscsiadm: Could not perform SendTargets discovery: iSCSI driver not found.",
            "modprobe iscsi_tcp",
        ),
        (
            20,
            "iscsiadm: Could not perform SendTargets discovery: could not connect to iscsid",
            "systemctl start iscsid",
        ),
        (24, "iscsiadm: Login authentication failed with target ", "CHAP user and password"),
        (4, "iscsiadm: connection login retries (reopen_max) 5 exceeded", "nothing answers there"),
        (77, "", "log of iscsid"),
    ] {
        let tools = Recorded::new(&[(call, code, "", words)]);
        let error = discover(&Paths::default(), &tools, "fd00::1", 3260, None).unwrap_err().to_string();
        assert!(error.contains(advice) && error.contains(words.trim()), "{error}");
    }
}

/// An `iscsiadm` that keeps its record as open-iscsi 2.1.8 does, and discovers with the password `sesame` only.
const ISCSIADM: &str = r#"#!/bin/sh
record=$(dirname "$0")/../etc/iscsi/send_targets/192.0.2.1,3260/st_config
case $* in
*'-p 192.0.2.1:3260 -o new')
	mkdir -p "${record%/*}"
	printf '%s\n' '# BEGIN RECORD 2.1.8' 'discovery.type = sendtargets' \
		'discovery.sendtargets.auth.authmethod = None' '# END RECORD' >"$record" ;;
*'-p 192.0.2.1:3260 --discover -o nonpersistent')
	lines=$(grep -c -x -e '# BEGIN .*' -e 'discovery.type = sendtargets' -e '.*auth.authmethod = CHAP' \
		-e '.*auth.username = ed' -e '.*auth.password = sesame' -e '# END RECORD' "$record")
	[ "$lines" = 6 ] || { echo 'iscsiadm: Login authentication failed' >&2; exit 24; }
	echo '192.0.2.1:3260,1 iqn.2014-07.org.example:he' ;;
*) exit 7 ;;
esac
"#;

/// Runs what is called with this `iscsiadm`, by these words where they are needed to be root.
struct WithOwnIscsiadm {
    programs: PathBuf,
    words: Vec<OsString>,
}

impl Tools for WithOwnIscsiadm {
    fn ask(&self, call: &Call) -> Result<Said, ToolError> {
        let path = format!("PATH={}:{}", self.programs.display(), std::env::var("PATH").unwrap());
        let call = call.clone();
        let wrapped = Call::new("env").arg(path).args(&self.words).arg(call.program).args(&call.args);
        Installed.ask(&Call { input: call.input, ..wrapped })
    }
}

#[test]
fn a_discovery_with_a_password_touches_no_record_of_this_host() {
    let site = Site::new();
    let programs = site.paths.resolve("/bin");
    std::fs::create_dir_all(&programs).unwrap();
    let program = programs.join("iscsiadm");
    std::fs::write(&program, ISCSIADM).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Somebody's own, with what was discovered by it beside it.
    let own = site.paths.resolve("/etc/iscsi/send_targets/192.0.2.1,3260");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("st_config"), "discovery.type = sendtargets\n").unwrap();
    std::fs::write(own.join("iqn.own,192.0.2.1,3260,1,default"), "").unwrap();

    let Some(unshare) = ha_tests::namespace::unshare() else { return };
    let arguments: Vec<OsString> = unshare.get_args().map(ToOwned::to_owned).collect();
    let is_root = arguments.is_empty();
    let words = std::iter::once(unshare.get_program().to_owned()).chain(arguments);
    let words = if is_root { Vec::new() } else { words.collect() };
    let tools = WithOwnIscsiadm { programs, words };
    let discovered = |password: &str| {
        let chap = Chap { user: "ed", password: &Secret::new(password) };
        discover(&site.paths, &tools, "192.0.2.1", 3260, Some(&chap))
    };
    assert_eq!(discovered("sesame").unwrap(), [portal("192.0.2.1")]);
    let error = discovered("open it").unwrap_err().to_string();
    assert!(error.contains("CHAP user") && error.contains("Login authentication failed"), "{error}");
    assert!(!error.contains("open it") && error.len() < 300, "{error}");
    assert_eq!(std::fs::read_to_string(own.join("st_config")).unwrap(), "discovery.type = sendtargets\n");
    assert_eq!(std::fs::read_dir(&own).unwrap().count(), 2);

    // An iscsiadm that makes none.
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    let error = discovered("sesame").unwrap_err().to_string();
    assert!(error.contains("made no record in") && error.contains("125"), "{error}");
    assert!(!site.paths.resolve("/var/lib/iscsi").exists());
}

#[test]
fn portals_are_addresses_side_by_side_with_their_ports() {
    let iscsi = |ports: &[u16]| Iscsi {
        target: TARGET.to_owned(),
        tpgt: 1,
        ports: ports.to_vec(),
        user: None,
        discovery_user: None,
    };
    let found = portals("192.0.2.1, [fd00::1],192.0.2.3", &iscsi(&[1, 2])).unwrap();
    assert_eq!(found.iter().map(|portal| portal.port).collect::<Vec<_>>(), [1, 2, 2]);
    assert_eq!(found[1].address(), "[fd00::1]:2");
    assert_eq!(portals("192.0.2.1", &iscsi(&[])).unwrap()[0].port, PORT);
    for (connection, target) in
        [("", TARGET), ("-p x", TARGET), ("server", TARGET), ("192.0.2.1", "../x"), ("192.0.2.1", "")]
    {
        let iscsi = Iscsi { target: target.to_owned(), ..iscsi(&[]) };
        assert!(portals(connection, &iscsi).is_err(), "{connection:?} {target:?}");
    }
}

struct LogIn;

impl Step for LogIn {
    fn id(&self) -> StepId {
        StepId::StorageConnection
    }
    fn title(&self) -> String {
        "login".to_owned()
    }
    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let Request::FirstHost(first) = job.world.request else { panic!("a first host's") };
        connect(job, &first.storage)
    }
}

/// Three portals: one has a session, one works, one does not. What was there stays when all is undone.
#[test]
fn one_way_is_enough_and_only_own_sessions_are_ended() {
    let site = Site::new();
    let request = Request::FirstHost(Box::new(request("192.0.2.1,192.0.2.2,192.0.2.3")));
    let path = site.dir.path().join("journal");
    let node = |host: &str, what: &str| format!("iscsiadm -m node -T {TARGET} -p {host}:3260,1 {what}");
    let record = |host: &str| {
        let file = site.paths.resolve("/etc/iscsi/nodes").join(TARGET).join(format!("{host},3260,1/default"));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "# BEGIN RECORD 2.1.8\nnode.startup = manual\n# END RECORD\n").unwrap();
        file
    };
    // Somebody's own settings for the third.
    let own = record("192.0.2.3");
    let session = format!("tcp: [1] 192.0.2.1:3260,1 {TARGET} (non-flash)\n");
    let timeout = "iscsiadm: initiator reported error (8 - connection timed out)\n";
    let tools = Recorded::new(&[
        ("iscsiadm -m session", 0, &session, ""),
        (&node("192.0.2.1", "--rescan"), 0, "", ""),
        (&node("192.0.2.2", "-o new"), 0, "New iSCSI node added\n", ""),
        (&node("192.0.2.3", "--login"), 8, "", timeout),
    ]);
    let report = Heard::default();
    let mut journal = Journal::begin(&path, 0, request.clone()).unwrap();
    // The record of the second is not where it is looked for: that way fails as the third does.
    run(&[Box::new(LogIn) as Box<dyn Step>], site.world(&request, &tools, &report), &mut journal).unwrap();
    tools.assert_over();
    let heard = report.all();
    let warnings: Vec<_> = heard.iter().filter(|line| line.starts_with('!')).collect();
    assert!(warnings.len() == 2 && warnings[1].contains("nothing answers there"), "{heard:?}");
    assert!(std::fs::read_to_string(own).unwrap().contains("node.startup = manual"));

    let tools = Recorded::new(&[
        (&node("192.0.2.3", "--logout"), 21, "", "iscsiadm: No matching sessions found\n"),
        (&node("192.0.2.2", "-o delete"), 0, "", ""),
    ]);
    crate::deploy::undo(site.world(&request, &tools, &report), &mut journal).unwrap();
    tools.assert_over();
}

#[test]
fn without_any_way_the_reason_is_said() {
    let site = Site::new();
    let request = Request::FirstHost(Box::new(request("192.0.2.1")));
    let mut journal = Journal::begin(&site.dir.path().join("journal"), 0, request.clone()).unwrap();
    let missing = format!("iscsiadm -m node -T {TARGET} -p 192.0.2.1:3260,1 -o new");
    let tools = Recorded::new(&[
        ("iscsiadm -m session", 21, "", "iscsiadm: No active sessions.\n"),
        (&missing, 0, "", ""),
    ]);
    let report = Heard::default();
    let steps = [Box::new(LogIn) as Box<dyn Step>];
    let error = run(&steps, site.world(&request, &tools, &report), &mut journal).unwrap_err().to_string();
    assert!(error.contains("made no settings"), "{error}");
}
