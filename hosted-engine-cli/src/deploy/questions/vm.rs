//! The engine VM.

use std::path::Path;

use ha_config::HaToml;
use ha_config::ha_toml::Hypervisor;

use super::{Form, Known, Preset, Question, Section, When, check, keys};
use crate::setup::VmSpec;

/// Memory that a host keeps for itself, in MB.
const HOST_MEMORY_MB: u64 = 512;
/// What an engine needs, in MB.
const ENGINE_MEMORY_MB: u64 = 4096;
/// Room that an engine needs, in GiB.
const ENGINE_DISK_GIB: u64 = 25;

const FIRST_HOST: When = When { words: "on the first host", holds: |known| !known.is_join() };
const KERNEL: When =
    When { words: "with a kernel", holds: |known| !known.is_join() && known.get(keys::KERNEL).is_some() };
const SEED: When = When {
    words: "with cloud-init",
    holds: |known| !known.is_join() && known.is(keys::CLOUD_INIT, "generate"),
};
const STATIC: When = When {
    words: "with a static address",
    holds: |known| (SEED.holds)(known) && known.get(keys::VM_ADDRESS).is_some(),
};
const BASE: Question = Question { section: Section::Vm, when: FIRST_HOST, ..Question::BASE };

/// The questions about the VM.
pub(super) const QUESTIONS: &[Question] = &[
    Question {
        key: keys::HA_TOML,
        label: "ha.toml",
        prompt: "Please specify the file with ha.toml for all hosts",
        explanation: "Timers, policies, notifications that differ from the defaults. It is copied to every host.",
        preset: Preset::Fixed(""),
        check: |known, text| {
            if text.is_empty() {
                return Ok(String::new());
            }
            let path = check::path(text)?;
            ha_toml(known, &path)?;
            Ok(path)
        },
        if_empty: Some("the defaults"),
        is_quiet: true,
        ..BASE
    },
    Question {
        key: keys::HYPERVISOR,
        label: "Hypervisor",
        prompt: "Please specify what runs the VM",
        explanation: "vdsm on hosts that an oVirt engine is to manage. libvirt where it and its sanlock plug-in are \
            installed. qemu needs nothing but QEMU: the VM is started under its lease by the HA services themselves.",
        form: Form::Word(&["qemu", "libvirt", "vdsm"]),
        preset: Preset::From("what ha.toml says; else what is installed, vdsm first", |known| {
            let said = known.get(keys::HA_TOML).and_then(|path| ha_toml(known, path).ok());
            let said =
                said.filter(|text| text.contains("hypervisor")).map(|text| hypervisor_of(known, &text));
            Some(word(said.unwrap_or(known.facts.hypervisor)).to_owned())
        }),
        check: |known, text| {
            if let Some(path) = known.get(keys::HA_TOML) {
                let said = word(hypervisor_of(known, &ha_toml(known, path)?));
                if said != text {
                    return Err(format!("{text:?} is not what {path} says: hypervisor = {said:?} in [vm]"));
                }
            }
            Ok(text.to_owned())
        },
        ..BASE
    },
    Question {
        key: keys::KERNEL,
        label: "Kernel",
        prompt: "Please specify the kernel",
        explanation: "Boots this kernel without a boot loader. The same path on every host.",
        preset: Preset::Fixed(""),
        check: |known, text| {
            if text.is_empty() { Ok(String::new()) } else { file_of_every_host(known, text) }
        },
        if_empty: Some("from the disk"),
        is_quiet: true,
        ..BASE
    },
    Question {
        key: keys::INITRD,
        label: "Initial RAM disk",
        prompt: "Please specify the initial RAM disk",
        explanation: "That of the kernel. The same path on every host.",
        preset: Preset::Fixed(""),
        when: KERNEL,
        check: |known, text| {
            if text.is_empty() { Ok(String::new()) } else { file_of_every_host(known, text) }
        },
        if_empty: Some("none"),
        is_quiet: true,
        ..BASE
    },
    Question {
        key: keys::KERNEL_ARGS,
        label: "Kernel command line",
        prompt: "Please specify the kernel's command line",
        explanation: "As the kernel reads it.",
        preset: Preset::Fixed(""),
        when: KERNEL,
        if_empty: Some("none"),
        is_quiet: true,
        ..BASE
    },
    Question {
        key: keys::BOOT,
        label: "Boot type",
        prompt: "Please specify the device to boot the VM from",
        explanation: "cdrom: you install an operating system and the engine from installation media. pxe: the same \
            from the network. disk: the disk is a copy of an image or appliance.",
        form: Form::Word(&["cdrom", "disk", "pxe"]),
        preset: Preset::From("cdrom; disk with a kernel", |known| {
            Some(if known.get(keys::KERNEL).is_some() { "disk" } else { "cdrom" }.to_owned())
        }),
        check: |known, text| {
            if known.get(keys::KERNEL).is_some() && text != "disk" {
                return Err(format!("{text:?} must be disk: the VM boots a kernel of its own"));
            }
            Ok(text.to_owned())
        },
        ..BASE
    },
    Question {
        key: keys::CDROM,
        label: "Installation media",
        prompt: "Please specify path to installation media you would like to use",
        explanation: "An ISO image on this host, for as long as the installation takes.",
        when: When {
            words: "to boot from cdrom",
            holds: |known| !known.is_join() && known.is(keys::BOOT, "cdrom"),
        },
        check: |known, text| {
            let path = check::path(text)?;
            known.lookups.file(Path::new(&path)).map(|_| path)
        },
        ..BASE
    },
    Question {
        key: keys::IMAGE,
        label: "Disk image",
        prompt: "Please specify path to the disk image or appliance you would like to use",
        explanation: "Raw, qcow2 or OVA; its disk is copied to the shared storage. Only with a kernel the disk may be \
            empty.",
        preset: Preset::From("empty with a kernel", |known| {
            known.get(keys::KERNEL).is_some().then(String::new)
        }),
        when: When {
            words: "to boot from disk",
            holds: |known| !known.is_join() && known.is(keys::BOOT, "disk"),
        },
        check: |known, text| {
            if text.is_empty() {
                return match known.get(keys::KERNEL) {
                    Some(_) => Ok(String::new()),
                    None => Err("an answer is needed: an empty disk boots nothing".to_owned()),
                };
            }
            let path = check::path(text)?;
            known.image_at(&path).map(|_| path)
        },
        if_empty: Some("an empty disk"),
        ..BASE
    },
    Question {
        key: keys::VCPUS,
        label: "Number of CPUs",
        prompt: "Please specify the number of virtual CPUs for the VM",
        explanation: "An engine wants 2 at least, 4 for more than a few hosts. No more than every host has.",
        form: Form::Integer(1, 4096),
        preset: Preset::From("the appliance's; else 2; no more than this host has", |known| {
            let wanted = known.image().and_then(|image| image.vcpus).unwrap_or(2);
            Some(wanted.clamp(1, known.facts.cpus.max(1)).to_string())
        }),
        check: |known, text| {
            if text.parse::<u32>().is_ok_and(|wanted| wanted > known.facts.cpus) {
                return Err(format!("{text} is more than the {} CPUs of this host", known.facts.cpus));
            }
            Ok(text.to_owned())
        },
        ..BASE
    },
    Question {
        key: keys::DISK_GIB,
        label: "Disk size GiB",
        prompt: "Please specify the disk size of the VM in GiB",
        explanation: "25 GiB is the least that an engine needs. A larger image needs a larger disk.",
        form: Form::Integer(1, 65536),
        preset: Preset::From("25, or what the image needs", |known| {
            Some(known.image().map_or(0, |image| image.disk_gib).max(ENGINE_DISK_GIB).to_string())
        }),
        check: |known, text| match (text.parse::<u64>(), known.image(), known.get(keys::IMAGE)) {
            (Ok(wanted), Some(image), Some(path)) if wanted < image.disk_gib => {
                Err(format!("{text} GiB is too small: the disk in {path} needs {} GiB", image.disk_gib))
            }
            _ => Ok(text.to_owned()),
        },
        ..BASE
    },
    Question {
        key: keys::MEMORY_MB,
        label: "Memory size MB",
        prompt: "Please specify the memory size of the VM in MB",
        explanation: "4096 MB is the least that an engine needs, 16384 MB is right for a large one. Every host that is \
            to run the VM needs as much free, and 512 MB for itself.",
        form: Form::Integer(32, 1 << 24),
        preset: Preset::From("the appliance's; else 4096; no more than this host can spare", |known| {
            let wanted = known.image().and_then(|image| image.memory_mb).unwrap_or(ENGINE_MEMORY_MB);
            Some(wanted.min(spare(known)).max(32).to_string())
        }),
        check: |known, text| {
            if text.parse::<u64>().is_ok_and(|wanted| wanted > spare(known)) {
                return Err(format!(
                    "{text} MB is too much: this host has {} MB, and needs {HOST_MEMORY_MB} MB for itself",
                    known.facts.memory_mb
                ));
            }
            Ok(text.to_owned())
        },
        ..BASE
    },
    Question {
        key: keys::MAC,
        label: "MAC address",
        prompt: "You may specify a unicast MAC address for the VM or accept a randomly generated default",
        explanation: "DHCP servers know a VM by it. It stays the same wherever the VM runs.",
        preset: Preset::From("drawn at random from 00:16:3e:…", |known| Some(known.mac.clone())),
        check: |_, text| check::mac(text),
        ..BASE
    },
    Question {
        key: keys::CONSOLE,
        label: "Console type",
        prompt: "Please specify the console type you would like to use to connect to the VM",
        explanation: "How you see the VM's screen while it is installed, and when its network fails.",
        form: Form::Word(&["vnc", "spice", "qxl"]),
        preset: Preset::Fixed("vnc"),
        // The word of vm.conf, which former releases wrote.
        check: |_, text| Ok(if text == "qxl" { "spice" } else { text }.to_owned()),
        ..BASE
    },
    Question {
        key: keys::MACHINE,
        label: "Machine type",
        prompt: "Please specify the machine type",
        explanation: "As QEMU calls it, for example pc-q35-rhel9.4.0; it must exist on every host.",
        preset: Preset::Fixed(""),
        check: |_, text| if text.is_empty() { Ok(String::new()) } else { check::plain_name(text) },
        if_empty: Some("the hypervisor's own"),
        is_quiet: true,
        ..BASE
    },
    Question {
        key: keys::CPU,
        label: "CPU model",
        prompt: "Please specify the CPU model",
        explanation: "The newest that all hosts have, as QEMU calls it, for example Westmere: with another one the VM \
            cannot move between different hosts.",
        preset: Preset::Fixed(""),
        check: |_, text| {
            // libvirt's prefix, which former releases wrote.
            let text = text.strip_prefix("model_").unwrap_or(text);
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,+=".contains(c);
            if text.chars().all(plain) {
                return Ok(text.to_owned());
            }
            Err(format!("{text:?} must be a CPU model, for example Westmere"))
        },
        if_empty: Some("the hypervisor's own"),
        is_quiet: true,
        ..BASE
    },
    Question {
        key: keys::CLOUD_INIT,
        label: "Cloud-init",
        prompt: "Would you like to use cloud-init to customize the VM at its first start?",
        explanation: "generate: the VM gets a second disk with its host name, root's password or key, its address. The \
            image must have cloud-init. skip: nothing.",
        form: Form::Word(&["generate", "skip"]),
        preset: Preset::From("generate for an image; else skip", |known| {
            Some(if known.get(keys::IMAGE).is_some() { "generate" } else { "skip" }.to_owned())
        }),
        ..BASE
    },
    Question {
        key: keys::VM_HOSTNAME,
        label: "VM's host name",
        prompt: "Please provide the host name of the VM",
        explanation: "Empty: the engine's fully qualified domain name.",
        preset: Preset::Fixed(""),
        when: SEED,
        check: |_, text| if text.is_empty() { Ok(String::new()) } else { check::name(text) },
        if_empty: Some("the engine's"),
        is_quiet: true,
        ..BASE
    },
    Question {
        key: keys::ROOT_PASSWORD,
        label: "Root's password",
        prompt: "Enter root's password that will be used for the VM (leave empty for none)",
        explanation: "Without one, root can log in with an SSH key only.",
        form: Form::Secret,
        when: SEED,
        if_empty: Some("none"),
        ..BASE
    },
    Question {
        key: keys::SSH_KEYS,
        label: "Root's SSH key",
        prompt: "Enter an SSH public key for root (leave empty for none)",
        explanation: "One line of a file like /root/.ssh/id_ed25519.pub. An answer file may give several, one a line.",
        form: Form::Lines,
        preset: Preset::Fixed(""),
        when: SEED,
        check: |_, text| check::ssh_keys(text),
        if_empty: Some("none"),
        ..BASE
    },
    Question {
        key: keys::VM_ADDRESS,
        label: "VM's address",
        prompt: "Please enter the IP address to be used for the VM, like 10.0.0.5/24 (leave empty for DHCP)",
        explanation: "The engine's name must resolve to the address that the VM gets.",
        preset: Preset::Fixed(""),
        when: SEED,
        check: vm_address,
        if_empty: Some("by DHCP"),
        ..BASE
    },
    Question {
        key: keys::VM_GATEWAY,
        label: "VM's gateway",
        prompt: "Please enter the gateway of the VM",
        explanation: "An address in the VM's own network.",
        preset: Preset::From("this host's, where it is in the VM's network", |known| {
            let network = check::address_with_prefix(known.get(keys::VM_ADDRESS)?)?;
            let mut gateways = known.facts.gateways.iter().map(|gateway| gateway.address);
            Some(
                gateways
                    .find(|address| check::is_beside(network, *address))
                    .map_or_else(String::new, |a| a.to_string()),
            )
        }),
        when: STATIC,
        check: |known, text| {
            if text.is_empty() {
                return Ok(String::new());
            }
            let text = check::address(text)?;
            let network = known.get(keys::VM_ADDRESS).and_then(check::address_with_prefix);
            match (network, text.parse()) {
                (Some(network), Ok(gateway)) if !check::is_beside(network, gateway) => {
                    Err(format!("{text} is not in the VM's network {}/{}", network.0, network.1))
                }
                _ => Ok(text),
            }
        },
        if_empty: Some("none"),
        ..BASE
    },
    Question {
        key: keys::VM_DNS,
        label: "VM's name servers",
        prompt: "Please provide a comma-separated list of IP addresses of name servers for the VM",
        explanation: "The VM must be able to reach them.",
        preset: Preset::From("this host's", |known| {
            let all: Vec<_> = known.facts.name_servers.iter().map(ToString::to_string).collect();
            Some(all.join(","))
        }),
        when: STATIC,
        check: |_, text| check::addresses(text),
        if_empty: Some("none"),
        ..BASE
    },
    Question {
        key: keys::TIME_ZONE,
        label: "VM's time zone",
        prompt: "Please specify the time zone of the VM",
        explanation: "For example Europe/Prague.",
        preset: Preset::From("this host's", |known| Some(known.facts.time_zone.clone().unwrap_or_default())),
        when: SEED,
        check: |_, text| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-+/".contains(c);
            if text.chars().all(plain) && !text.starts_with('/') {
                return Ok(text.to_owned());
            }
            Err(format!("{text:?} must be a time zone, for example Europe/Prague"))
        },
        if_empty: Some("the image's own"),
        is_quiet: true,
        ..BASE
    },
];

