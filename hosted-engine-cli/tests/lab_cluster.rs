//! The whole product on three sandbox hosts with real sanlock daemons, real QEMU and a real guest: what it must do
//! when something dies, and what it must say when it reads rubbish. Needs root, sanlock, QEMU, iproute2, util-linux,
//! the guest that etc/sandbox/build-guest makes, and the daemons and vdsm-stand-in built beside `hosted-engine`.
//!
//! One cluster of each kind serves all its parts, for it takes over a minute to come up. Each part leaves the engine
//! healthy.

mod cluster;
mod sandbox;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use ha_config::{HostedEngineConf, Paths, conf_archive};
use ha_tests::wait;
use metadata_format::{BLOCK_SIZE, block_offset};
use sandbox::Sandbox;
use serde_json::Value;

/// All hosts of a cluster.
const HOSTS: [&str; 3] = ["1", "2", "3"];
/// Other hosts read a changed block within one of their brokers' cycles of 2 s; the machine may be busy.
const SEEN: Duration = Duration::from_mins(1);
/// A VM boots, and agents that were started anew watch the others for a minute.
const WELL: Duration = Duration::from_mins(3);

#[test]
fn a_cluster_keeps_one_vm_alive_and_explains_what_is_wrong() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["up"]);
    all_hosts_are_live_and_one_runs_the_engine(&sandbox);
    every_lease_and_its_owner_is_shown(&sandbox);
    faults_end_with_a_good_engine_and_never_two_vms(&sandbox);
    bad_blocks_cost_only_their_own_rows(&sandbox);
    a_truncated_metadata_file_is_said_and_survived(&sandbox);
    wrong_configuration_is_named(&sandbox);
    cluster::a_host_without_the_vm_loses_its_storage_for_a_while(&sandbox);
    cluster::the_vm_runs_under_a_lease_of_the_volume_and_under_its_disks_again(&sandbox);
    all_hosts_are_live_and_one_runs_the_engine(&sandbox);
    cluster::the_host_with_the_vm_is_taken_out(&sandbox);
    sandbox.ok(&["down"]);
    assert_eq!(sandbox.left_overs(), [""; 0]);
}

/// On hosts of oVirt the VM is VDSM's: the same promises, with VDSM's stand-in on each host.
#[test]
fn a_cluster_on_vdsm_keeps_one_vm_alive() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["up", "--hypervisor", "vdsm"]);
    all_hosts_are_live_and_one_runs_the_engine(&sandbox);
    play(&sandbox, "kill-vm", Harm::Sure);
    play(&sandbox, "local-maintenance", Harm::Sure);
    // The gateway's absence is acted on after more than half a minute: until then the death of every VDSM, which is
    // started again after 5 s, must have done nothing to the VM.
    for host in HOSTS {
        sandbox.ok(&["kill-daemon", host, "vdsm"]);
    }
    let story = play(&sandbox, "cut-gateway", Harm::Sure);
    // A guest that a busy machine keeps from speaking has not stood still.
    let mut events = story.split("; ").filter(|event| !event.contains("stood still for 0.000 s"));
    let first: Option<f64> = events.find_map(|event| event.split_once(':')?.0.parse().ok());
    assert!(first.is_some_and(|seconds| seconds > 20.0), "{story}");
    play(&sandbox, "kill-host", Harm::Sure);
    is_good_again(&sandbox);
    the_engines_own_description_of_its_vm_is_brought(&sandbox);
    cluster::a_host_of_vdsm_without_the_vm_is_taken_out(&sandbox);
    sandbox.ok(&["down"]);
    assert_eq!(sandbox.left_overs(), [""; 0]);
}

