//! A deployment that is killed again and again, on a sandbox host with a real sanlock, real daemons and a real engine VM: gone
//! on with it ends in a good engine, undone it leaves nothing. Needs what the sandbox needs, the daemons beside
//! `hosted-engine`, and the example `deploy_cut`.
//!
//! Each step is cut at one line here; every line of every step is cut where no daemon is needed, in the tests beside the
//! steps. `DEPLOY_CUTS=all` cuts at all of them here too.

mod join;
mod moved;
mod sandbox;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sandbox::Sandbox;

/// The steps that make something, and the line at which each is cut.
const CUTS: [(&str, &str); 10] = [
    ("directories", "2:after"),
    ("storage-connection", "3:after"),
    ("storage-domain", "3:before"),
    ("leases", "1:after"),
    ("shared-configuration", "3:before"),
    ("host-configuration", "4:after"),
    ("main-configuration", "4:after"),
    ("broker", "5:before"),
    ("engine-vm", "3:before"),
    ("hand-over", "3:before"),
];
/// Of these, the ones whose deployment is undone: what goes before is begun anew for each, which takes its time.
const UNDONE: [&str; 3] = ["shared-configuration", "broker", "engine-vm"];

/// A sandbox on whose first host nothing is deployed.
const UP: [&str; 6] = ["up", "--bare", "--hosts", "2", "--io-timeout", "1"];
/// The journal of the first host.
const JOURNAL: &str = "h1/var/lib/ovirt-hosted-engine-setup/deploy.journal";

fn program() -> String {
    let beside = Path::new(env!("CARGO_BIN_EXE_hosted-engine")).with_file_name("examples/deploy_cut");
    assert!(beside.exists(), "{}: cargo build --examples", beside.display());
    beside.to_str().expect("text").to_owned()
}

fn run(sandbox: &Sandbox, words: &[&str]) -> Output {
    let (program, dir) = (program(), sandbox.dir());
    let mut all = vec!["exec", "1", program.as_str(), dir.to_str().expect("text")];
    all.extend(words);
    sandbox.run(&all)
}

fn succeeds(sandbox: &Sandbox, words: &[&str]) -> String {
    let output = run(sandbox, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// It must have been killed: it did not stop by itself, and did not come to its end.
fn is_cut(sandbox: &Sandbox, words: &[&str]) {
    let output = run(sandbox, words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && !said.contains("Error: "), "{words:?}: {output:?}");
}

/// Undoes, and is killed at a line if there are so many; whether it came to its end.
fn is_undone_at_once(sandbox: &Sandbox, cut: &str) -> bool {
    let output = run(sandbox, &["undo", cut]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("Error: "), "{cut}: {output:?}");
    assert!(!output.status.success() || all_are_cut(), "{cut} is never reached");
    output.status.success()
}

fn all_are_cut() -> bool {
    std::env::var_os("DEPLOY_CUTS").is_some_and(|value| value == "all")
}

/// The steps with the lines at which they are cut. All lines of all steps are those of a deployment that is not cut.
fn cuts(sandbox: &Sandbox) -> Vec<(String, String)> {
    if !all_are_cut() {
        return CUTS.map(|(step, line)| (step.to_owned(), line.to_owned())).to_vec();
    }
    succeeds(sandbox, &["begin"]);
    let journal = fs::read_to_string(sandbox.dir().join(JOURNAL)).expect("a journal");
    sandbox.ok(&["down"]);
    sandbox.ok(&UP);
    let mut all = Vec::new();
    let (mut step, mut count) = (String::new(), 0);
    for line in journal.lines() {
        if let Some(name) = line.strip_prefix("{\"begin\":\"").and_then(|rest| rest.strip_suffix("\"}")) {
            (step, count) = (name.to_owned(), 0);
        }
        if !step.is_empty() {
            count += 1;
            all.extend(["before", "after"].map(|moment| (step.clone(), format!("{count}:{moment}"))));
        }
        if line.starts_with("{\"end\":") {
            step.clear();
        }
    }
    println!("{} cuts", all.len());
    all
}

/// Everything on the host and on its storage, but the logs and the journal, which stay, and what other daemons write.
fn tree(sandbox: &Sandbox) -> BTreeMap<PathBuf, String> {
    fn walk(root: &Path, at: &Path, all: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(at).expect("a directory").flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).expect("below it").to_owned();
            let kept = [
                "h1/var/log",
                "h1/var/lib/ovirt-hosted-engine-setup",
                "h1/run/sanlock",
                "h1/run/storage.sock",
                "h1/run/vdsm/stand-in",
            ];
            if kept.iter().any(|kept| name == Path::new(kept)) {
                continue;
            }
            let meta = fs::symlink_metadata(&path).expect("what is listed");
            let what = if meta.is_dir() {
                walk(root, &path, all);
                "directory".to_owned()
            } else if meta.is_symlink() {
                format!("link {}", fs::read_link(&path).expect("a link").display())
            } else if meta.is_file() {
                let text = fs::read(&path).expect("a file");
                // A sum is enough to see a change.
                format!(
                    "file {} {}",
                    text.len(),
                    text.iter().fold(0_u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte))
                )
            } else {
                "socket".to_owned()
            };
            all.insert(name, what);
        }
    }
    let mut all = BTreeMap::new();
    for part in ["h1", "storage"] {
        walk(&sandbox.dir(), &sandbox.dir().join(part), &mut all);
    }
    assert!(all.keys().all(|path| !path.as_os_str().as_bytes().is_empty()));
    all
}

