//! Deploys on the sandbox's hosts by the command that operators type: what a host is given before, the answers, the run.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;
use ha_config::atomic::{self, Mode};
use ha_config::{DomainType, Paths, ha_toml};
use uuid::Uuid;

use super::cluster::say;
use super::host::Host;
use super::init::{VDSM, program_dir};
use super::layout::{
    BRIDGE, ENGINE, ENGINE_FQDN, GATEWAY, HostNumber, Layout, PREFIX, STORAGE, STORAGE_OF_VDSM,
};
use super::libvirtd;
use super::power;
use super::services::Service;
use super::state::{Hypervisor, State};
use crate::cli::OpenVm;
use crate::deploy::answers::{Answers, Value};
use crate::deploy::questions::keys;
use crate::deploy::services::ServiceState;
use crate::deploy::{
    Boot, BridgeOrigin, Engine, Family, FirstHost, FurtherHost, Hands, HostIdentity, Ids, Installed, Logged,
    Network, Request, SUCCESS, Secrets, Storage, StorageKind, Told, Vm, service_manager,
};
use crate::setup::{DiskSource, StorageSpec, VmSpec, find_cluster};
use crate::terminal::Terminal;

/// Size of the engine VM's disk, in GiB: the least that a deployment makes. The guest writes little of it.
const DISK_GIB: i64 = 1;
/// Memory of the engine VM, in MB: what the small guest needs.
const MEMORY_MB: i64 = 128;
/// Where a host has its answers.
const ANSWERS: &str = "/root/answers.conf";
/// Where the first host has the ha.toml that all hosts get.
const HA_TOML: &str = "/root/ha.toml";
/// What the engine VM boots from.
pub(super) const GUEST_FILES: [&str; 2] = ["vmlinuz", "initramfs"];

/// What a host has before anything is deployed on it: the guest's files, the password of the power switches, and the
/// answers that deploying on it asks for.
pub fn prepare(layout: &Layout, state: &State, number: HostNumber) -> anyhow::Result<()> {
    let paths = layout.host(number);
    install_guest(state, &paths)?;
    if state.hypervisor == Hypervisor::Vdsm {
        make_certificates(layout, number)?;
    }
    if state.fencing {
        power::install_password(layout, &paths)?;
    }
    let home = paths.root().join("root");
    std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    if number == HostNumber(1) {
        let ha_toml = paths.resolve(HA_TOML);
        atomic::write(&ha_toml, ha_toml_of(state).as_bytes(), Mode::Private)?;
    }
    Ok(answers(layout, state, number).save(&paths.resolve(ANSWERS))?)
}

/// What is typed on a host to deploy on it: the first one makes the cluster, others join it.
pub fn words(layout: &Layout, number: HostNumber) -> Vec<String> {
    let mut words = vec!["--deploy".to_owned()];
    if number != HostNumber(1) {
        words.extend(["--join".to_owned(), STORAGE.to_owned()]);
    }
    let answers = answers_file(layout);
    words.extend([format!("--config-append={}", answers.display()), "--yes".to_owned()]);
    words
}

