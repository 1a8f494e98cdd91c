//! Saved and restored on a directory, without a lock manager or a broker.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use ha_config::conf_volume;

use super::restore::{changes, with_services};
use super::*;
use crate::deploy::job_tests::NoServices;
use crate::repair::tests::{Host, block};

fn saved_of(host: &Host) -> (tempfile::TempDir, PathBuf, Saved) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster.backup");
    let mut terminal = Terminal::recording();
    backup(&BackupArgs { file: file.clone() }, &host.paths, &mut terminal).unwrap();
    assert!(terminal.recorded().out.contains("host/hosted-engine.conf"), "{:?}", terminal.recorded());
    let saved = Saved::parse(&fs::read(&file).unwrap()).unwrap();
    (dir, file, saved)
}

fn restored(host: &Host, file: &Path, blocks: bool, plan: bool) -> Result<String, String> {
    let args = RestoreArgs { file: file.to_owned(), plan, blocks, yes: true };
    let mut terminal = Terminal::recording();
    let done = with_services(&args, &host.paths, &NoServices, &mut terminal);
    done.map(|_| terminal.recorded().out).map_err(|error| format!("{error:#}"))
}

/// Changes the gateway on shared storage.
fn change_configuration(host: &Host) -> PathBuf {
    let path = host.conf.conf_volume_path().unwrap().unwrap();
    let volume = conf_volume::ConfVolume::open(&path).unwrap();
    let old = volume.read().unwrap();
    let conf = String::from_utf8(old.content("hosted-engine.conf").unwrap().to_vec()).unwrap();
    let new =
        volume.prepare(&old, "hosted-engine.conf", format!("{conf}gateway=192.0.2.9\n").as_bytes()).unwrap();
    assert_eq!(volume.write(&old, &new).unwrap(), conf_volume::Write::Done);
    path
}

#[test]
fn a_backup_is_private_complete_and_never_overwrites() {
    let host = Host::new();
    host.put(2, &block(2, 100, true));
    let (_dir, file, saved) = saved_of(&host);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(saved.members[METADATA].len(), 3 * BLOCK_SIZE, "up to the last block that is used");
    let shared = conf_volume::read(&host.conf.conf_volume_path().unwrap().unwrap()).unwrap();
    assert_eq!(saved.members[CONFIGURATION], shared.encode().unwrap());
    let again = backup(&BackupArgs { file: file.clone() }, &host.paths, &mut Terminal::recording());
    assert!(again.unwrap_err().to_string().contains("is there already"));
    assert!(restored(&host, &file, true, false).unwrap().contains("Nothing differs"));
}

#[test]
fn what_differs_is_shown_and_restored_with_copies_of_what_was_there() {
    let host = Host::new();
    host.put(2, &block(2, 100, true));
    let (_dir, file, _) = saved_of(&host);
    let shared = conf_volume::read(&change_configuration(&host)).unwrap();
    fs::write(host.paths.ha_toml(), "[lease]\nadapter = \"file\"\nio_timeout = 2\n").unwrap();
    host.put(2, &block(2, 200, true));
    host.put(3, &block(3, 300, true));

    let plan = restored(&host, &file, true, true).unwrap();
    for part in [
        "  - io_timeout = 2\n  + io_timeout = 1\n",
        "    - gateway=192.0.2.9\n",
        "the block of host 2: is changed",
    ] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    let path = host.conf.conf_volume_path().unwrap().unwrap();
    assert!(conf_volume::read(&path).unwrap().same_files(&shared), "a plan changes nothing");
    assert_eq!(host.backups(), 0);

    restored(&host, &file, false, false).unwrap();
    assert!(!conf_volume::read(&path).unwrap().same_files(&shared));
    assert!(fs::read_to_string(host.paths.ha_toml()).unwrap().contains("io_timeout = 1"));
    assert_eq!(host.backups(), 2);
    let timestamp = || {
        let bytes = fs::read(host.conf.metadata_path().unwrap()).unwrap();
        String::from_utf8_lossy(&bytes[2 * BLOCK_SIZE..][..8]).into_owned()
    };
    assert!(timestamp().starts_with("1|1|200"), "blocks only when asked for");
    restored(&host, &file, true, false).unwrap();
    assert!(timestamp().starts_with("1|1|100"));
    assert!(host.has_block(3), "a host that joined since keeps its block");
    assert!(restored(&host, &file, true, false).unwrap().contains("Nothing differs"));
}