fn is_as_before(sandbox: &Sandbox, before: &BTreeMap<PathBuf, String>, cut: &str) {
    let after = tree(sandbox);
    let differs: Vec<_> = before
        .iter()
        .filter(|(path, what)| after.get(*path) != Some(*what))
        .chain(after.iter().filter(|(path, _)| !before.contains_key(*path)))
        .collect();
    assert!(differs.is_empty(), "{cut}: {differs:#?}");
}

/// What VDSM was asked to make is taken back by its verbs: it must not go on with what is not there any more. Killed where
/// VDSM has done what the journal only announces.
#[test]
fn killed_on_a_host_of_vdsm_it_is_gone_on_with_and_undone_without_a_trace() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["up", "--bare", "--hosts", "1", "--io-timeout", "1", "--hypervisor", "vdsm"]);
    let before = tree(&sandbox);
    let taken_back = |said: &str, what: &[&str]| {
        for what in what {
            assert!(said.contains(&format!("Taken back: {what}")), "{what}: {said}");
        }
    };

    // VDSM manages the pool around the domain.
    is_cut(&sandbox, &["begin", "storage-domain:5:before"]);
    is_cut(&sandbox, &["undo", "undo:2:before"]);
    let said = succeeds(&sandbox, &["undo"]);
    taken_back(&said, &["storage domain ", "VDSM's connection to sandbox:/storage"]);
    is_as_before(&sandbox, &before, "in the pool");

    // The volumes are made and prepared; then the VM runs.
    is_cut(&sandbox, &["begin", "storage-domain:7:before"]);
    is_cut(&sandbox, &["resume", "engine-vm:3:before"]);
    let said = succeeds(&sandbox, &["undo"]);
    taken_back(&said, &["storage domain ", "4 volumes of the storage domain "]);
    is_as_before(&sandbox, &before, "with the VM");
}

#[test]
fn killed_at_each_step_it_is_undone_without_a_trace_and_gone_on_with_to_a_good_engine() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["up", "--bare", "--hosts", "3", "--io-timeout", "1"]);
    let cuts = cuts(&sandbox);
    let before = tree(&sandbox);

    // Undone, and undoing is killed too.
    let undone = cuts.iter().filter(|(step, _)| all_are_cut() || UNDONE.contains(&step.as_str()));
    for (index, (step, line)) in undone.enumerate() {
        let cut = format!("{step}:{line}");
        is_cut(&sandbox, &["begin", &cut]);
        let check = sandbox.run(&["exec", "1", "hosted-engine", "--check-deployed"]);
        let said = String::from_utf8_lossy(&check.stderr).into_owned();
        assert!(!check.status.success() && said.contains("--undo"), "{cut}: {said}");
        // Where little was made, the first try comes to the end.
        if index % 2 == 1 || !is_undone_at_once(&sandbox, "undo:2:before") {
            succeeds(&sandbox, &["undo"]);
        }
        is_as_before(&sandbox, &before, &cut);
    }

    // Gone on with, over and over.
    let mut verb = "begin";
    for (step, line) in &cuts {
        is_cut(&sandbox, &[verb, &format!("{step}:{line}")]);
        verb = "resume";
    }
    succeeds(&sandbox, &["resume"]);
    let said = sandbox.ok(&["exec", "1", "hosted-engine", "--vm-status", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(rows["1"]["engine-status"]["health"], "good", "{rows}");
    assert_eq!(rows["global_maintenance"], false, "{rows}");
    assert!(sandbox.run(&["exec", "1", "hosted-engine", "--check-deployed"]).status.success());
    let output = run(&sandbox, &["undo"]);
    assert!(!output.status.success(), "a complete deployment is not undone: {output:?}");
    join::a_host_joins_and_leaves_without_a_trace(&sandbox);
    join::hosts_that_join_at_the_same_moment_settle_on_numbers_of_their_own(&sandbox);
    moved::the_cluster_moves_and_the_second_host_follows(&sandbox);
}

/// Types `hosted-engine WORDS` on the host; whether it succeeded, and all that it said.
fn types(sandbox: &Sandbox, words: &[&str]) -> (bool, String) {
    let output = sandbox.run(&[&["exec", "1", "hosted-engine"], words].concat());
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), said.concat())
}

