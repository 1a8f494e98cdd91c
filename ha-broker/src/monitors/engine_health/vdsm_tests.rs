//! VDSM's words to the words of a host's block, over the wire: what the existing monitor makes of them, with two
//! differences that are meant. A start that failed is no unexpected end, and how a VM ended is remembered when VDSM has
//! forgotten it.

use engine_vm::qemu::QmpRole;
use engine_vm::vdsm::VdsmVm;
use ha_config::{HostedEngineConf, Paths};
use ha_tests::vdsm::{Answer, FakeVdsm};
use serde_json::{Value, json};

use super::*;

const ID: &str = "82a24281-8a25-4772-b9c9-45971e811cb3";

/// What the host's block says after VDSM said these one after the other; `null` for no such VM.
async fn block_after(said: &[Value]) -> (VmState, Health, String, Option<String>) {
    let vdsm = FakeVdsm::start(|_, _| Answer::Silence).await.unwrap();
    let root = tempfile::tempdir().unwrap();
    let conf = HostedEngineConf::parse(
        &Paths::new(root.path()),
        &format!("vmid={ID}\nvm_disk_id=i\nvm_disk_vol_id=v\nsdUUID=d\nstorage=/s\ndomainType=posixfs\n"),
    );
    let vm = VdsmVm::new(vdsm.client(), &conf, QmpRole::Cli).unwrap();
    let mut before = VmState::Down;
    let mut status = None;
    for words in said {
        let words = words.clone();
        vdsm.rescript(move |method, _| match (method, &words) {
            ("VM.getStats", Value::Null) => Answer::refusal(1),
            ("VM.getStats", words) => Answer::Result(json!([words])),
            _ => Answer::refusal(-32601),
        });
        let seen = vm.status().await;
        let now = match classify(before, seen.as_ref().map_or(Seen::Unreachable, Seen::Status)) {
            Verdict::Final(status) => status,
            Verdict::AskPage(activity) => running(activity, true),
        };
        if now.vm != VmState::Unknown {
            before = now.vm;
        }
        status = Some(now);
    }
    let status = status.unwrap();
    (status.vm, status.health, status.detail, status.reason)
}

fn is(word: &str) -> Value {
    json!({"status": word})
}

fn down(reason: i64, code: i64, message: &str) -> Value {
    json!({"status": "Down", "exitReason": reason, "exitCode": code, "exitMessage": message})
}

fn bad(vm: VmState, detail: &str, reason: &str) -> (VmState, Health, String, Option<String>) {
    (vm, Health::Bad, detail.to_owned(), Some(reason.to_owned()))
}

#[tokio::test]
async fn words_of_a_vm_that_exists() {
    for word in ["Paused", "WaitForLaunch", "Restoring state", "Powering up"] {
        assert_eq!(block_after(&[is(word)]).await, bad(VmState::Up, word, "bad vm status"));
    }
    for word in ["Up", "Powering down", "Migration Source", "RebootInProgress", "Saving State"] {
        assert_eq!(block_after(&[is(word)]).await, (VmState::Up, Health::Good, word.to_owned(), None));
    }
    let word = "Migration Destination";
    assert_eq!(block_after(&[is(word)]).await, bad(VmState::Down, word, "bad vm status"));
    assert_eq!(block_after(&[is("Up"), is(word)]).await, bad(VmState::DownUnexpected, word, "bad vm status"));
}

#[tokio::test]
async fn words_of_a_vm_that_is_down() {
    let locked = "Storage of VM is locked. Is another host already starting the VM?";
    for text in [
        "internal error: Failed to acquire lock: error -243",
        "Failed to acquire lock: Lease is held by another host",
        "Is another process using the image?",
        "Is another process using the image [/a/b]?",
    ] {
        let said = [is("WaitForLaunch"), down(1, 1, text)];
        assert_eq!(block_after(&said).await, bad(VmState::Down, "Down", locked), "{text}");
    }
    let said = [is("Up"), is("Migration Source"), down(4, 0, "Migration succeeded")];
    assert_eq!(block_after(&said).await, bad(VmState::Down, "Down", "VM migrated away successfully"));
    for end in
        [down(6, 0, "Admin shut down from the engine"), down(2, 1, "Lost connection with qemu process")]
    {
        let after = block_after(&[is("Up"), end.clone()]).await;
        assert_eq!(after, bad(VmState::DownUnexpected, "Down", "bad vm status"));
        assert_eq!(block_after(&[end]).await, bad(VmState::Down, "Down", "bad vm status"));
    }
    let said = [is("WaitForLaunch"), down(1, 1, "no such machine")];
    assert_eq!(block_after(&said).await, bad(VmState::Down, "Down", "bad vm status"));
}

#[tokio::test]
async fn words_of_no_vm() {
    let missing = "vm not running on this host";
    assert_eq!(block_after(&[Value::Null]).await, bad(VmState::Down, "unknown", missing));
    assert_eq!(block_after(&[is("Up"), Value::Null]).await, bad(VmState::DownMissing, "unknown", missing));
    let said = [is("Up"), down(2, 1, "gone"), Value::Null];
    assert_eq!(block_after(&said).await, bad(VmState::DownUnexpected, "Down", "bad vm status"));
}

#[tokio::test]
async fn a_word_that_nobody_knows_is_unknown() {
    let (vm, health, detail, reason) = block_after(&[is("Up"), is("Dreaming")]).await;
    assert_eq!((vm, health, detail.as_str()), (VmState::Unknown, Health::Unknown, "unknown"));
    assert_eq!(reason.as_deref(), Some("failed to getVmStats"));
}