/// Where libvirt runs the VM: the same promises, with a real libvirtd on each host.
#[cfg(feature = "libvirt")]
#[test]
fn a_cluster_on_libvirt_keeps_one_vm_alive() {
    let sandbox = Sandbox::new();
    // Fencing is on throughout: nobody may be powered off for less than a death.
    let said = sandbox.ok(&["up", "--hypervisor", "libvirt", "--fencing"]);
    assert!(said.contains("lock_manager = \"sanlock\": "), "set-up tells what it changed, and why: {said}");
    all_hosts_are_live_and_one_runs_the_engine(&sandbox);
    play(&sandbox, "kill-vm", Harm::Sure);
    play(&sandbox, "kill-libvirtd", Harm::None);
    // It fails unless the same guest goes on. Before the next two: an agent that was started anew sees for a minute no
    // host that could take the VM.
    play(&sandbox, "migrate", Harm::Sure);
    // To these it matters not who runs the VM; the cluster with QEMU takes longest.
    play(&sandbox, "kill-agent", Harm::None);
    play(&sandbox, "kill-broker", Harm::None);
    a_host_that_stands_still_is_powered_off(&sandbox);
    all_hosts_are_live_and_one_runs_the_engine(&sandbox);
    sandbox.ok(&["down"]);
    assert_eq!(sandbox.left_overs(), [""; 0]);
}

/// On block storage the VM's disk is a logical volume, and its lease a place in another one.
#[test]
fn a_cluster_on_lvm_keeps_one_vm_alive() {
    on_lvm("qemu");
}

#[cfg(feature = "libvirt")]
#[test]
fn a_cluster_on_lvm_with_libvirt_keeps_one_vm_alive() {
    on_lvm("libvirt");
}

fn on_lvm(hypervisor: &str) {
    let sandbox = Sandbox::new();
    // A dead host's lease is free 8 s sooner than with the default.
    let said = sandbox.ok(&["up", "--storage", "lvm", "--hypervisor", hypervisor, "--io-timeout", "2"]);
    let answered = |host: u8, text: &str| {
        let begin = format!("host {host}: ");
        said.lines().any(|line| line.contains(&begin) && line.ends_with(text))
    };
    assert!(answered(1, ": /dev/sandbox-lun"), "{said}");
    assert!([2, 3].iter().all(|host| answered(*host, ": (the one with the hosted engine)")), "{said}");
    all_hosts_are_live_and_one_runs_the_engine(&sandbox);
    play(&sandbox, "kill-vm", Harm::Sure);
    // It fails unless the same guest goes on.
    play(&sandbox, "migrate", Harm::Sure);
    // What was active on the host goes with it, and its boot brings it back.
    if hypervisor == "libvirt" {
        // It asks for the lease once QEMU is there: of two survivors one may be refused, and ends a QEMU that never ran.
        let row = row(&sandbox, "kill-host");
        assert!(is_over_soon(&row[3]) && row[5] == "one at a time", "{row:?}");
    } else {
        play(&sandbox, "kill-host", Harm::Sure);
    }
    is_good_again(&sandbox);
    for host in HOSTS {
        let said = sandbox.ok(&["exec", host, "hosted-engine", "--connect-storage"]);
        // Nothing is left to do for it.
        assert!(said.starts_with("The storage domain is connected: its volumes are active at "), "{said}");
    }
    sandbox.ok(&["down"]);
    assert_eq!(sandbox.left_overs(), [""; 0]);
}

