//! Changes to a description that somebody else made. Everything else in it stays as it is.

use quick_xml::events::Event;
use quick_xml::reader::Reader;

use super::build::lease_element;
use super::element::{Element, element, write};
use super::scan::{describe, local, malformed};
use super::{Lease, unusable};
use crate::port::VmError;

/// The description with this lease: unchanged when it has one of this name in this lockspace.
///
/// # Errors
/// [`VmError::Config`] when it is no well-formed XML, or has no list of devices.
pub fn with_lease(xml: &str, lease: &Lease) -> Result<String, VmError> {
    let found = describe(xml)?;
    if found.leases.iter().any(|other| other.key == lease.key && other.lockspace == lease.lockspace) {
        return Ok(xml.to_owned());
    }
    if !found.has_devices {
        return Err(unusable("the domain XML of the engine VM (xmlBase64 in vm.conf) has no <devices>"));
    }
    add(xml, &["domain", "devices"], &lease_element(lease), None)
}

/// The description of a VM that starts with stopped processors, for VDSM.
///
/// # Errors
/// [`VmError::Config`] when it is no well-formed XML, or has nothing of VDSM's own in it.
pub fn with_launch_paused(xml: &str) -> Result<String, VmError> {
    /// Engines write it with and without their namespace.
    const NAME: &str = "launchPaused";
    if !describe(xml)?.has_metadata {
        return Err(unusable(
            "the domain XML of the engine VM (xmlBase64 in vm.conf) has no <ovirt-vm:vm> in its <metadata>, where a \
             paused start is asked for",
        ));
    }
    let paused = element("ovirt-vm:launchPaused").with_text("true");
    add(xml, &["domain", "metadata", "vm"], &paused, Some(NAME))
}

/// Copies a description, with `addition` as the last child of the element at `parent`, whose children named `dropped` are
/// left out.
fn add(xml: &str, parent: &[&str], addition: &Element, dropped: Option<&str>) -> Result<String, VmError> {
    let mut reader = Reader::from_str(xml);
    let mut names: Vec<String> = Vec::new();
    let mut events = Vec::new();
    // Depth at which an element is left out.
    let mut skipping: Option<usize> = None;
    loop {
        let event = reader.read_event().map_err(malformed)?;
        let is_dropped =
            |names: &[String], name: &str| names.iter().eq(parent.iter()) && dropped == Some(name);
        match &event {
            Event::Eof => return Ok(write(events)),
            Event::Start(start) => {
                let name = local(start);
                if skipping.is_none() && is_dropped(&names, &name) {
                    skipping = Some(names.len());
                }
                names.push(name);
            }
            Event::Empty(start) if skipping.is_none() => {
                let name = local(start);
                if is_dropped(&names, &name) {
                    continue;
                }
                if names.iter().map(String::as_str).chain([name.as_str()]).eq(parent.iter().copied()) {
                    events.push(Event::Start(start.clone().into_owned()));
                    events.extend(addition.events());
                    events.push(Event::End(start.to_end().into_owned()));
                    continue;
                }
            }
            Event::End(_) => {
                if skipping.is_none() && names.iter().eq(parent.iter()) {
                    events.extend(addition.events());
                }
                names.pop();
                if skipping == Some(names.len()) {
                    skipping = None;
                    continue;
                }
            }
            _ => {}
        }
        if skipping.is_none() {
            events.push(event.into_owned());
        }
    }
}
