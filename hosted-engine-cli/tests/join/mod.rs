//! A second host joins the cluster of the first, leaves it without a trace, and joins again under the same number while a
//! third one joins, too; the first, which runs the engine VM, cannot leave meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ha_tests::wait;
use serde_json::Value;

use super::sandbox::Sandbox;

/// Where the sandbox's storage is on each host.
const STORAGE: &str = "--join=/storage";
/// From its first word until a host counts as live elsewhere, and a little more.
pub const SEEN: Duration = Duration::from_secs(90);

/// `hosted-engine` on a host: whether it succeeds, and everything that it prints.
fn engine(sandbox: &Sandbox, host: &str, words: &[&str]) -> (bool, String) {
    let output = sandbox.run(&[&["exec", host, "hosted-engine"], words].concat());
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), text.concat())
}

pub fn succeeds(sandbox: &Sandbox, host: &str, words: &[&str]) -> String {
    let (is_done, text) = engine(sandbox, host, words);
    assert!(is_done, "host {host}, {words:?}: {text}");
    text
}

pub fn refused(sandbox: &Sandbox, host: &str, words: &[&str]) -> String {
    let (is_done, text) = engine(sandbox, host, words);
    assert!(!is_done, "host {host}, {words:?}: {text}");
    text
}

fn rows(sandbox: &Sandbox, host: &str) -> Value {
    serde_json::from_str(&succeeds(sandbox, host, &["--vm-status", "--json"])).expect("JSON")
}

/// What is on a host, but logs, what set-up keeps for the record, and what other daemons write.
fn tree(sandbox: &Sandbox, host: &str) -> BTreeSet<PathBuf> {
    fn walk(root: &Path, at: &Path, all: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(at).expect("a directory").flatten() {
            let name = entry.path().strip_prefix(root).expect("below it").to_owned();
            let kept = ["var/log", "var/lib/ovirt-hosted-engine-setup", "run/sanlock", "run/storage.sock"];
            if kept.iter().any(|kept| name == Path::new(kept)) {
                continue;
            }
            if entry.file_type().expect("its kind").is_dir() {
                walk(root, &entry.path(), all);
            }
            all.insert(name);
        }
    }
    let root = sandbox.dir().join(format!("h{host}"));
    let mut all = BTreeSet::new();
    walk(&root, &root, &mut all);
    all
}

/// The second host is as it was before anything was deployed on it.
pub fn a_host_joins_and_leaves_without_a_trace(sandbox: &Sandbox) {
    let before = tree(sandbox, "2");
    let answers = sandbox.dir().join("h2/tmp-answers");
    fs::write(&answers, "[environment:default]\nOVEHOSTED_STORAGE/hostID=int:1\n").expect("written");
    let file = format!("--config-append={}", answers.display());
    let taken = refused(sandbox, "2", &["--deploy", STORAGE, &file, "--yes"]);
    assert!(taken.contains("1 is the number of ") && taken.contains(", last seen "), "{taken}");
    fs::remove_file(&answers).expect("removed");
    let plan = succeeds(sandbox, "2", &["--deploy", STORAGE, "--plan"]);
    assert!(plan.contains("Starting the broker and joining the lockspaces"), "{plan}");
    assert_eq!(tree(sandbox, "2"), before, "a plan and refusals change nothing");

    let joined = succeeds(sandbox, "2", &["--deploy", STORAGE, "--yes"]);
    assert!(joined.contains("(id: 2) status ==--"), "its row is shown: {joined}");
    let second = rows(sandbox, "2")["2"].clone();
    assert_eq!((&second["live-data"], &second["maintenance"]), (&true.into(), &false.into()), "{second}");
    wait::until("the first host to see the second", SEEN, || {
        (rows(sandbox, "1")["2"]["live-data"] == true).then_some(())
    });

    let plan = succeeds(sandbox, "2", &["--undeploy", "--plan"]);
    assert!(plan.contains("the block of host 2 is removed"), "{plan}");
    let left = succeeds(sandbox, "2", &["--undeploy", "--yes"]);
    assert!(left.contains("does not belong to a hosted engine any more"), "{left}");
    assert_eq!(tree(sandbox, "2"), before, "{left}");
    assert!(!engine(sandbox, "2", &["--check-deployed"]).0);
    wait::until("the first host to forget the second", SEEN, || {
        rows(sandbox, "1")["2"].is_null().then_some(())
    });
    let nothing = refused(sandbox, "2", &["--undeploy", "--yes"]);
    assert!(nothing.contains("is not deployed"), "{nothing}");
    let alone = refused(sandbox, "1", &["--undeploy", "--yes"]);
    assert!(alone.contains("the engine VM runs on this host, and no other host can take it"), "{alone}");

    // A backup, and a restore that is refused while the cluster lives.
    let file = sandbox.dir().join("h1/tmp-backup.tar");
    let file = file.to_str().expect("text");
    succeeds(sandbox, "1", &["--backup", file]);
    assert!(succeeds(sandbox, "1", &["--restore", file]).contains("Nothing differs"));
    succeeds(sandbox, "1", &["--set-shared-config", "gateway", "192.0.2.77", "--type=he_shared"]);
    let differs = succeeds(sandbox, "1", &["--restore", file, "--plan"]);
    assert!(differs.contains("- gateway=192.0.2.77"), "{differs}");
    let lives = refused(sandbox, "1", &["--restore", file, "--yes"]);
    assert!(lives.contains("runs on this host: stop the HA services"), "{lives}");
    succeeds(sandbox, "1", &["--set-shared-config", "gateway", "10.199.77.1", "--type=he_shared"]);
}

