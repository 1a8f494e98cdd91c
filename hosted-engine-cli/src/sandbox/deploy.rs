//! Deploys on the sandbox's hosts by the command that operators type: what a host is given before, the answers, the run.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use ha_config::Paths;
use ha_config::atomic::{self, Mode};

use super::cluster::say;
use super::host::Host;
use super::init::{VDSM, program_dir};
use super::layout::{BRIDGE, ENGINE, ENGINE_FQDN, EXPORT, GATEWAY, HostNumber, Layout, PREFIX, STORAGE};
use super::libvirtd;
use super::lun;
use super::power;
use super::state::{Hypervisor, SharedStorage, State};
use crate::deploy::SUCCESS;
use crate::deploy::answers::{Answers, Value};
use crate::deploy::questions::keys;

/// Size of the engine VM's disk, in GiB: the least that a deployment makes. The guest writes little of it.
const DISK_GIB: i64 = 1;
/// Memory of the engine VM, in MB: what the small guest needs.
const MEMORY_MB: i64 = 128;
/// Where a host has its answers.
const ANSWERS: &str = "/root/answers.conf";
/// Where the first host has the ha.toml that all hosts get.
const HA_TOML: &str = "/root/ha.toml";
/// The hosts may have no KVM, which VDSM insists on unless it is told not to.
const VDSM_CONF: &str = "[vars]\nfake_kvm_support = true\n";
/// What the engine VM boots from.
pub(super) const GUEST_FILES: [&str; 2] = ["vmlinuz", "initramfs"];

/// What whoever runs the VM needs on a host before its first boot: of VDSM its certificate, and its word that it may do
/// without KVM.
pub fn install(layout: &Layout, state: &State, number: HostNumber) -> anyhow::Result<()> {
    match state.hypervisor {
        Hypervisor::Qemu | Hypervisor::Libvirt => return Ok(()),
        Hypervisor::Vdsm => {}
    }
    make_certificates(layout, number)?;
    let conf = layout.host(number).vdsm_conf();
    fs::create_dir_all(conf.parent().unwrap_or(Path::new("/")))
        .and_then(|()| fs::write(&conf, VDSM_CONF))
        .with_context(|| format!("cannot write {}", conf.display()))
}

/// What a host has before anything is deployed on it: the guest's files, the password of the power switches, and the
/// answers that deploying on it asks for.
pub fn prepare(layout: &Layout, state: &State, number: HostNumber) -> anyhow::Result<()> {
    let paths = layout.host(number);
    install_guest(state, &paths)?;
    if state.fencing {
        power::install_password(layout, &paths)?;
    }
    let home = paths.root().join("root");
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    if number == HostNumber(1) {
        let ha_toml = paths.resolve(HA_TOML);
        atomic::write(&ha_toml, ha_toml_of(state).as_bytes(), Mode::Private)?;
    }
    Ok(answers(layout, state, number).save(&paths.resolve(ANSWERS))?)
}

/// What is typed on a host to deploy on it: the first one makes the cluster, others join it.
pub fn words(layout: &Layout, state: &State, number: HostNumber) -> Vec<String> {
    let mut words = vec!["--deploy".to_owned()];
    if number != HostNumber(1) {
        let storage = match state.storage {
            SharedStorage::Folder => folder(state.hypervisor).1,
            SharedStorage::Lvm => lun::KIND,
        };
        words.extend(["--join".to_owned(), storage.to_owned()]);
    }
    let answers = answers_file(layout);
    words.extend([format!("--config-append={}", answers.display()), "--yes".to_owned()]);
    words
}

/// Deploys on a host by the command that operators type; says each line as it comes.
pub fn run(host: &Host, state: &State) -> anyhow::Result<()> {
    let this = std::env::current_exe().context("cannot tell where this program is")?;
    let typed: Vec<OsString> =
        words(&host.layout, state, host.number).into_iter().map(OsString::from).collect();
    let (reader, writer) = std::io::pipe()?;
    let mut command = host.command(&[&[this.into_os_string()], &typed[..]].concat())?;
    let spawned = command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn();
    // It keeps the writing end, whose last owner's end is the end of what is read.
    drop(command);
    let mut child = spawned.context("cannot run nsenter (util-linux)")?;
    let mut is_over = false;
    for line in BufReader::new(reader).lines() {
        let line = line?;
        // Afterwards it shows --vm-status, which is shown once for all when the engine is good.
        if !is_over {
            say(&format!("host {}: {line}", host.number));
        }
        is_over |= line.ends_with(SUCCESS);
    }
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "cannot deploy on host {} ({status}); why is said above", host.number);
    Ok(())
}

/// The answer file of a host, seen from inside it.
pub fn answers_file(layout: &Layout) -> PathBuf {
    layout.inside().resolve(ANSWERS)
}

/// The shared folder in the words of the dialogue: its type and its connection.
const fn folder(hypervisor: Hypervisor) -> (&'static str, &'static str) {
    match hypervisor {
        Hypervisor::Qemu | Hypervisor::Libvirt => ("directory", STORAGE),
        // VDSM uses no directory of a host alone.
        Hypervisor::Vdsm => ("nfs", EXPORT),
    }
}