#[test]
fn a_damaged_volume_is_no_obstacle() {
    let host = Host::new();
    let (_dir, file, saved) = saved_of(&host);
    let path = host.conf.conf_volume_path().unwrap().unwrap();
    SharedFile::open(&path, true).unwrap().write(0, &[0; 4096]).unwrap();
    restored(&host, &file, false, false).unwrap();
    assert_eq!(conf_volume::read(&path).unwrap().encode().unwrap(), saved.members[CONFIGURATION]);
}

#[test]
fn passwords_are_not_shown_and_another_cluster_is_refused() {
    let host = Host::new();
    let (dir, _, mut saved) = saved_of(&host);
    let text = fs::read_to_string(host.paths.hosted_engine_conf()).unwrap();
    saved
        .members
        .insert("host/hosted-engine.conf".to_owned(), format!("{text}password=hunter2\n").into_bytes());
    let file = dir.path().join("secret");
    fs::write(&file, saved.encode().unwrap()).unwrap();
    let plan = restored(&host, &file, false, true).unwrap();
    assert!(plan.contains("  + password=********") && !plan.contains("hunter2"), "{plan}");

    saved.whose.vmid = "another".to_owned();
    fs::write(&file, saved.encode().unwrap()).unwrap();
    let error = restored(&host, &file, false, true).unwrap_err();
    assert!(error.contains("of another hosted engine") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_backup_of_another_host_leaves_this_hosts_files_alone() {
    let host = Host::new();
    let (_dir, _, mut saved) = saved_of(&host);
    saved.whose.host_id = 7;
    fs::write(host.paths.ha_toml(), "[lease]\nadapter = \"file\"\n").unwrap();
    let mut terminal = Terminal::recording();
    let all = changes(&saved, &host.paths, Some(&host.conf), true, &mut terminal).unwrap();
    assert_eq!(all.iter().map(|change| change.what.as_str()).collect::<Vec<_>>(), [""; 0]);
    assert!(terminal.recorded().err.contains("this host's own files stay as they are"));
}

/// The times are those of a host with an I/O time-out of one second.
#[test]
fn nothing_is_restored_while_a_host_writes_its_block() {
    let host = Host::new();
    let (_dir, file, _) = saved_of(&host);
    let shared = conf_volume::read(&change_configuration(&host)).unwrap();
    host.put(3, &block(3, 100, false));
    let (stop, stopped) = mpsc::channel::<()>();
    let refusal = std::thread::scope(|scope| {
        let alive = &host;
        scope.spawn(move || {
            let mut timestamp = 100;
            while stopped.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
                timestamp += 1;
                alive.put(3, &block(3, timestamp, false));
            }
        });
        let refused = restored(&host, &file, false, false);
        drop(stop);
        refused.unwrap_err()
    });
    assert!(refusal.contains("host 3 (h3): it writes its block"), "{refusal}");
    assert!(refusal.contains("Stop the HA services of all hosts first"), "{refusal}");
    let path = host.conf.conf_volume_path().unwrap().unwrap();
    assert!(conf_volume::read(&path).unwrap().same_files(&shared), "nothing was written");
    assert_eq!(host.backups(), 0);

    // One that only looks alive: silent for as long as a living one may be.
    restored(&host, &file, false, false).unwrap();
    assert!(!conf_volume::read(&path).unwrap().same_files(&shared));
}