/// The scenario itself fails unless one host did it, once, and both displays tell of it.
#[cfg(feature = "libvirt")]
fn a_host_that_stands_still_is_powered_off(sandbox: &Sandbox) {
    let row = row(sandbox, "fence");
    assert!(is_over_soon(&row[3]) && row[5] == "one at a time", "{row:?}");
    let story = &row[6];
    let steps = ["claims the deed", "off asked", "is without power", "off, confirmed"];
    let places: Vec<_> = steps.iter().map(|step| story.find(step)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{story}");
    let started = story.find("QEMU starts on host").expect("the VM is back");
    assert!(story.find("the lease can be taken").is_some_and(|free| free < started), "{story}");
}

/// As the engine does it: an `OVF_STORE` volume appears in the storage domain. An agent looks for it at its start.
fn the_engines_own_description_of_its_vm_is_brought(sandbox: &Sandbox) {
    const IMAGE: &str = "0d2f7c9b-e113-4b1d-9a0e-93c44f578a6e";
    const VOLUME: &str = "1e3a8dac-f224-4c2e-8b1f-a4d55a689b7f";
    let conf = HostedEngineConf::load(&Paths::new(sandbox.dir().join("h1"))).expect("host 1 is deployed");
    let (domain, vm) = (conf.sd_uuid().expect("a domain"), conf.vmid().expect("a VM"));
    let ovf = include_str!("fixtures/engine.ovf")
        .replace("@VM@", vm)
        .replace("@DOMAIN@", domain)
        .replace("@IMAGE@", conf.file().get("vm_disk_id").expect("an image"))
        .replace("@VOLUME@", conf.vm_disk_vol_id().expect("a volume"));
    let archive = conf_archive::write(&[(&format!("{vm}.ovf"), ovf.as_bytes())], 0).expect("an archive");
    let description = format!(
        r#"{{"Updated":true,"Disk Description":"OVF_STORE","Storage Domains":[{{"uuid":"{domain}"}}],"Last Updated":"Sat Nov 21 10:11:12 UTC 2026","Size":20480}}"#
    );
    let meta = format!(
        "CAP=134217728\nCTIME=1\nDESCRIPTION={description}\nDISKTYPE=OVFS\nDOMAIN={domain}\nFORMAT=RAW\nGEN=0\n\
         IMAGE={IMAGE}\nLEGALITY=LEGAL\nPUUID=00000000-0000-0000-0000-000000000000\nTYPE=PREALLOCATED\nVOLTYPE=LEAF\nEOF\n"
    );
    let folder = sandbox.dir().join("storage").join(domain).join("images").join(IMAGE);
    fs::create_dir(&folder).expect("the image's folder");
    fs::write(folder.join(VOLUME), archive).expect("the volume");
    fs::write(folder.join(VOLUME).with_extension("meta"), meta).expect("its description");

    let before = fs::read_to_string(conf.vm_conf_path()).expect("vm.conf");
    assert!(before.contains("memSize=128"), "{before}");
    sandbox.ok(&["kill-daemon", "1", "ovirt-ha-agent"]);
    let brought = wait::until("vm.conf from the OVF_STORE", WELL, || {
        let now = fs::read_to_string(conf.vm_conf_path()).expect("vm.conf");
        (now != before).then_some(now)
    });
    assert!(brought.contains("memSize=160") && brought.contains(&format!("vmId={vm}")), "{brought}");
}

fn status(sandbox: &Sandbox, host: &str) -> Value {
    let json = sandbox.ok(&["exec", host, "hosted-engine", "--vm-status", "--json"]);
    serde_json::from_str(&json).expect("JSON")
}

fn text(sandbox: &Sandbox, host: &str) -> String {
    sandbox.ok(&["exec", host, "hosted-engine", "--vm-status"])
}

/// The host with the good engine, if all hosts are live and only one has it, in that host's view. A broker that is being
/// started has none yet.
fn seen_well(sandbox: &Sandbox, seen_from: &str) -> Option<&'static str> {
    let output = sandbox.run(&["exec", seen_from, "hosted-engine", "--vm-status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())?;
    let is_good = |id: &&str| status[*id]["engine-status"]["health"] == "good";
    let mut good = HOSTS.into_iter().filter(is_good);
    let (first, second) = (good.next(), good.next());
    let is_live = |id: &&str| status[*id]["live-data"] == true;
    let is_well = HOSTS.iter().all(is_live) && second.is_none() && status["global_maintenance"] == false;
    first.filter(|_| is_well)
}

/// The host with the engine. Every host knows of it, and of all others: until something changes, one reading tells.
fn all_hosts_are_live_and_one_runs_the_engine(sandbox: &Sandbox) -> &'static str {
    wait::until("each host to see three live rows and one good engine", WELL, || {
        let first = seen_well(sandbox, "1")?;
        ["2", "3"].iter().all(|host| seen_well(sandbox, host) == Some(first)).then_some(first)
    })
}

/// The same in the view of one host: after a restart of daemons, some need a minute to know who is live.
fn is_good_again(sandbox: &Sandbox) -> &'static str {
    wait::until("three live rows and one good engine", WELL, || {
        HOSTS.into_iter().find_map(|host| seen_well(sandbox, host))
    })
}

