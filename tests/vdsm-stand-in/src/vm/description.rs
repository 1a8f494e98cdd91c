//! What a VM is: libvirt's domain XML, or VDSM's older parameters; turned into a machine and its lease when it starts.

use std::path::PathBuf;

use engine_vm::lease::LeaseSpec;
use engine_vm::qemu::machine::Machine;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Context, domain_xml, legacy};

/// As the client gave it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Description {
    /// Domain XML.
    Xml(String),
    /// Parameters.
    Legacy(Map<String, Value>),
}

/// A lease that the VM wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedLease {
    pub lockspace: String,
    pub key: String,
    /// `None`, like VDSM's placeholder, when storage is to tell.
    pub path: Option<PathBuf>,
    pub offset: Option<u64>,
}

/// A machine, and what protects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    pub machine: Machine,
    pub lease: Option<WantedLease>,
    /// Its processors wait for somebody who lets them go on.
    pub starts_paused: bool,
}

impl Description {
    pub fn of_params(params: &Map<String, Value>) -> Result<Self, String> {
        // A migration's source sends its libvirt's view of the domain.
        for key in ["_srcDomXML", "xml"] {
            match params.get(key) {
                Some(Value::String(xml)) => return Ok(Self::Xml(xml.clone())),
                Some(other) => return Err(format!("{key} must be a text, not {other}")),
                None => {}
            }
        }
        Ok(Self::Legacy(params.clone()))
    }

    /// What another host's stand-in needs to make the same VM.
    pub fn to_params(&self) -> Map<String, Value> {
        match self {
            Self::Xml(xml) => Map::from_iter([("_srcDomXML".to_owned(), Value::from(xml.as_str()))]),
            Self::Legacy(params) => params.clone(),
        }
    }

    pub fn id(&self) -> Result<String, String> {
        let id = match self {
            Self::Xml(xml) => domain_xml::uuid(xml)?,
            Self::Legacy(params) => match params.get("vmId") {
                Some(Value::String(id)) => id.clone(),
                _ => return Err("there is neither xml nor a vmId in vmParams".to_owned()),
            },
        };
        // It becomes the name of a directory.
        uuid::Uuid::parse_str(&id).map_err(|error| format!("{id:?} is no uuid: {error}"))?;
        Ok(id)
    }

    /// The machine on this host now. May hang with the storage.
    pub fn resolve(&self, context: &Context) -> Result<Described, String> {
        match self {
            Self::Xml(xml) => domain_xml::read(xml, &|path| context.storage.resolve(path)),
            Self::Legacy(params) => legacy::read(params, &context.storage),
        }
    }
}

/// What protects the VM: its lease, else a lock of this host alone. May hang with the storage.
pub(super) fn lease(
    context: &Context,
    described: &Described,
    directory: &std::path::Path,
) -> Result<LeaseSpec, String> {
    let Some(wanted) = &described.lease else {
        return Ok(LeaseSpec::File { path: directory.join("no-lease.lock") });
    };
    let found = match (&wanted.path, wanted.offset) {
        (Some(path), Some(offset)) => (context.storage.resolve(path), offset),
        _ => context.storage.lease(&wanted.lockspace, &wanted.key).map_err(|failure| failure.message)?,
    };
    Ok(LeaseSpec::Sanlock {
        socket: absolute(context.settings.paths.sanlock_socket()),
        lockspace: wanted.lockspace.clone(),
        resource: wanted.key.clone(),
        path: absolute(found.0),
        offset: found.1,
    })
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
