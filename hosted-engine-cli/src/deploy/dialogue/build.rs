//! The request, from answers that were accepted one by one.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use ha_config::ha_toml::Hypervisor;
use uuid::Uuid;

use super::DialogueError;
use crate::deploy::questions::{self, Known, keys};
use crate::deploy::{
    Boot, BridgeOrigin, Engine, FirstHost, FurtherHost, HostIdentity, Ids, Iscsi, Lun, Network, Request,
    Secrets, Seed, Storage, StorageKind, Vm,
};

type Result<T> = std::result::Result<T, DialogueError>;

/// What is to be done.
pub(super) fn request(known: &Known<'_>) -> Result<Request> {
    if known.is_join() {
        let host = FurtherHost {
            hypervisor: hypervisor(known)
                .unwrap_or_else(|_| crate::deploy::vdsm::hypervisor_here(known.paths)),
            storage: storage(known)?,
            network: network(known)?,
            host: host(known)?,
            sd_uuid: parsed::<Uuid>(known, keys::STORAGE_DOMAIN)?,
            moves: None,
        };
        return Ok(Request::FurtherHost(Box::new(host)));
    }
    let hypervisor = hypervisor(known)?;
    let host = FirstHost {
        hypervisor,
        family: known.family(),
        storage: storage(known)?,
        domain_name: text(known, keys::DOMAIN_NAME)?,
        datacenter: text(known, keys::DATACENTER)?,
        network: network(known)?,
        vm: vm(known)?,
        engine: Engine { fqdn: text(known, keys::FQDN)?, host_name: text(known, keys::APP_HOST_NAME)? },
        host: host(known)?,
        ids: Ids::draw(),
        ha_toml: ha_toml(known, hypervisor)?,
        moves: None,
    };
    Ok(Request::FirstHost(Box::new(host)))
}

/// The passwords that were given.
pub(super) fn secrets(known: &Known<'_>) -> Secrets {
    let secret = |key| known.secrets.get(key).cloned();
    Secrets {
        iscsi: secret(keys::ISCSI_PASSWORD),
        iscsi_discovery: secret(keys::DISCOVERY_PASSWORD),
        vm_root: secret(keys::ROOT_PASSWORD),
        engine_admin: secret(keys::ADMIN_PASSWORD),
    }
}

/// The storage, as far as it is answered by now.
pub(super) fn storage(known: &Known<'_>) -> Result<Storage> {
    let word = text(known, keys::DOMAIN_TYPE)?;
    let kind = StorageKind::from_str(&word, false).map_err(|_| unusable(known, keys::DOMAIN_TYPE))?;
    let connection = match kind {
        StorageKind::Iscsi => text(known, keys::PORTALS)?,
        StorageKind::Fc => String::new(),
        _ => text(known, keys::CONNECTION)?,
    };
    let iscsi = match kind {
        StorageKind::Iscsi => Some(iscsi(known)?),
        _ => None,
    };
    let lun = known.get(keys::LUN).filter(|_| known.is_block()).map(|id| {
        let device = known.found.devices.iter().find(|device| device.id == id);
        // One that is not in the list was refused.
        Lun { id: id.to_owned(), bytes: device.map_or(0, |device| device.bytes) }
    });
    let mount_options = known.get(keys::MOUNT_OPTIONS).unwrap_or_default().to_owned();
    Ok(Storage { kind, connection, mount_options, iscsi, lun })
}

fn iscsi(known: &Known<'_>) -> Result<Iscsi> {
    let portals = known.get(keys::PORTALS).map_or(1, |portals| questions::list(portals).count());
    let ports = known.get(keys::PORTS).unwrap_or("3260");
    let mut ports: Vec<u16> = questions::list(ports)
        .map(|port| port.parse().map_err(|_| unusable(known, keys::PORTS)))
        .collect::<Result<_>>()?;
    if let [only] = ports[..] {
        ports.resize(portals, only);
    }
    Ok(Iscsi {
        // Before the discovery it is not known yet.
        target: known.get(keys::TARGET).unwrap_or_default().to_owned(),
        tpgt: optional(known, keys::TPGT)?.unwrap_or(1),
        ports,
        user: known.get(keys::ISCSI_USER).map(str::to_owned),
        discovery_user: known.get(keys::DISCOVERY_USER).map(str::to_owned),
    })
}

fn network(known: &Known<'_>) -> Result<Network> {
    let bridge = known.bridge().ok_or_else(|| unusable(known, keys::BRIDGE))?.to_owned();
    let origin = match known.get(keys::NIC) {
        Some(nic) => BridgeOrigin::Over(nic.to_owned()),
        None => BridgeOrigin::Adopted,
    };
    let open_firewall = known.is_yes(keys::OPEN_FIREWALL);
    if let Some(cluster) = known.cluster().filter(|_| known.is_join()) {
        return Ok(Network {
            bridge,
            origin,
            gateway: cluster.gateway,
            test: cluster.test.clone(),
            tcp_target: cluster.tcp_target.clone(),
            open_firewall,
        });
    }
    let tcp_target = match known.get(keys::TCP_ADDRESS) {
        Some(address) => Some((address.to_owned(), parsed(known, keys::TCP_PORT)?)),
        None => None,
    };
    let gateway = optional::<IpAddr>(known, keys::GATEWAY)?;
    Ok(Network { bridge, origin, gateway, test: text(known, keys::NETWORK_TEST)?, tcp_target, open_firewall })
}