/// What differs from what the command proposes.
fn answers(layout: &Layout, state: &State, number: HostNumber) -> Answers {
    let mut answers = Answers::default();
    let text = |text: &str| Value::Text(text.to_owned());
    // Hosts that join at the same time would be proposed the same number.
    answers.set(keys::HOST_ID, Value::Integer(number.0.into()));
    answers.set(keys::OPEN_FIREWALL, Value::Bool(false));
    if number != HostNumber(1) {
        return answers;
    }
    match state.storage {
        SharedStorage::Folder => {
            let (domain_type, connection) = folder(state.hypervisor);
            answers.set(keys::DOMAIN_TYPE, text(domain_type));
            answers.set(keys::CONNECTION, text(connection));
        }
        SharedStorage::Lvm => {
            answers.set(keys::DOMAIN_TYPE, text(lun::KIND));
            answers.set(keys::LUN, text(lun::DEVICE));
        }
    }
    answers.set(keys::BRIDGE, text(BRIDGE));
    answers.set(keys::GATEWAY, text(&GATEWAY.to_string()));
    answers.set(keys::FQDN, text(ENGINE_FQDN));
    answers.set(keys::HA_TOML, text(&layout.inside().resolve(HA_TOML).display().to_string()));
    let [kernel, initrd] = GUEST_FILES.map(|file| state.guest.join(file).display().to_string());
    answers.set(keys::KERNEL, Value::Text(kernel));
    answers.set(keys::INITRD, Value::Text(initrd));
    answers.set(keys::KERNEL_ARGS, Value::Text(kernel_args()));
    answers.set(keys::VCPUS, Value::Integer(1));
    answers.set(keys::DISK_GIB, Value::Integer(DISK_GIB));
    answers.set(keys::MEMORY_MB, Value::Integer(MEMORY_MB));
    answers
}

/// The host's certificate, by the authority of all hosts.
fn make_certificates(layout: &Layout, number: HostNumber) -> anyhow::Result<()> {
    let program = program_dir()?.join(VDSM);
    let output = Command::new(&program)
        .arg("make-certificates")
        .arg(layout.host(number).root().join("etc/pki/vdsm"))
        .arg("--authority")
        .arg(layout.authority())
        .args(["--name", &number.name(), "--also", &number.address().to_string()])
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "no certificates for host {number}: {}", said.trim());
    Ok(())
}

/// Puts the guest's files where vm.conf names them, under this host's root.
fn install_guest(state: &State, paths: &Paths) -> anyhow::Result<()> {
    let directory = paths.resolve(&state.guest);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for file in GUEST_FILES {
        let (from, to) = (state.guest.join(file), directory.join(file));
        fs::copy(&from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

fn kernel_args() -> String {
    format!("console=ttyS0 quiet panic=1 engine.ip={ENGINE}/{PREFIX} engine.gw={GATEWAY}")
}

/// ha.toml of all hosts.
fn ha_toml_of(state: &State) -> String {
    format!(
        "# Written by `hosted-engine sandbox up`.\n\n\
         [vm]\nhypervisor = \"{}\"\n\n\
         [lease]\nio_timeout = {}\n\n\
         [timers]\nstorage_deadline = {}\nengine_start = {}\n\n\
         [score]\nprofile = \"founding\"\n{}{}",
        state.hypervisor,
        state.io_timeout,
        // As the rules between the times want it, for every io_timeout that the sandbox takes.
        state.io_timeout.saturating_mul(4).min(15),
        state.io_timeout.saturating_mul(8).saturating_add(100).max(180),
        match state.hypervisor {
            Hypervisor::Qemu | Hypervisor::Vdsm => String::new(),
            Hypervisor::Libvirt => {
                format!("\n[libvirt]\nmigrate_uri = \"{}\"\n", libvirtd::MIGRATE_URI)
            }
        },
        power::settings(state),
    )
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;
    use ha_config::HaToml;

    use super::*;

    fn state() -> State {
        State {
            hosts: 3,
            io_timeout: 3,
            guest: "/guest".into(),
            hypervisor: Hypervisor::Qemu,
            storage: SharedStorage::Folder,
            watchdog: false,
            fencing: true,
            cgroup: None,
        }
    }

    #[test]
    fn the_daemons_accept_the_times_for_every_io_timeout() {
        for io_timeout in 1..=60 {
            for hypervisor in Hypervisor::value_variants() {
                let state = State { io_timeout, hypervisor: *hypervisor, ..state() };
                let toml = HaToml::parse(&Paths::default(), &ha_toml_of(&state)).unwrap();
                assert_eq!(toml.lease.io_timeout, io_timeout);
                assert_eq!((toml.fencing.enabled, toml.fencing.host.len()), (true, 3));
            }
        }
    }

    #[test]
    fn each_kind_of_storage_is_named_to_the_first_host_and_found_by_the_others() {
        let layout = Layout::new(std::path::Path::new("/sb")).unwrap();
        let (first, second) = (HostNumber(1), HostNumber(2));
        for (storage, place, join) in [
            (SharedStorage::Folder, (keys::CONNECTION, "/storage"), "--deploy --join /storage "),
            (SharedStorage::Lvm, (keys::LUN, "/dev/sandbox-lun"), "--deploy --join fc "),
        ] {
            let state = State { storage, ..state() };
            let all = answers(&layout, &state, first);
            assert_eq!(all.get(place.0), Some(&Value::Text(place.1.to_owned())));
            assert!(words(&layout, &state, second).join(" ").starts_with(join));
            let all = answers(&layout, &state, second);
            assert!(
                [keys::DOMAIN_TYPE, keys::CONNECTION, keys::LUN].iter().all(|key| all.get(key).is_none())
            );
        }
    }
}