/// A lock manager counts another host as live only once it saw it renew its lease.
fn every_lease_and_its_owner_is_shown(sandbox: &Sandbox) {
    let engine = all_hosts_are_live_and_one_runs_the_engine(sandbox);
    let (shown, json) = wait::until("host 3's lock manager to know all hosts", SEEN, || {
        let json = sandbox.ok(&["exec", "3", "hosted-engine", "--lease-status", "--json"]);
        let shown: Value = serde_json::from_str(&json).expect("JSON");
        let lockspaces = shown["lockspaces"].as_array().expect("lockspaces");
        let all_live = lockspaces.iter().all(|lockspace| {
            let hosts = lockspace["hosts"].as_array().expect("hosts");
            hosts.len() == HOSTS.len() && hosts.iter().all(|host| host["state"] == "LIVE")
        });
        (!lockspaces.is_empty() && all_live).then_some((shown, json))
    });
    assert_eq!(shown["problems"], serde_json::json!([]), "{json}");
    let lease = &shown["leases"][0]["status"];
    let owner = lease["host_id"].as_u64().map(|id| id.to_string());
    assert_eq!((lease["status"].as_str(), owner.as_deref()), (Some("EXCLUSIVE"), Some(engine)), "{json}");
}

/// What a fault may do to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// Nobody notices.
    #[cfg(feature = "libvirt")]
    None,
    /// It may be away for a while.
    Some,
    /// It is away for a while.
    Sure,
}

/// Each scenario injects one fault and prints a table row: name, hosts, seconds, most QEMUs at once, writers, and what
/// happened.
fn row(sandbox: &Sandbox, name: &str) -> Vec<String> {
    let out = sandbox.ok(&["scenario", name]);
    let row = out.lines().find(|line| line.starts_with(&format!("| {name} |")));
    row.unwrap_or_else(|| panic!("{out}")).split('|').map(|cell| cell.trim().to_owned()).collect()
}

fn is_over_soon(seconds: &str) -> bool {
    seconds.parse::<f64>().is_ok_and(|seconds| seconds < 150.0)
}

/// Plays one and gives what happened.
fn play(sandbox: &Sandbox, name: &str, harm: Harm) -> String {
    let row = row(sandbox, name);
    let undisturbed = row[3] == "undisturbed";
    let expected = match harm {
        #[cfg(feature = "libvirt")]
        Harm::None => undisturbed,
        Harm::Some => undisturbed || is_over_soon(&row[3]),
        Harm::Sure => is_over_soon(&row[3]),
    };
    assert!(expected, "{row:?}");
    assert_eq!((row[4].as_str(), row[5].as_str()), ("1", "one at a time"), "{row:?}");
    row[6].clone()
}

/// The death of a daemon must not be noticed at all.
fn faults_end_with_a_good_engine_and_never_two_vms(sandbox: &Sandbox) {
    for (name, harm) in [
        ("kill-vm", Harm::Sure),
        ("stall-15", Harm::Some),
        ("global-maintenance", Harm::Sure),
        // About 20 s; it fails unless the same guest goes on.
        ("migrate", Harm::Sure),
    ] {
        play(sandbox, name, harm);
    }
}

fn metadata(sandbox: &Sandbox) -> PathBuf {
    let storage = sandbox.dir().join("storage");
    let domain = fs::read_dir(storage).expect("storage").flatten().next().expect("a storage domain").path();
    domain.join("ha_agent/hosted-engine.metadata")
}