/// Deploys on the host, and kills it when it says a line that ends so.
fn deploys_and_is_killed(sandbox: &Sandbox, answers: &str, at: &str) {
    let typed = format!("echo $$; exec hosted-engine --deploy {answers} --yes");
    let mut child = Command::new(env!("CARGO_BIN_EXE_hosted-engine"))
        .args(["sandbox", "--dir"])
        .arg(sandbox.dir())
        .args(["exec", "1", "sh", "-c", &typed])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("hosted-engine runs");
    let mut lines =
        BufReader::new(child.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    let pid: u32 = lines.next().and_then(|line| line.parse().ok()).expect("a process id");
    assert!(lines.any(|line| line.ends_with(at)), "it never says {at}");
    sandbox.ok(&["exec", "1", "sh", "-c", &format!("kill -KILL {pid}")]);
    assert!(!child.wait().expect("it ends").success());
}

#[test]
fn the_command_says_what_is_half_done_and_takes_it_back() {
    let sandbox = Sandbox::new();
    let told = sandbox.ok(&["up", "--bare", "--hosts", "1", "--io-timeout", "1"]);
    let answers = told.split_whitespace().find(|word| word.starts_with("--config-append=")).expect("told");
    let step = "Starting the broker and joining the lockspaces";
    deploys_and_is_killed(&sandbox, answers, step);

    for word in ["--vm-status", "--check-deployed"] {
        let (is_done, said) = types(&sandbox, &[word]);
        assert!(said.contains(&format!("interrupted at \"{step}\"")) && said.contains("--undo"), "{said}");
        assert!(!is_done, "{word}: {said}");
    }
    let (is_done, said) = types(&sandbox, &["--deploy", answers, "--yes"]);
    assert!(!is_done && said.contains("--deploy --resume"), "{said}");
    let journal = sandbox.dir().join(JOURNAL);
    let before = fs::read(&journal).expect("a journal");
    let (is_done, plan) = types(&sandbox, &["--deploy", "--undo", "--plan"]);
    assert!(is_done && plan.contains("hosted-engine.conf: removed"), "{plan}");
    assert_eq!(fs::read(&journal).expect("a journal"), before, "a plan changes nothing");

    let (is_done, said) = types(&sandbox, &["--deploy", "--undo"]);
    assert!(!is_done && said.contains("give --yes"), "nobody confirmed it: {said}");
    let (is_done, said) = types(&sandbox, &["--deploy", "--undo", "--yes"]);
    assert!(is_done && said.contains("Everything is taken back"), "{said}");
    assert!(!sandbox.dir().join("h1/etc/ovirt-hosted-engine/hosted-engine.conf").exists());
    assert_eq!(fs::read_dir(sandbox.dir().join("storage")).expect("the storage").count(), 0);
    let (is_done, said) = types(&sandbox, &["--check-deployed"]);
    assert!(!is_done && !said.contains("interrupted"), "{said}");

    let (is_done, said) = types(&sandbox, &["--deploy", answers, "--yes"]);
    assert!(is_done && said.contains("Hosted Engine successfully deployed"), "{said}");
    let status = said.split_once("successfully deployed").expect("it says so").1;
    assert!(status.contains("\"health\": \"good\""), "the cluster's state follows: {status}");
}
