//! A deployment that is killed again and again, on a sandbox host with a real sanlock, real daemons and a real engine VM: gone
//! on with it ends in a good engine, undone it leaves nothing. Needs what the sandbox needs, the daemons beside
//! `hosted-engine`, and the example `deploy_cut`.
//!
//! Each step is cut at one line here; every line of every step is cut where no daemon is needed, in the tests beside the
//! steps. `DEPLOY_CUTS=all` cuts at all of them here too.

mod join;
mod sandbox;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use sandbox::Sandbox;

/// The steps that make something, and the line at which each is cut.
const CUTS: [(&str, &str); 9] = [
    ("directories", "2:after"),
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

fn program() -> String {
    let beside = Path::new(env!("CARGO_BIN_EXE_hosted-engine")).with_file_name("examples/deploy_cut");
    assert!(beside.exists(), "{}: cargo build --examples", beside.display());
    beside.to_str().expect("text").to_owned()
}

fn run(sandbox: &Sandbox, host: &str, words: &[&str]) -> Output {
    let (program, dir) = (program(), sandbox.dir());
    let mut all = vec!["exec", host, program.as_str(), dir.to_str().expect("text"), host];
    all.extend(words);
    sandbox.run(&all)
}

fn succeeds(sandbox: &Sandbox, host: &str, words: &[&str]) -> String {
    let output = run(sandbox, host, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// It must have been killed: it did not stop by itself, and did not come to its end.
fn is_cut(sandbox: &Sandbox, words: &[&str]) {
    let output = run(sandbox, "1", words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && !said.contains("Error: "), "{words:?}: {output:?}");
}

fn all_are_cut() -> bool {
    std::env::var_os("DEPLOY_CUTS").is_some_and(|value| value == "all")
}

fn cuts() -> Vec<(&'static str, String)> {
    let lines = (1..=12).flat_map(|line| [format!("{line}:before"), format!("{line}:after")]);
    CUTS.iter()
        .flat_map(|(step, line)| {
            let chosen = if all_are_cut() { lines.clone().collect() } else { vec![(*line).to_owned()] };
            chosen.into_iter().map(|line| (*step, line))
        })
        .collect()
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

#[test]
fn killed_at_each_step_it_is_undone_without_a_trace_and_gone_on_with_to_a_good_engine() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["up", "--bare", "--hosts", "2", "--io-timeout", "1"]);
    succeeds(&sandbox, "1", &["prepare"]);
    let before = tree(&sandbox);

    // Undone, and undoing is killed too.
    let undone = cuts().into_iter().filter(|(step, _)| all_are_cut() || UNDONE.contains(step));
    for (index, (step, line)) in undone.enumerate() {
        let cut = format!("{step}:{line}");
        let output = run(&sandbox, "1", &["begin", &cut]);
        if output.status.success() {
            // The step has fewer lines. A complete deployment is not undone: the host is made anew.
            assert!(all_are_cut(), "{cut} is never reached");
            sandbox.ok(&["down"]);
            sandbox.ok(&["up", "--bare", "--hosts", "1", "--io-timeout", "1"]);
            succeeds(&sandbox, "1", &["prepare"]);
            continue;
        }
        let check = sandbox.run(&["exec", "1", "hosted-engine", "--check-deployed"]);
        let said = String::from_utf8_lossy(&check.stderr).into_owned();
        assert!(!check.status.success() && said.contains("--undo"), "{cut}: {said}");
        if index % 2 == 0 {
            is_cut(&sandbox, &["undo", "undo:2:before"]);
        }
        succeeds(&sandbox, "1", &["undo"]);
        let after = tree(&sandbox);
        let differs: Vec<_> = before
            .iter()
            .filter(|(path, what)| after.get(*path) != Some(*what))
            .chain(after.iter().filter(|(path, _)| !before.contains_key(*path)))
            .collect();
        assert!(differs.is_empty(), "{cut}: {differs:#?}");
    }

    // Gone on with, over and over.
    let (mut verb, mut is_over) = ("begin", false);
    for (step, line) in cuts() {
        let cut = format!("{step}:{line}");
        let output = run(&sandbox, "1", &[verb, &cut]);
        verb = "resume";
        is_over = output.status.success();
        assert!(!is_over || all_are_cut(), "{cut} is never reached");
        if is_over {
            break;
        }
    }
    if !is_over {
        succeeds(&sandbox, "1", &["resume"]);
    }
    let said = sandbox.ok(&["exec", "1", "hosted-engine", "--vm-status", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(rows["1"]["engine-status"]["health"], "good", "{rows}");
    assert_eq!(rows["global_maintenance"], false, "{rows}");
    assert!(sandbox.run(&["exec", "1", "hosted-engine", "--check-deployed"]).status.success());
    let output = run(&sandbox, "1", &["undo"]);
    assert!(!output.status.success(), "a complete deployment is not undone: {output:?}");
    succeeds(&sandbox, "2", &["prepare"]);
    join::a_host_joins_leaves_without_a_trace_and_joins_again_under_its_number(&sandbox);
}