/// Two hosts join at the same moment and are proposed the same number: the one that gets the lease keeps it. The third host
/// leaves again.
pub fn hosts_that_join_at_the_same_moment_settle_on_numbers_of_their_own(sandbox: &Sandbox) {
    let typed = format!("exec hosted-engine --deploy {STORAGE} --yes 2>&1");
    let mut slow = Command::new(env!("CARGO_BIN_EXE_hosted-engine"))
        .args(["sandbox", "--dir"])
        .arg(sandbox.dir())
        .args(["exec", "3", "sh", "-c", &typed])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Who enters the host's namespaces waits for it, and stops when it is stopped.
        .process_group(0)
        .spawn()
        .expect("hosted-engine runs");
    let mut lines =
        BufReader::new(slow.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    let group = format!("-{}", slow.id());
    let signal = |name: &str| {
        let sent = Command::new("kill").args(["-s", name, "--", &group]).status().expect("kill runs");
        assert!(sent.success(), "SIG{name}");
    };
    // It has been proposed its number, and stands still before it takes that.
    assert!(lines.any(|line| line.ends_with("Checking this host")), "it never checks the host");
    signal("STOP");
    succeeds(sandbox, "2", &["--deploy", STORAGE, "--yes"]);
    assert_eq!(rows(sandbox, "2")["2"]["live-data"], true, "its row is shown before the deployment ends");
    signal("CONT");
    let said: Vec<String> = lines.collect();
    assert!(slow.wait().expect("it ends").success(), "{said:#?}");
    let changed = "Another host was given host id 2 first. Taking back what was done, to join as host 3";
    assert!(said.iter().any(|line| line.ends_with(changed)), "{said:#?}");

    let names = wait::until("the first host to see both", SEEN, || {
        let rows = rows(sandbox, "1");
        let live = ["2", "3"].into_iter().all(|id| rows[id]["live-data"] == true);
        live.then(|| [rows["2"]["hostname"].clone(), rows["3"]["hostname"].clone()])
    });
    assert_ne!(names[0], names[1]);
    assert!(engine(sandbox, "3", &["--check-deployed"]).0);
    let journal = sandbox.dir().join("h3/var/lib/ovirt-hosted-engine-setup/deploy.journal");
    let story = fs::read_to_string(&journal).expect("a journal");
    assert!(story.ends_with("{\"over\":\"deployed\"}\n"), "{story}");
    let former =
        fs::read_to_string(journal.with_extension("journal.old")).expect("the one that was taken back");
    assert!(former.ends_with("{\"over\":\"undone\"}\n"), "{former}");

    succeeds(sandbox, "3", &["--undeploy", "--yes"]);
    wait::until("the first host to forget the third", SEEN, || {
        rows(sandbox, "1")["3"].is_null().then_some(())
    });
}
