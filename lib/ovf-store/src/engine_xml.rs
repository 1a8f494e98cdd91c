//! The libvirt domain that engines since 4.2 put into the OVF.
//!
//! It is the whole description, and what VDSM likes best. It is used only when it protects the disk: it has a lease, and
//! its first disk is shared `exclusive`. The existing release has the same rule. It is passed on as the engine wrote it,
//! but for one name: VDSM's libvirt refuses a serial console's alias of more than 24 characters.

use std::io;

use quick_xml::Reader;
use quick_xml::Writer;
use quick_xml::events::{BytesStart, Event};
use uuid::Uuid;

use crate::error::OvfError;
use crate::xml::{Element, Namespace};

/// Longest alias of a serial console, in characters.
const ALIAS: usize = 24;

/// The declaration that goes before a domain that has none.
const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";

/// Domain XML that may be used.
#[derive(Clone, PartialEq, Eq)]
pub struct EngineXml {
    /// The text.
    pub text: String,
    /// A lease in it is that of its first exclusive disk.
    pub lease_is_of_disk: bool,
}

impl std::fmt::Debug for EngineXml {
    /// Without the text, which may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineXml").field("bytes", &self.text.len()).finish_non_exhaustive()
    }
}

/// Why domain XML is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Broken(#[from] OvfError),
    /// It describes another VM, or does not say which.
    #[error("its uuid is not the VM's")]
    OtherVm,
    /// There is no lease among its devices.
    #[error("it has no lease, which keeps the VM from running twice")]
    NoLease,
    /// The first disk is not exclusive.
    #[error("its disk is not marked exclusive")]
    NotExclusive,
}

/// Checks the domain XML of the VM `id`, and makes it fit for use.
pub fn usable(text: &str, id: Uuid) -> Result<EngineXml, Unusable> {
    let text = text.trim();
    let domain = Element::parse(text)?;
    let uuid = domain.text_of(Namespace::None, "uuid").and_then(|uuid| Uuid::parse_str(uuid).ok());
    if uuid != Some(id) {
        return Err(Unusable::OtherVm);
    }
    let devices = domain.descendants().filter(|element| element.name == "devices");
    let leases: Vec<&Element> = devices.flat_map(|devices| devices.all(Namespace::None, "lease")).collect();
    if leases.is_empty() {
        return Err(Unusable::NoLease);
    }
    let mut disks = domain.descendants().filter(|element| {
        element.namespace == Namespace::OvirtVm
            && element.name == "device"
            && element.attribute(Namespace::None, "devtype") == Some("disk")
            && element.text_of(Namespace::OvirtVm, "shared").is_some()
    });
    let of_disk = |name| move |disk: &'_ Element| disk.text_of(Namespace::OvirtVm, name).map(str::to_owned);
    let Some(disk) = disks.next().filter(|disk| of_disk("shared")(disk).as_deref() == Some("exclusive"))
    else {
        return Err(Unusable::NotExclusive);
    };
    let (volume, storage) = (of_disk("volumeID")(disk), of_disk("domainID")(disk));
    let lease_is_of_disk = leases.iter().any(|lease| {
        lease.text_of(Namespace::None, "key") == volume.as_deref()
            && lease.text_of(Namespace::None, "lockspace") == storage.as_deref()
    });
    Ok(EngineXml { text: with_short_alias(text)?, lease_is_of_disk })
}

/// The document as it is, with the alias of the first serial console cut.
fn with_short_alias(text: &str) -> Result<String, OvfError> {
    let mut reader = Reader::from_str(text);
    let mut writer = Writer::new(Vec::with_capacity(text.len()));
    let mut path: Vec<Vec<u8>> = Vec::new();
    let mut pty = false;
    let mut done = false;
    let mut declared = false;
    loop {
        let at = reader.buffer_position();
        let broken = |detail: String| OvfError::Xml { at, detail };
        let failed = |error: io::Error| OvfError::Xml { at, detail: error.to_string() };
        let event = reader.read_event().map_err(|error| broken(error.to_string()))?;
        match &event {
            Event::Eof => break,
            Event::Decl(_) => declared = true,
            Event::Start(tag) | Event::Empty(tag) => {
                let is_empty = matches!(event, Event::Empty(_));
                let inside = |names: [&[u8]; 2]| path.ends_with(&names.map(<[u8]>::to_vec));
                match tag.name().as_ref() {
                    b"console" if path.last().is_some_and(|parent| parent == b"devices") => {
                        pty = tag
                            .try_get_attribute("type")
                            .map_err(|error| broken(error.to_string()))?
                            .is_some_and(|kind| kind.value.as_ref() == b"pty");
                    }
                    b"alias" if pty && !done && inside([b"devices", b"console"]) => {
                        done = true;
                        let short = short_alias(tag).map_err(broken)?;
                        let event = if is_empty { Event::Empty(short) } else { Event::Start(short) };
                        writer.write_event(event).map_err(failed)?;
                        if !is_empty {
                            path.push(b"alias".to_vec());
                        }
                        continue;
                    }
                    _ => {}
                }
                if !is_empty {
                    path.push(tag.name().as_ref().to_vec());
                }
            }
            Event::End(_) => {
                path.pop();
            }
            Event::Text(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::PI(_)
            | Event::DocType(_)
            | Event::GeneralRef(_) => {}
        }
        writer.write_event(event).map_err(failed)?;
    }
    let written = writer.into_inner();
    let written =
        String::from_utf8(written).map_err(|error| OvfError::Xml { at: 0, detail: error.to_string() })?;
    Ok(if declared { written } else { format!("{DECLARATION}{written}") })
}

fn short_alias(tag: &BytesStart<'_>) -> Result<BytesStart<'static>, String> {
    let mut short = BytesStart::new("alias");
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = attribute.unescape_value().map_err(|error| error.to_string())?;
        let value = match attribute.key.as_ref() {
            b"name" => value.chars().take(ALIAS).collect(),
            _ => value.into_owned(),
        };
        let key = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
        short.push_attribute((key.as_str(), value.as_str()));
    }
    Ok(short)
}

#[cfg(test)]
#[path = "engine_xml_tests.rs"]
mod tests;
