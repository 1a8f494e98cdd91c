//! The cluster moves to another directory of the shared storage: refused while the VM runs, killed on the way, taken back,
//! killed behind the point of no return, gone on with; then the second host follows.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use ha_tests::wait;
use serde_json::Value;

use super::join::{SEEN, refused, succeeds};
use super::sandbox::Sandbox;

/// What the command prints on standard output alone: warnings come beside it.
fn rows(sandbox: &Sandbox, host: &str) -> Value {
    serde_json::from_str(sandbox.ok(&["exec", host, "hosted-engine", "--vm-status", "--json"]).trim())
        .expect("JSON")
}

/// Moves on the first host, and kills it when it says a line that ends so. What is refused at first, as long as the lock
/// manager counts the VM or a killed move as the lease's owner, must be had soon.
fn moves_and_is_killed(sandbox: &Sandbox, answers: &str, at: &str) {
    let typed = format!("echo $$; exec hosted-engine --move-storage {answers} --yes 2>&1");
    wait::until(&format!("a move to come to {at:?}"), SEEN, || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hosted-engine"))
            .args(["sandbox", "--dir"])
            .arg(sandbox.dir())
            .args(["exec", "1", "sh", "-c", &typed])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("hosted-engine runs");
        let mut lines =
            BufReader::new(child.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
        let pid: u32 = lines.next().and_then(|line| line.parse().ok()).expect("a process id");
        let mut said = Vec::new();
        let is_there = lines.any(|line| {
            said.push(line.clone());
            line.ends_with(at)
        });
        if is_there {
            sandbox.ok(&["exec", "1", "sh", "-c", &format!("kill -KILL {pid}")]);
        } else {
            let said = said.join("\n");
            assert!(said.contains("lease is held on this host"), "{said}");
        }
        assert!(!child.wait().expect("it ends").success());
        is_there.then_some(())
    });
}

/// In global maintenance, which every agent has acted on, the VM is powered off.
fn ends(sandbox: &Sandbox) {
    succeeds(sandbox, "1", &["--set-maintenance", "--mode=global"]);
    wait::until("both hosts to be in global maintenance", SEEN, || {
        let rows = rows(sandbox, "1");
        let is_in = |id: &str| {
            rows[id]["extra"].as_str().is_some_and(|extra| extra.contains("state=GlobalMaintenance"))
        };
        (is_in("1") && is_in("2")).then_some(())
    });
    succeeds(sandbox, "1", &["--vm-poweroff"]);
    wait::until("the VM to be down in the rows", SEEN, || {
        (rows(sandbox, "1")["1"]["engine-status"]["vm"] != "up").then_some(())
    });
}

/// The second host is deployed, and the first one runs the VM.
pub fn the_cluster_moves_and_the_second_host_follows(sandbox: &Sandbox) {
    let new = sandbox.dir().join("storage/new");
    fs::create_dir(&new).expect("made");
    let file = sandbox.dir().join("h1/root/new-storage.conf");
    let text = "[environment:default]\nOVEHOSTED_STORAGE/domainType=str:directory\n\
                OVEHOSTED_STORAGE/storageDomainConnection=str:/storage/new\n";
    fs::write(&file, text).expect("written");
    let answers = format!("--config-append={}", file.display());
    let runs = refused(sandbox, "1", &["--move-storage", &answers, "--yes"]);
    assert!(runs.contains("not in global maintenance") && runs.contains("the engine VM is up on "), "{runs}");
    ends(sandbox);

    moves_and_is_killed(sandbox, &answers, "Copying the VM's disk");
    let half = succeeds(sandbox, "1", &["--vm-status"]);
    assert!(half.contains("was interrupted on this host at \"Copying the VM's disk\""), "{half}");
    let back = succeeds(sandbox, "1", &["--move-storage", "--undo", "--yes"]);
    assert!(back.contains("Everything is taken back"), "{back}");
    assert_eq!(fs::read_dir(&new).expect("the new storage").count(), 0, "{back}");

    moves_and_is_killed(sandbox, &answers, "Changing this host over to the new storage");
    let behind = refused(sandbox, "1", &["--move-storage", "--undo", "--yes"]);
    assert!(behind.contains("the former storage is closed already"), "{behind}");
    let moved = succeeds(sandbox, "1", &["--move-storage", "--resume"]);
    assert!(moved.contains("The hosted engine is on its new storage"), "{moved}");
    assert!(moved.contains("Run on each other host (host 2 ("), "{moved}");
    assert!(moved.contains("rm -r "), "{moved}");
    assert_eq!(rows(sandbox, "1")["1"]["engine-status"]["health"], "good");

    // The second host has the former storage still, and there is no lease for it.
    let told = succeeds(sandbox, "2", &["--vm-status"]);
    assert!(told.contains("The cluster moved to other storage: posixfs /storage/new"), "{told}");
    let refusal = refused(sandbox, "2", &["--vm-start"]);
    assert!(refusal.contains("holds no lease of the VM's disk"), "{refusal}");
    assert!(refusal.contains("hosted-engine --move-storage --follow"), "{refusal}");
    let again = refused(sandbox, "2", &["--move-storage", &answers, "--yes"]);
    assert!(again.contains("the cluster moved already"), "{again}");
    succeeds(sandbox, "2", &["--move-storage", "--follow", "--yes"]);
    // It has waited for its own row. That the first host counts it as live takes a minute more, as everywhere.
    let rows = wait::until("the first host to see the second's row on the new storage", SEEN, || {
        let rows = rows(sandbox, "1");
        (!rows["2"].is_null()).then_some(rows)
    });
    assert_eq!(rows["1"]["engine-status"]["health"], "good", "{rows}");
    assert_eq!(rows["global_maintenance"], false, "{rows}");
    assert!(!succeeds(sandbox, "2", &["--vm-status"]).contains("moved to other storage"));
    let refusal = refused(sandbox, "2", &["--move-storage", "--follow", "--yes"]);
    assert!(refusal.contains("the cluster did not move"), "{refusal}");
}
