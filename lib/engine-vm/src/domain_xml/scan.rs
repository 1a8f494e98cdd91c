//! What a description says that decides about the VM's safety: who it is, its disks, its leases.

use std::path::PathBuf;

use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::{Lease, LeaseTarget, unusable};
use crate::port::VmError;

/// Deeper nesting than any description has.
const MAX_DEPTH: usize = 64;

/// What a description says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Described {
    /// `<uuid>`.
    pub id: Option<String>,
    /// `<on_lockfailure>`: what libvirt does when the lease is lost.
    pub on_lock_failure: Option<String>,
    /// Storage pools of libvirt that disks are in, by name.
    pub pools: Vec<String>,
    /// The leases, in the description's order.
    pub leases: Vec<Lease>,
    /// The disks of which VDSM's metadata names the volume.
    pub disks: Vec<DescribedDisk>,
    /// True with an element of VDSM's own to which a setting can be added.
    pub has_metadata: bool,
    /// True with a list of devices.
    pub has_devices: bool,
}

/// A disk by VDSM's ids; empty ones are not given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribedDisk {
    /// Storage pool.
    pub pool: String,
    /// Storage domain.
    pub domain: String,
    /// Image.
    pub image: String,
    /// Volume.
    pub volume: String,
    /// Only one VM may use it.
    pub is_exclusive: bool,
}

/// The error for a description that is no XML, or not one of a domain.
pub(super) fn malformed(what: impl std::fmt::Display) -> VmError {
    unusable(format!("the domain XML of the engine VM (xmlBase64 in vm.conf) cannot be read: {what}"))
}

/// The name of an element without its namespace's prefix.
pub(super) fn local(start: &BytesStart<'_>) -> String {
    String::from_utf8_lossy(start.local_name().as_ref()).into_owned()
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Result<Option<String>, VmError> {
    match start.try_get_attribute(name).map_err(malformed)? {
        None => Ok(None),
        Some(attribute) => Ok(Some(attribute.unescape_value().map_err(malformed)?.into_owned())),
    }
}

/// An element being read.
#[derive(Debug, Default)]
struct Open {
    name: String,
    text: String,
}

/// Reads a description.
///
/// # Errors
/// [`VmError::Config`] when it is no well-formed XML.
pub fn describe(xml: &str) -> Result<Described, VmError> {
    let mut reader = Reader::from_str(xml);
    let mut found = Described::default();
    let mut open: Vec<Open> = Vec::new();
    let mut has_root = false;
    loop {
        match reader.read_event().map_err(malformed)? {
            Event::Eof if open.is_empty() && has_root => {
                found.disks.retain(|disk| !disk.volume.is_empty());
                return Ok(found);
            }
            Event::Eof => return Err(malformed("it ends too early")),
            Event::Start(start) => {
                has_root = true;
                begin(&mut found, &open, &start)?;
                open.push(Open { name: local(&start), text: String::new() });
                if open.len() > MAX_DEPTH {
                    return Err(malformed(format!("more than {MAX_DEPTH} elements inside each other")));
                }
            }
            Event::Empty(start) => {
                has_root = true;
                begin(&mut found, &open, &start)?;
            }
            Event::End(_) => {
                // The reader refuses an end without its beginning.
                let Some(ended) = open.pop() else { return Err(malformed("an end without a beginning")) };
                end(&mut found, &open, &ended);
            }
            Event::Text(text) => {
                if let Some(inner) = open.last_mut() {
                    inner.text.push_str(&text.decode().map_err(malformed)?);
                }
            }
            Event::CData(data) => {
                if let Some(inner) = open.last_mut() {
                    inner.text.push_str(&data.decode().map_err(malformed)?);
                }
            }
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(malformed)?;
                let resolved = match reference.resolve_char_ref().map_err(malformed)? {
                    Some(c) => c.to_string(),
                    None => resolve_xml_entity(&name)
                        .ok_or_else(|| malformed(format!("&{name}; is not known")))?
                        .to_owned(),
                };
                if let Some(inner) = open.last_mut() {
                    inner.text.push_str(&resolved);
                }
            }
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

/// The names from the root down.
fn path(open: &[Open]) -> Vec<&str> {
    open.iter().map(|element| element.name.as_str()).collect()
}

fn begin(found: &mut Described, open: &[Open], start: &BytesStart<'_>) -> Result<(), VmError> {
    let name = local(start);
    match (path(open).as_slice(), name.as_str()) {
        (["domain"], "devices") => found.has_devices = true,
        (["domain", "metadata"], "vm") => found.has_metadata = true,
        (["domain", "devices"], "lease") => found.leases.push(Lease {
            key: String::new(),
            lockspace: String::new(),
            target: LeaseTarget::FoundByVdsm,
        }),
        (["domain", "devices", "disk"], "source") => {
            if let Some(pool) = attribute(start, "pool")?
                && !found.pools.contains(&pool)
            {
                found.pools.push(pool);
            }
        }
        (["domain", "devices", "lease"], "target") => {
            let (path, offset) = (attribute(start, "path")?, attribute(start, "offset")?);
            let real = path.zip(offset).and_then(|(path, offset)| {
                let offset = offset.parse().ok()?;
                path.starts_with('/').then(|| LeaseTarget::At { path: PathBuf::from(path), offset })
            });
            if let (Some(lease), Some(real)) = (found.leases.last_mut(), real) {
                lease.target = real;
            }
        }
        // Of other devices too, so that what stands in them is not taken for the last disk's.
        (["domain", "metadata", "vm"], "device") => found.disks.push(DescribedDisk::default()),
        _ => {}
    }
    Ok(())
}

fn end(found: &mut Described, open: &[Open], ended: &Open) {
    let text = || ended.text.trim().to_owned();
    match (path(open).as_slice(), ended.name.as_str()) {
        (["domain"], "uuid") => found.id = Some(text()),
        (["domain"], "on_lockfailure") => found.on_lock_failure = Some(text()),
        (["domain", "devices", "lease"], name) => {
            if let Some(lease) = found.leases.last_mut() {
                match name {
                    "key" => lease.key = text(),
                    "lockspace" => lease.lockspace = text(),
                    _ => {}
                }
            }
        }
        (["domain", "metadata", "vm", "device"], name) => {
            if let Some(disk) = found.disks.last_mut() {
                match name {
                    "poolID" => disk.pool = text(),
                    "domainID" => disk.domain = text(),
                    "imageID" => disk.image = text(),
                    "volumeID" => disk.volume = text(),
                    "shared" => disk.is_exclusive = ended.text.trim() == "exclusive",
                    _ => {}
                }
            }
        }
        _ => {}
    }
}
