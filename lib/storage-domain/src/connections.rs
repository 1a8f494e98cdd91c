//! What VDSM is asked to connect, for each type of storage domain.
//!
//! `StoragePool.connectStorageServer(storagepoolID, domainType, connectionParams)`, all values as text:
//!
//! | `domainType` in hosted-engine.conf | number | keys of each connection |
//! | --- | --- | --- |
//! | `nfs` | 1 | `connection` (storage), `user`: `kvm`, `id` (connectionUUID), `protocol_version`: `nfs_version` without `v`, `_` as `.`; `auto` when not set |
//! | `nfs3`, `nfs4` | 1 | the same with `protocol_version` `3` or `4` |
//! | `glusterfs` | 7 | `connection`, `user`: `kvm`, `id`, `vfs_type`: `glusterfs` |
//! | `posixfs` | 6 | `connection`, `user`: `kvm`, `id`, `vfs_type` as it stands there |
//! | `iscsi` | 3 | for each portal, and each interface: `connection` (one of storage), `iqn`, `tpgt` (portal), `user`, `password`, `id` (a new one), `port`; on an interface `netIfaceName`, `ifaceName` too |
//! | `fc` | 2 | none: there is nothing to connect |
//!
//! `mnt_options`, when it is set, goes with the first connection. The form is the existing release's (`posixfs` is
//! ours), so that VDSM sees the same connection whichever release asks. iSCSI takes its portals from lists separated by
//! commas: `storage` and `port` side by side for one target; with several targets `iqn`, `portal`, `user` and
//! `password` too. The shortest list counts. Pairs in `iscsi_paths_blacklist` are left out.

use std::fmt;

use ha_config::hosted_engine::{DomainType, normal_connection};
use ha_config::{ConfigError, HostedEngineConf};
use serde_json::{Map, Value};

use crate::iscsi::{Interface, parse_blacklist};

/// One connection. `Debug` and `label` have no secrets.
#[derive(Clone, PartialEq)]
pub struct Connection {
    /// Its id; VDSM's answer names it.
    pub id: String,
    /// What it is, for messages: server and path, or portal, target and interface.
    pub label: String,
    /// `INTERFACE<>PORTAL`, as it would stand in `iscsi_paths_blacklist`.
    pub path: Option<String>,
    params: Map<String, Value>,
}

impl Connection {
    /// The JSON for VDSM, secrets included.
    pub fn reveal(&self) -> Value {
        Value::Object(self.params.clone())
    }

    /// Takes the password of this connection out of a text.
    fn redact(&self, text: String) -> String {
        match self.params.get("password").and_then(Value::as_str) {
            Some(password) if !password.is_empty() => text.replace(password, "********"),
            Some(_) | None => text,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("id", &self.id).field("label", &self.label).finish_non_exhaustive()
    }
}

/// All connections of this host's storage domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Connections {
    /// VDSM's number of the type.
    pub domain_type: u8,
    /// The connections; none for Fibre Channel.
    pub list: Vec<Connection>,
}

/// How a path of file storage is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathForm {
    /// In its normal form: for connecting.
    Normal,
    /// As it stands in the file: for disconnecting what somebody may have connected so.
    AsWritten,
}

impl Connections {
    /// From this host's configuration. `interfaces` are iSCSI's; `new_id` gives an id to each iSCSI connection.
    ///
    /// # Errors
    /// The key that is missing or wrong.
    pub fn of_host(
        conf: &HostedEngineConf,
        form: PathForm,
        interfaces: &[Interface],
        new_id: &mut dyn FnMut() -> String,
    ) -> Result<Self, ConfigError> {
        let kind = conf.domain_type()?;
        let mut list = match kind {
            DomainType::Nfs | DomainType::Nfs3 | DomainType::Nfs4 => vec![nfs(conf, kind, form)?],
            DomainType::Glusterfs => {
                let mut connection = of_files(conf, form)?;
                connection.set("vfs_type", "glusterfs");
                vec![connection]
            }
            DomainType::Posixfs => {
                let expected = "the file system of the posixfs domain, for example ext4";
                let vfs_type = conf.file().require("vfs_type", expected)?;
                let mut connection = of_files(conf, form)?;
                connection.set("vfs_type", vfs_type);
                vec![connection]
            }
            DomainType::Iscsi => iscsi(conf, interfaces, new_id)?,
            DomainType::Fc => Vec::new(),
        };
        if let (Some(options), Some(first)) = (conf.mnt_options(), list.first_mut()) {
            first.set("mnt_options", options);
        }
        Ok(Self { domain_type: kind.vdsm_number(), list })
    }

    /// The JSON for VDSM, secrets included.
    pub fn reveal(&self) -> Vec<Value> {
        self.list.iter().map(Connection::reveal).collect()
    }

    /// Takes all passwords out of a text of VDSM's, which may repeat what it was asked.
    pub fn redact(&self, text: &str) -> String {
        self.list.iter().fold(text.to_owned(), |text, connection| connection.redact(text))
    }
}

