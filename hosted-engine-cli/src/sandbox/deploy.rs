//! Deploys the cluster on the sandbox's hosts with the product's own deployment, whose answers are given here. Runs inside
//! a host, where its storage is mounted.

use std::process::Command;

use anyhow::Context;
use clock::{Clock, SystemClock};
use ha_config::{DomainType, HostedEngineConf, Paths, ha_toml};
use metadata_format::HostId;
use uuid::Uuid;

use super::init::{VDSM, program_dir};
use super::layout::{BRIDGE, ENGINE, ENGINE_FQDN, GATEWAY, HostNumber, Layout, PREFIX, STORAGE};
use super::libvirtd;
use super::lun;
use super::power;
use super::state::{Hypervisor, SharedStorage, State};
use crate::cli::OpenVm;
use crate::deploy::{
    Boot, BridgeOrigin, Engine, Family, FirstHost, FurtherHost, Hands, HostIdentity, Ids, Installed, Logged,
    Lun, Network, Request, Secrets, Storage, StorageKind, Told, Vm, service_manager,
};
use crate::setup::{
    ClusterSpec, DiskSource, HostSpec, Lines, StorageSpec, VmSpec, configure_host, create_storage,
    find_cluster,
};
use crate::terminal::Terminal;

/// Size of the engine VM's disk, in GiB: the least that a deployment makes. The guest writes little of it.
const DISK_GIB: u64 = 1;
/// Memory of the engine VM, in MB: what the small guest needs.
const MEMORY_MB: u64 = 128;
/// What the engine VM boots from.
pub(super) const GUEST_FILES: [&str; 2] = ["vmlinuz", "initramfs"];

/// On the first host: makes the storage and the engine VM. On every host: makes it a member.
pub fn deploy(layout: &Layout, number: HostNumber, open_vm: &OpenVm) -> anyhow::Result<()> {
    let paths = layout.inside();
    let state = State::load(layout)?;
    prepare(layout, &state, number)?;
    if state.hypervisor == Hypervisor::Vdsm {
        return with_vdsm(layout, &state, number);
    }
    let request = request(layout, &state, number)?;
    let told = Told::new(&paths, Terminal::default())?;
    let tools = Logged { tools: &Installed, told: &told };
    let services = service_manager(&paths, &tools);
    let hands = Hands { paths: &paths, tools: &tools, report: &told, services: services.as_ref(), open_vm };
    Ok(hands.begin(request, &Secrets::default(), None)?)
}

/// What a host has before anything is deployed on it: the guest's files, the password of the power switches.
pub fn prepare(layout: &Layout, state: &State, number: HostNumber) -> anyhow::Result<()> {
    let paths = layout.inside();
    install_guest(state, &paths)?;
    if state.hypervisor == Hypervisor::Vdsm {
        make_certificates(layout, number)?;
    }
    if state.fencing {
        power::install_password(layout, &paths)?;
    }
    Ok(())
}

/// The answers: the first host makes the cluster, others join it.
pub fn request(layout: &Layout, state: &State, number: HostNumber) -> anyhow::Result<Request> {
    let (kind, connection, lun) = match state.storage {
        // Mounted by somebody else.
        SharedStorage::Folder => (StorageKind::Directory, STORAGE.to_owned(), None),
        SharedStorage::Lvm => {
            (StorageKind::Fc, String::new(), Some(Lun { id: lun::DEVICE.to_owned(), bytes: 0 }))
        }
    };
    let storage = Storage { kind, connection, mount_options: String::new(), iscsi: None, lun };
    let network = Network {
        bridge: BRIDGE.to_owned(),
        origin: BridgeOrigin::Adopted,
        gateway: Some(GATEWAY.into()),
        test: "ping".to_owned(),
        tcp_target: None,
        open_firewall: false,
    };
    let host = HostIdentity { id: number.0.into(), name: number.name() };
    if number != HostNumber(1) {
        let conf = match state.storage {
            SharedStorage::Folder => find_cluster(&layout.inside(), &storage_spec(state))
                .context("the storage")?
                .parsed(&layout.inside()),
            // There is one; a look at the LUN would only find its name.
            SharedStorage::Lvm => HostedEngineConf::load(&layout.host(HostNumber(1)))?,
        };
        let sd_uuid = Uuid::try_parse(conf.sd_uuid()?)?;
        return Ok(Request::FurtherHost(Box::new(FurtherHost { storage, network, host, sd_uuid })));
    }
    let ClusterSpec { vm, ha_toml, .. } = cluster(state);
    Ok(Request::FirstHost(Box::new(FirstHost {
        hypervisor: match state.hypervisor {
            Hypervisor::Qemu => ha_toml::Hypervisor::Qemu,
            Hypervisor::Libvirt => ha_toml::Hypervisor::Libvirt,
            Hypervisor::Vdsm => ha_toml::Hypervisor::Vdsm,
        },
        family: Family::V4,
        storage,
        domain_name: "hosted_storage".to_owned(),
        datacenter: "hosted_datacenter".to_owned(),
        network,
        vm: Vm {
            boot: Boot::Disk(None),
            disk_gib: DISK_GIB,
            memory_mb: vm.memory_mb,
            vcpus: vm.vcpus,
            mac: vm.mac,
            console: vm.graphics,
            machine: vm.machine,
            cpu: vm.cpu,
            kernel: vm.kernel.map(|kernel| (kernel, vm.initrd, vm.kernel_args.unwrap_or_default())),
            seed: None,
        },
        engine: Engine { fqdn: ENGINE_FQDN.to_owned(), host_name: "hosted_engine_1".to_owned() },
        host,
        ids: Ids::draw(),
        ha_toml,
    })))
}

