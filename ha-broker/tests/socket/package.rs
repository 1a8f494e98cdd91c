//! The Python package of `etc/python` against our socket, called as VDSM and the set-up tools call it.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::fake::Served;

const SOCKET: &str = "run/ovirt-hosted-engine-ha/broker.socket";
const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../etc/python");
const UP: &[u8] = include_bytes!("../../../metadata-format/tests/golden/002-h1-EngineUp.raw");

/// `text` and NULs, as long as a block.
fn block(text: &[u8]) -> Vec<u8> {
    let mut block = text.to_vec();
    block.resize(4096, 0);
    block
}

/// A good block that a host of the Python release wrote, and every kind of bad one.
fn put_blocks(served: &Served) {
    let blocks = [
        block(b"maintenance=1\nnewer=x"),
        UP.to_vec(),
        block(b"1|1|2351|2|3400|{}|h2|0|0|00000000|1|2351"),
        block(b"1|1|2351|3|3400|\xff|h3"),
        block(b"2|2|something newer"),
        block("1|1|7|5|2400|vm-down|hôst".as_bytes()),
        UP.to_vec(),
        block(b"\x7fELF"),
        vec![b'1'; 100],
    ];
    *served.broker.blocks.lock().unwrap() = (0..).zip(blocks).collect();
    *served.broker.alive.lock().unwrap() = vec![1, 2];
}

async fn run(python: &str, root: &Path) {
    let output = Command::new(python)
        .args(["-B", "-W", "error", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/socket/package.py")])
        .env("PYTHONPATH", PACKAGE)
        .env("OVIRT_HA_ROOT", root)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("python3 must be installed for this test");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    // Messages go nowhere unless the program sets logging up.
    assert_eq!((&*stdout, &*stderr), ("the package works\n", ""));
}

#[tokio::test]
async fn vdsm_and_the_set_up_tools_get_what_they_know() {
    let served = Served::start_with(ha_broker::socket::WriterPolicy::default(), SOCKET);
    put_blocks(&served);
    let root = served.path.ancestors().nth(3).unwrap();
    run("python3", root).await;
    let cluster = served.broker.blocks.lock().unwrap()[&0].clone();
    assert_eq!(cluster, block(b"maintenance=0"), "the last change, as long as a block");
    served.stop().await;
}
