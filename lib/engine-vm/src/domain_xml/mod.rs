//! libvirt's domain XML for the engine VM: made from vm.conf, and made safe when it comes from elsewhere.
//!
//! [`from_vm_conf`] writes the description that a libvirt daemon, or VDSM in front of one, starts. [`with_lease`] adds the
//! VM's lease to a description that has none: no engine VM is ever started without one. Pure: no I/O, no clock.
//!
//! The form is libvirt's (<https://libvirt.org/formatdomain.html>). What VDSM wants beside it ([`Dialect::Vdsm`]) is in
//! the namespace `http://ovirt.org/vm/1.0`: for each disk the ids by which VDSM finds its volume, keyed by the disk's
//! target name; and in the lease two placeholders, for VDSM knows the lease's place once it has prepared the disk.

mod build;
mod device;
mod disk;
mod element;
mod platform;
mod rewrite;
mod scan;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use ha_config::{ConfigError, HostedEngineConf, VmConf};

pub use rewrite::{with_launch_paused, with_lease};
pub use scan::{Described, DescribedDisk, describe};

use crate::port::VmError;

/// Namespace of VDSM's own elements.
const OVIRT_VM: &str = "http://ovirt.org/vm/1.0";

/// Who reads the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// VDSM, which finds volumes and leases itself.
    Vdsm,
    /// libvirt itself: every path is the real one.
    Libvirt,
}

/// What a description needs to know beside vm.conf.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Where this host's storage lies, and its bridge.
    pub conf: &'a HostedEngineConf,
    /// Who reads the description.
    pub dialect: Dialect,
    /// Start with stopped processors. Only VDSM takes this from the description.
    pub starts_paused: bool,
    /// Guest code is emulated instead of carried by KVM. VDSM decides this itself.
    pub is_emulated: bool,
    /// The lease, where the caller knows it; else that of the VM's own disk.
    pub lease: Option<&'a Lease>,
}

/// Where the sanlock resource of a lease is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseTarget {
    /// Wherever VDSM finds the lease of the volume that the lease is named after.
    FoundByVdsm,
    /// Here.
    At {
        /// The file or device.
        path: PathBuf,
        /// Byte offset of the resource in it.
        offset: u64,
    },
}

/// A `<lease>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Name of the sanlock resource: for a disk's lease its volume's uuid.
    pub key: String,
    /// sanlock's lockspace: the storage domain's uuid.
    pub lockspace: String,
    /// Where the resource is.
    pub target: LeaseTarget,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.lockspace, self.key)
    }
}

fn unusable(detail: impl Into<String>) -> VmError {
    VmError::Config { detail: detail.into() }
}

fn of_config(error: &ConfigError) -> VmError {
    unusable(error.to_string())
}

/// The description of the VM of a vm.conf; its `xmlBase64` is not looked at.
///
/// # Errors
/// [`VmError::Config`] with the file, the key or device, and its value: something is missing, wrong, not known here, or
/// cannot stand in XML; or no disk is the engine VM's own, whose lease protects it.
pub fn from_vm_conf(vm: &VmConf, place: &Place<'_>) -> Result<String, VmError> {
    let text = build::domain(vm, place)?.to_text();
    match text.chars().find(|c| !is_xml(*c)) {
        Some(wrong) => Err(unusable(format!(
            "{}: the character {wrong:?} cannot be given to libvirt; remove it",
            vm.path().display()
        ))),
        None => Ok(text),
    }
}

/// XML 1.0, production 2, `Char`.
fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}