fn write_block(file: &File, number: u16, bytes: &[u8]) {
    let mut block = bytes.to_vec();
    block.resize(BLOCK_SIZE, 0);
    file.write_all_at(&block, block_offset(number)).expect("the block is written");
}

fn bad_blocks_cost_only_their_own_rows(sandbox: &Sandbox) {
    all_hosts_are_live_and_one_runs_the_engine(sandbox);
    let file = OpenOptions::new().write(true).open(metadata(sandbox)).expect("the metadata file");
    let mut random = vec![0; BLOCK_SIZE];
    File::open("/dev/urandom")
        .and_then(|urandom| urandom.read_exact_at(&mut random, 0))
        .expect("random bytes");
    random[0] = random[0].max(b'a');
    write_block(&file, 4, &random);
    write_block(&file, 5, b"2|2|100|5|3400|{}|later|0|0|00000000|1|100");
    write_block(&file, 6, b"1|1|100|6|3400|vm-down|\x1b[2J\x1b]0;owned\x07evil|0");

    let shown = wait::until("the three blocks to be seen", SEEN, || {
        let text = text(sandbox, "1");
        ["(id: 4)", "(id: 5)", "(id: 6)"].iter().all(|row| text.contains(row)).then_some(text)
    });
    assert!(
        !shown.contains('\u{1b}') && !shown.contains('\u{7}'),
        "no escape sequence gets through: {shown:?}"
    );
    assert!(shown.contains("too new"), "{shown}");
    let rows = status(sandbox, "1");
    for id in HOSTS {
        assert_eq!(rows[id]["live-data"], true, "host {id} is not affected: {rows}");
    }
    // The sixth is a block like any other, and one that has just appeared counts as a host that lives.
    for id in ["4", "5"] {
        assert_eq!(rows[id]["live-data"], false, "{rows}");
    }
    for number in [4, 5, 6] {
        write_block(&file, number, &[]);
    }
    wait::until("the three blocks to be forgotten, and what was said of them", SEEN, || {
        let forgotten = ["1", "3"].iter().all(|host| {
            let text = text(sandbox, host);
            !text.contains("(id: 4)") && !text.contains("!!")
        });
        forgotten.then_some(())
    });
}

fn a_truncated_metadata_file_is_said_and_survived(sandbox: &Sandbox) {
    let path = metadata(sandbox);
    let file = OpenOptions::new().write(true).open(&path).expect("the metadata file");
    let length = file.metadata().expect("its size").len();
    file.set_len(block_offset(2)).expect("cut");
    let said = wait::until("the broker to say so", SEEN, || {
        let text = text(sandbox, "3");
        text.contains("hosted-engine.metadata").then_some(text)
    });
    assert!(said.contains("!!"), "as a warning, and not in passing: {said}");
    file.set_len(length).expect("grown");
    all_hosts_are_live_and_one_runs_the_engine(sandbox);
}

fn wrong_configuration_is_named(sandbox: &Sandbox) {
    let root = sandbox.dir().join("h3");
    let toml = root.join("etc/ovirt-hosted-engine-ha/ha.toml");
    let kept = fs::read_to_string(&toml).expect("ha.toml");
    fs::write(&toml, kept.replace("storage_deadline", "storage_dedline")).expect("written");
    for program in ["ovirt-ha-agent", "ovirt-ha-broker"] {
        let output = sandbox.run(&["exec", "3", program]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{program}: {said}");
        for part in ["ha.toml", "storage_dedline", "storage_deadline"] {
            assert!(said.contains(part), "{program}: {part:?} in {said}");
        }
    }
    fs::write(&toml, kept).expect("restored");

    let nowhere = tempfile::tempdir().expect("a directory");
    for program in ["ovirt-ha-agent", "ovirt-ha-broker"] {
        let output = sandbox.run(&["exec", "3", program, "--root", &nowhere.path().display().to_string()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{program}: {said}");
        assert!(said.contains("hosted-engine.conf") && said.contains("--deploy"), "{program}: {said}");
    }
}