/// Deploys on a host by the command that operators type; says each line as it comes.
pub fn run(host: &Host, hypervisor: Hypervisor) -> anyhow::Result<()> {
    let this = std::env::current_exe().context("cannot tell where this program is")?;
    let typed: Vec<OsString> = match hypervisor {
        Hypervisor::Qemu | Hypervisor::Libvirt => {
            words(&host.layout, host.number).into_iter().map(OsString::from).collect()
        }
        Hypervisor::Vdsm => {
            let begin = ["sandbox", "deploy-with-vdsm"].map(OsString::from);
            let place = [host.layout.dir().into(), host.number.to_string().into()];
            begin.into_iter().chain(place).collect()
        }
    };
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
    answers.set(keys::DOMAIN_TYPE, text("directory"));
    answers.set(keys::CONNECTION, text(STORAGE));
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

fn storage_spec() -> StorageSpec {
    StorageSpec {
        // VDSM's stand-in looks whether it is mounted, by the names that NFS has.
        domain_type: DomainType::Nfs,
        storage: STORAGE_OF_VDSM.to_owned(),
        name: "hosted_storage".to_owned(),
        disk: DiskSource::Empty(DISK_GIB.unsigned_abs() << 30),
    }
}

/// Where VDSM manages the host: deploys past pre-flight, which rightly misses KVM and a server of NFS there. Runs inside a
/// host, where its storage is mounted.
pub fn with_vdsm(layout: &Layout, number: HostNumber, open_vm: &OpenVm) -> anyhow::Result<()> {
    let paths = layout.inside();
    let state = State::load(layout)?;
    let told = Told::new(&paths, Terminal::default())?;
    let tools = Logged { tools: &Installed, told: &told };
    let services = service_manager(&paths, &tools);
    // A host that VDSM manages has it running before anything is deployed.
    services.set(Service::Vdsm.name(), ServiceState { is_enabled: true, is_active: true })?;
    let request = request_of_vdsm(layout, &state, number)?;
    let hands = Hands { paths: &paths, tools: &tools, report: &told, services: services.as_ref(), open_vm };
    Ok(hands.begin(request, &Secrets::default(), None)?)
}

/// What is to be done on a host with VDSM: the first host makes the cluster, others join it.
fn request_of_vdsm(layout: &Layout, state: &State, number: HostNumber) -> anyhow::Result<Request> {
    let storage = Storage {
        // VDSM's stand-in looks whether it is mounted, by the names that NFS has.
        kind: StorageKind::Nfs,
        connection: STORAGE_OF_VDSM.to_owned(),
        mount_options: String::new(),
        iscsi: None,
        lun: None,
    };
    let network = Network {
        bridge: BRIDGE.to_owned(),
        origin: BridgeOrigin::Adopted,
        gateway: Some(GATEWAY.into()),
        test: "ping".to_owned(),
        tcp_target: None,
        open_firewall: false,
    };
    let host = HostIdentity { id: number.0.into(), name: number.name() };
    let hypervisor = ha_toml::Hypervisor::Vdsm;
    if number != HostNumber(1) {
        let cluster = find_cluster(&layout.inside(), &storage_spec()).context("the storage")?;
        let sd_uuid = Uuid::try_parse(cluster.parsed(&layout.inside()).sd_uuid()?)?;
        let further = FurtherHost { hypervisor, storage, network, host, sd_uuid, moves: None };
        return Ok(Request::FurtherHost(Box::new(further)));
    }
    let vm = VmSpec::new();
    let guest = |file: &str| state.guest.join(file);
    Ok(Request::FirstHost(Box::new(FirstHost {
        hypervisor,
        family: Family::V4,
        storage,
        domain_name: "hosted_storage".to_owned(),
        datacenter: "hosted_datacenter".to_owned(),
        network,
        vm: Vm {
            boot: Boot::Disk(None),
            disk_gib: DISK_GIB.unsigned_abs(),
            memory_mb: MEMORY_MB.unsigned_abs(),
            vcpus: 1,
            mac: vm.mac,
            console: vm.graphics,
            machine: vm.machine,
            cpu: vm.cpu,
            kernel: Some((guest(GUEST_FILES[0]), Some(guest(GUEST_FILES[1])), kernel_args())),
            seed: None,
        },
        engine: Engine { fqdn: ENGINE_FQDN.to_owned(), host_name: "hosted_engine_1".to_owned() },
        host,
        ids: Ids::draw(),
        ha_toml: ha_toml_of(state),
        moves: None,
    })))
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
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for file in GUEST_FILES {
        let (from, to) = (state.guest.join(file), directory.join(file));
        std::fs::copy(&from, &to)
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

    #[test]
    fn the_daemons_accept_the_times_for_every_io_timeout() {
        for io_timeout in 1..=60 {
            for hypervisor in Hypervisor::value_variants() {
                let state = State {
                    hosts: 3,
                    io_timeout,
                    guest: "/guest".into(),
                    hypervisor: *hypervisor,
                    watchdog: false,
                    fencing: true,
                    cgroup: None,
                };
                let toml = HaToml::parse(&Paths::default(), &ha_toml_of(&state)).unwrap();
                assert_eq!(toml.lease.io_timeout, io_timeout);
                assert_eq!((toml.fencing.enabled, toml.fencing.host.len()), (true, 3));
            }
        }
    }
}