fn vm(known: &Known<'_>) -> Result<Vm> {
    let boot = match known.get(keys::BOOT) {
        Some("cdrom") => Boot::Cdrom(PathBuf::from(text(known, keys::CDROM)?)),
        Some("pxe") => Boot::Pxe,
        Some("disk") => Boot::Disk(known.get(keys::IMAGE).map(PathBuf::from)),
        _ => return Err(unusable(known, keys::BOOT)),
    };
    let kernel = known.get(keys::KERNEL).map(|kernel| {
        let initrd = known.get(keys::INITRD).map(PathBuf::from);
        (PathBuf::from(kernel), initrd, known.get(keys::KERNEL_ARGS).unwrap_or_default().to_owned())
    });
    let own = |key| known.get(key).map(str::to_owned);
    Ok(Vm {
        boot,
        disk_gib: parsed(known, keys::DISK_GIB)?,
        memory_mb: parsed(known, keys::MEMORY_MB)?,
        vcpus: parsed(known, keys::VCPUS)?,
        mac: text(known, keys::MAC)?,
        console: text(known, keys::CONSOLE)?,
        machine: own(keys::MACHINE),
        cpu: own(keys::CPU),
        kernel,
        seed: if known.is(keys::CLOUD_INIT, "generate") { Some(seed(known)?) } else { None },
    })
}

fn seed(known: &Known<'_>) -> Result<Seed> {
    let own = |key| known.get(key).map(str::to_owned);
    let dns = known.get(keys::VM_DNS).unwrap_or_default();
    Ok(Seed {
        hostname: own(keys::VM_HOSTNAME),
        ssh_keys: known.get(keys::SSH_KEYS).into_iter().flat_map(str::lines).map(str::to_owned).collect(),
        address: own(keys::VM_ADDRESS),
        gateway: optional(known, keys::VM_GATEWAY)?,
        dns: questions::list(dns)
            .map(|address| address.parse().map_err(|_| unusable(known, keys::VM_DNS)))
            .collect::<Result<_>>()?,
        timezone: own(keys::TIME_ZONE),
    })
}

fn host(known: &Known<'_>) -> Result<HostIdentity> {
    Ok(HostIdentity { id: parsed(known, keys::HOST_ID)?, name: text(known, keys::HOST_NAME)? })
}

fn hypervisor(known: &Known<'_>) -> Result<Hypervisor> {
    [Hypervisor::Qemu, Hypervisor::Libvirt, Hypervisor::Vdsm]
        .into_iter()
        .find(|hypervisor| known.is(keys::HYPERVISOR, questions::word(*hypervisor)))
        .ok_or_else(|| unusable(known, keys::HYPERVISOR))
}

/// ha.toml of all hosts: the operator's with the hypervisor in it, or a new one.
fn ha_toml(known: &Known<'_>, hypervisor: Hypervisor) -> Result<String> {
    if let Some(path) = known.get(keys::HA_TOML) {
        return questions::ha_toml(known, path).map_err(DialogueError::Storage);
    }
    let mut toml =
        "# Written by hosted-engine --deploy. All keys: see the documentation of ha.toml.\n".to_owned();
    // Writing to a String does not fail.
    let _ = write!(toml, "\n[vm]\nhypervisor = \"{}\"\n", questions::word(hypervisor));
    toml += "\n[score]\nprofile = \"founding\"\n";
    Ok(toml)
}

/// The storage for people.
pub(super) fn place(storage: &Storage) -> String {
    match (&storage.lun, storage.connection.as_str()) {
        (Some(lun), _) => lun.id.clone(),
        (None, "") => "this host's disks".to_owned(),
        (None, connection) => Path::new(connection).display().to_string(),
    }
}

fn text(known: &Known<'_>, key: &'static str) -> Result<String> {
    known.get(key).map(str::to_owned).ok_or_else(|| unusable(known, key))
}

fn parsed<T: FromStr>(known: &Known<'_>, key: &'static str) -> Result<T> {
    optional(known, key)?.ok_or_else(|| unusable(known, key))
}

fn optional<T: FromStr>(known: &Known<'_>, key: &'static str) -> Result<Option<T>> {
    known.get(key).map(|text| text.parse().map_err(|_| unusable(known, key))).transpose()
}

fn unusable(known: &Known<'_>, key: &'static str) -> DialogueError {
    DialogueError::Unusable { key, text: known.get(key).unwrap_or_default().to_owned() }
}
