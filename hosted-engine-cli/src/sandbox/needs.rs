//! What a machine needs for the sandbox that is wanted: programs, stand-ins, the guest's files.

use std::path::Path;

use super::cluster::UpOptions;
use super::deploy::GUEST_FILES;
use super::init::{VDSM, WDMD, program_dir};
use super::state::{Hypervisor, SharedStorage};
use super::{libvirtd, lun, power};

/// Refuses with the first thing that is missing, and says how to get it.
pub fn check(options: &UpOptions) -> anyhow::Result<()> {
    let libvirt = (options.hypervisor == Hypervisor::Libvirt)
        .then_some((libvirtd::PROGRAM, "libvirt-daemon libvirt-daemon-driver-qemu libvirt-sanlock"));
    let fencing = if options.fencing { &power::PROGRAMS[..] } else { &[] };
    let lvm = if options.storage == SharedStorage::Lvm { &lun::PROGRAMS[..] } else { &[] };
    for (program, package) in [
        ("ip", "iproute2"),
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("setsid", "util-linux"),
        ("sanlock", "sanlock"),
        ("qemu-system-x86_64", "qemu-system-x86"),
    ]
    .into_iter()
    .chain(libvirt)
    .chain(fencing.iter().copied())
    .chain(lvm.iter().copied())
    {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
        anyhow::ensure!(
            places.any(|dir| dir.join(program).is_file()),
            "{program} is missing; install it with: apt-get install {package}"
        );
    }
    if options.hypervisor == Hypervisor::Vdsm {
        anyhow::ensure!(
            options.storage == SharedStorage::Folder,
            "the stand-in for VDSM knows no block storage: use --storage lvm with --hypervisor qemu or libvirt"
        );
        has_stand_in(VDSM)?;
    }
    if options.watchdog {
        has_stand_in(WDMD)?;
    }
    anyhow::ensure!(
        options.hypervisor != Hypervisor::Libvirt || cfg!(feature = "libvirt"),
        "this hosted-engine was built without libvirt; build all programs with: cargo build --workspace --features \
         hosted-engine-cli/libvirt,ha-broker/libvirt,ha-agent/libvirt (the packages have it)"
    );
    anyhow::ensure!(
        options.bare || has_guest(&options.guest),
        "the guest ({}) is missing in {}; make it with: etc/sandbox/build-guest {1}",
        GUEST_FILES.join(", "),
        options.guest.display()
    );
    Ok(())
}

/// Whether the guest is there: without it nothing can be deployed.
pub fn has_guest(directory: &Path) -> bool {
    GUEST_FILES.iter().all(|file| directory.join(file).is_file())
}

fn has_stand_in(name: &str) -> anyhow::Result<()> {
    let program = program_dir()?.join(name);
    anyhow::ensure!(
        program.is_file(),
        "{} is missing: it belongs to the tests and is never installed; build it beside the other programs with: \
         cargo build -p {name}",
        program.display()
    );
    Ok(())
}