/// A MAC address that nobody has.
pub(super) fn draw_mac() -> String {
    VmSpec::new().mac
}

/// Memory for a VM, in MB; no limit where the host does not say what it has.
fn spare(known: &Known<'_>) -> u64 {
    match known.facts.memory_mb {
        0 => u64::MAX,
        all => all.saturating_sub(HOST_MEMORY_MB),
    }
}

/// The hypervisor by the word of ha.toml.
pub(in crate::deploy) const fn word(hypervisor: Hypervisor) -> &'static str {
    match hypervisor {
        Hypervisor::Qemu => "qemu",
        Hypervisor::Libvirt => "libvirt",
        Hypervisor::Vdsm => "vdsm",
    }
}

/// The text of an ha.toml that is good.
pub(in crate::deploy) fn ha_toml(known: &Known<'_>, path: &str) -> Result<String, String> {
    let text = known.lookups.read(Path::new(path))?;
    HaToml::parse(known.paths, &text)
        .map_err(|error| format!("{path} cannot be the hosts' ha.toml: {error}"))?;
    Ok(text)
}

fn hypervisor_of(known: &Known<'_>, text: &str) -> Hypervisor {
    HaToml::parse(known.paths, text).map_or_else(|_| Hypervisor::default(), |toml| toml.vm.hypervisor)
}

/// A file below this host's root, where the HA services look for it.
fn file_of_every_host(known: &Known<'_>, text: &str) -> Result<String, String> {
    let path = check::path(text)?;
    known.lookups.file(&known.paths.resolve(&path)).map(|_| path)
}

fn vm_address(known: &Known<'_>, text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let (address, prefix) = check::address_with_prefix(text).ok_or_else(|| {
        format!("{text:?} must be an address and the length of its network's prefix, for example 10.0.0.5/24")
    })?;
    if known.facts.addresses.contains(&address) {
        return Err(format!("{address} is this host's own address"));
    }
    Ok(format!("{address}/{prefix}"))
}