fn storage_spec(state: &State) -> StorageSpec {
    StorageSpec {
        domain_type: match state.hypervisor {
            // Mounted by somebody else.
            Hypervisor::Qemu | Hypervisor::Libvirt => DomainType::Posixfs,
            // VDSM's stand-in looks whether it is mounted, by the names that NFS has.
            Hypervisor::Vdsm => DomainType::Nfs,
        },
        storage: STORAGE.to_owned(),
        name: "hosted_storage".to_owned(),
        disk: DiskSource::Empty(DISK_GIB << 30),
    }
}

/// Where VDSM manages the host its volumes are not made through it yet: the storage as VDSM would have it, and the files.
/// The daemons are started from outside.
fn with_vdsm(layout: &Layout, state: &State, number: HostNumber) -> anyhow::Result<()> {
    let (paths, storage) = (layout.inside(), storage_spec(state));
    if number == HostNumber(1) {
        let now = u64::try_from(SystemClock.wall().0).unwrap_or(0);
        create_storage(&paths, &storage, &cluster(state), now, &Lines)
            .context("cannot set the storage up")?;
    }
    let cluster = find_cluster(&paths, &storage).context("cannot find the cluster on the storage")?;
    let host = HostSpec { host_id: HostId::new(number.0.into())?, hostname: number.name() };
    configure_host(&paths, &cluster, &host, &Lines).context("cannot configure this host")
}

/// The host's certificate, by the authority of all hosts.
fn make_certificates(layout: &Layout, number: HostNumber) -> anyhow::Result<()> {
    let program = program_dir()?.join(VDSM);
    let output = Command::new(&program)
        .arg("make-certificates")
        .arg(layout.inside().root().join("etc/pki/vdsm"))
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

fn cluster(state: &State) -> ClusterSpec {
    let vm = VmSpec {
        memory_mb: MEMORY_MB,
        vcpus: 1,
        kernel: Some(state.guest.join(GUEST_FILES[0])),
        initrd: Some(state.guest.join(GUEST_FILES[1])),
        kernel_args: Some(format!(
            "console=ttyS0 quiet panic=1 engine.ip={ENGINE}/{PREFIX} engine.gw={GATEWAY}"
        )),
        ..VmSpec::new()
    };
    ClusterSpec {
        fqdn: ENGINE_FQDN.to_owned(),
        bridge: BRIDGE.to_owned(),
        gateway: Some(GATEWAY.to_string()),
        network_test: "ping".to_owned(),
        tcp_target: None,
        vm,
        ha_toml: format!(
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
        ),
    }
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
                    storage: SharedStorage::Folder,
                    watchdog: false,
                    fencing: true,
                    cgroup: None,
                };
                let toml = HaToml::parse(&Paths::default(), &cluster(&state).ha_toml).unwrap();
                assert_eq!(toml.lease.io_timeout, io_timeout);
                assert_eq!((toml.fencing.enabled, toml.fencing.host.len()), (true, 3));
            }
        }
    }
}
