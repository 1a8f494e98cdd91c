//! Firmware, TPM and NUMA: keys of vm.conf that only this release knows. The existing one passes them over.
//!
//! | key | value |
//! | --- | --- |
//! | `firmware` | `uefi` or `uefi-secure-boot`; the machine's own BIOS without it |
//! | `tpm` | `true`: a TPM 2.0 |
//! | `numa` | cells of the guest, `CPUS@MIB;CPUS@MIB`, for example `0-3@4096;4-7@4096` |
//!
//! The XML is as the engine writes it for such VMs.

use ha_config::VmConf;
use ha_config::text::parse_bool;

use super::element::{Element, element};
use super::{of_config, unusable};
use crate::port::VmError;

/// What starts the guest, when it is not the machine's own BIOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Firmware {
    Uefi,
    SecureBoot,
}

fn wrong(vm: &VmConf, key: &str, value: &str, expected: &str) -> VmError {
    unusable(format!("{}: {key}={value:?} must be {expected}", vm.path().display()))
}

impl Firmware {
    pub(super) fn of(vm: &VmConf, is_q35: bool) -> Result<Option<Self>, VmError> {
        let firmware = match vm.get("firmware") {
            None => return Ok(None),
            Some("uefi") => Self::Uefi,
            Some("uefi-secure-boot") => Self::SecureBoot,
            Some(other) => return Err(wrong(vm, "firmware", other, "uefi or uefi-secure-boot")),
        };
        if is_q35 {
            return Ok(Some(firmware));
        }
        let path = vm.path().display();
        Err(unusable(format!("{path}: firmware= needs a q35 machine; change emulatedMachine or remove it")))
    }

    /// For `<os>`.
    pub(super) fn elements(self, id: &str) -> [Element; 2] {
        let (secure, variables) = match self {
            Self::Uefi => ("no", "OVMF_VARS.fd"),
            Self::SecureBoot => ("yes", "OVMF_VARS.secboot.fd"),
        };
        let loader = element("loader").with("readonly", "yes").with("secure", secure).with("type", "pflash");
        [
            loader.with_text("/usr/share/OVMF/OVMF_CODE.secboot.fd"),
            element("nvram")
                .with("template", format!("/usr/share/OVMF/{variables}"))
                .with_text(format!("/var/lib/libvirt/qemu/nvram/{id}.fd")),
        ]
    }

    /// For `<features>`.
    pub(super) fn feature(self) -> Option<Element> {
        match self {
            Self::Uefi => None,
            Self::SecureBoot => Some(element("smm").with("state", "on")),
        }
    }
}

pub(super) fn tpm(vm: &VmConf) -> Result<Option<Element>, VmError> {
    let Some(text) = vm.get("tpm") else { return Ok(None) };
    let has = parse_bool(text).ok_or_else(|| wrong(vm, "tpm", text, "true or false"))?;
    let backend = || element("backend").with("type", "emulator").with("version", "2.0");
    Ok(has.then(|| element("tpm").with("model", "tpm-crb").with_child(backend())))
}

/// For `<cpu>`. Together the cells have all the memory, each processor at most once.
pub(super) fn numa(vm: &VmConf) -> Result<Option<Element>, VmError> {
    let Some(text) = vm.get("numa") else { return Ok(None) };
    let expected =
        "cells like 0-3@4096;4-7@4096: processors and MiB, together all of memSize and each processor once";
    let bad = || wrong(vm, "numa", text, expected);
    let most = vm.max_vcpus().map_err(|error| of_config(&error))?;
    let memory = vm.mem_size().map_err(|error| of_config(&error))?;
    let (mut taken, mut sum) = (std::collections::BTreeSet::new(), 0_u64);
    let mut numa = element("numa");
    for (number, cell) in text.split(';').enumerate() {
        let (cpus, mib) = cell.split_once('@').ok_or_else(bad)?;
        let mib = mib.parse().ok().filter(|mib| (1..=memory).contains(mib)).ok_or_else(bad)?;
        sum = sum.saturating_add(mib);
        for range in cpus.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = first.parse().ok().zip(last.parse().ok()).ok_or_else(bad)?;
            if first > last || last >= most || !(first..=last).all(|cpu| taken.insert(cpu)) {
                return Err(bad());
            }
        }
        let kib = (mib * 1024).to_string();
        let cell = element("cell").with("id", number.to_string()).with("cpus", cpus).with("memory", kib);
        numa = numa.with_child(cell);
    }
    if sum == memory { Ok(Some(numa)) } else { Err(bad()) }
}