impl Connection {
    fn set(&mut self, key: &str, value: &str) {
        self.params.insert(key.to_owned(), Value::from(value));
    }
}

/// What all connections of file storage have in common.
fn of_files(conf: &HostedEngineConf, form: PathForm) -> Result<Connection, ConfigError> {
    let written = conf.storage()?;
    let target = match form {
        PathForm::Normal => normal_connection(written),
        PathForm::AsWritten => written.to_owned(),
    };
    let id = conf.file().require("connectionUUID", "the uuid of the storage connection")?.to_owned();
    let mut connection = Connection { id: id.clone(), label: target.clone(), path: None, params: Map::new() };
    connection.set("connection", &target);
    connection.set("user", "kvm");
    connection.set("id", &id);
    Ok(connection)
}

fn nfs(conf: &HostedEngineConf, kind: DomainType, form: PathForm) -> Result<Connection, ConfigError> {
    let mut connection = of_files(conf, form)?;
    let version = match kind {
        DomainType::Nfs3 => "3".to_owned(),
        DomainType::Nfs4 => "4".to_owned(),
        DomainType::Nfs
        | DomainType::Glusterfs
        | DomainType::Posixfs
        | DomainType::Iscsi
        | DomainType::Fc => conf
            .nfs_version()
            .map_or_else(|| "auto".to_owned(), |version| version.replace('v', "").replace('_', ".")),
    };
    connection.set("protocol_version", &version);
    Ok(connection)
}

/// A portal of a target. A key that is not in the file is sent as null, as the existing release does.
struct Portal<'a> {
    address: &'a str,
    port: &'a str,
    iqn: &'a str,
    tpgt: Option<&'a str>,
    user: Option<&'a str>,
    password: Option<&'a str>,
}

fn portals(conf: &HostedEngineConf) -> Result<Vec<Portal<'_>>, ConfigError> {
    let file = conf.file();
    let addresses = conf.storage()?.split(',');
    let ports = file.require("port", "the TCP ports of the iSCSI portals, 3260 as a rule")?.split(',');
    let iqns = file.require("iqn", "the name of the iSCSI target")?;
    // Unlike elsewhere, an empty value is one.
    let text = |key: &str| file.find(key).map(|found| found.value).filter(|value| *value != "None");
    let (tpgt, user, password) = (text("portal"), text("user"), text("password"));
    if !iqns.contains(',') {
        let pairs = addresses.zip(ports);
        return Ok(pairs
            .map(|(address, port)| Portal { address, port, iqn: iqns, tpgt, user, password })
            .collect());
    }
    let lists = addresses.zip(ports).zip(iqns.split(',')).zip(tpgt.unwrap_or_default().split(','));
    let lists = lists.zip(user.unwrap_or_default().split(',')).zip(password.unwrap_or_default().split(','));
    Ok(lists
        .map(|(((((address, port), iqn), tpgt), user), password)| Portal {
            address,
            port,
            iqn,
            tpgt: Some(tpgt),
            user: Some(user),
            password: Some(password),
        })
        .collect())
}

fn iscsi(
    conf: &HostedEngineConf,
    interfaces: &[Interface],
    new_id: &mut dyn FnMut() -> String,
) -> Result<Vec<Connection>, ConfigError> {
    const PAIRS: &str = "a list of INTERFACE<>PORTAL separated by commas";
    let blacklist = parse_blacklist(conf.iscsi_paths_blacklist().unwrap_or_default())
        .map_err(|_| conf.file().bad_value("iscsi_paths_blacklist", PAIRS))?;
    let portals = portals(conf)?;
    let interfaces: Vec<Option<&Interface>> =
        if interfaces.is_empty() { vec![None] } else { interfaces.iter().map(Some).collect() };
    let mut list = Vec::new();
    for interface in interfaces {
        for portal in &portals {
            let bound = interface.map(|interface| (interface.name.as_str(), portal.address));
            if bound.is_some_and(|pair| blacklist.contains(&pair)) {
                continue;
            }
            list.push(iscsi_path(portal, interface, new_id()));
        }
    }
    Ok(list)
}

fn iscsi_path(portal: &Portal<'_>, interface: Option<&Interface>, id: String) -> Connection {
    let mut label = format!("{}:{} {}", portal.address, portal.port, portal.iqn);
    if let Some(interface) = interface {
        label.push_str(" on ");
        label.push_str(&interface.name);
    }
    let path = interface.map(|interface| format!("{}<>{}", interface.name, portal.address));
    let mut params = Map::new();
    let mut put = |key: &str, value: Option<&str>| params.insert(key.to_owned(), Value::from(value));
    put("connection", Some(portal.address));
    put("iqn", Some(portal.iqn));
    put("tpgt", portal.tpgt);
    put("user", portal.user);
    put("password", portal.password);
    put("id", Some(&id));
    put("port", Some(portal.port));
    if let Some(interface) = interface {
        put("netIfaceName", Some(&interface.net));
        put("ifaceName", Some(&interface.name));
    }
    Connection { id, label, path, params }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
