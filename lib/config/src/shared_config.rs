//! The four kinds of configuration that `--get-shared-config` and `--set-shared-config` know, their keys, and what a
//! key's value may be.
//!
//! | kind | file | its home |
//! | --- | --- | --- |
//! | `he_local` | hosted-engine.conf | this host |
//! | `he_shared` | hosted-engine.conf | the configuration volume: for hosts that are deployed from now on |
//! | `ha` | ha.conf | this host |
//! | `broker` | broker.conf, keys as `section.key` | the configuration volume |
//!
//! Of what is on the volume each host keeps a copy, brought up to date by [`crate::refresh`]. Only [`Content::load`] and
//! [`set_local`] touch files, and only this host's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use metadata_format::HostId;

use crate::broker_conf::{BrokerConf, EMAIL_KEYS};
use crate::conf_archive;
use crate::edit;
use crate::error::{ConfigError, Result};
use crate::hosted_engine::{DomainType, HostedEngineConf};
use crate::ini::Ini;
use crate::key_value::KeyValueFile;
use crate::paths::Paths;
use crate::secret::is_secret_key;
use crate::text::{BOOL_EXPECTED, bool_text, parse_bool};

/// Kind of configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigKind {
    /// This host's hosted-engine.conf.
    HeLocal,
    /// The cluster's broker.conf.
    Broker,
    /// The cluster's hosted-engine.conf.
    HeShared,
    /// This host's ha.conf.
    Ha,
}

/// Keys of hosted-engine.conf that count as there when the file does not have them.
const OPTIONAL_HE: [&str; 4] = ["iscsi_paths_blacklist", "network_test", "tcp_t_address", "tcp_t_port"];
const HA_KEYS: [&str; 2] = ["local_maintenance", "local_maintenance_manual"];
const UUID_KEYS: [&str; 12] = [
    "vmid",
    "vm_disk_id",
    "vm_disk_vol_id",
    "sdUUID",
    "spUUID",
    "connectionUUID",
    "metadata_volume_UUID",
    "metadata_image_UUID",
    "lockspace_volume_UUID",
    "lockspace_image_UUID",
    "conf_volume_UUID",
    "conf_image_UUID",
];

/// Why a value may not be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The key needs another one.
    #[error("{key}={value:?} is not usable: it must be {expected}")]
    Value {
        /// The key.
        key: String,
        /// The value; `…` for a secret.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A host's own number.
    #[error(
        "host_id is each host's own number and is not shared: set it on that host with --type=he_local, while its \
         agent and broker are stopped"
    )]
    HostId,
}

impl ConfigKind {
    /// All, in the order in which the existing tools list them.
    pub const ALL: [Self; 4] = [Self::HeLocal, Self::Broker, Self::HeShared, Self::Ha];

    /// The word on command lines.
    pub const fn word(self) -> &'static str {
        match self {
            Self::HeLocal => "he_local",
            Self::Broker => "broker",
            Self::HeShared => "he_shared",
            Self::Ha => "ha",
        }
    }

    /// Reads [`ConfigKind::word`].
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// The file's name in the configuration volume; `None` for what only this host has.
    pub const fn member(self) -> Option<&'static str> {
        match self {
            Self::HeShared => Some(conf_archive::HOSTED_ENGINE_CONF),
            Self::Broker => Some(conf_archive::BROKER_CONF),
            Self::HeLocal | Self::Ha => None,
        }
    }

    /// The file on this host: the only one, or the copy of the volume's.
    pub fn path(self, paths: &Paths) -> PathBuf {
        match self {
            Self::HeLocal => paths.hosted_engine_conf(),
            Self::Broker => paths.cached_broker_conf(),
            Self::HeShared => paths.cached_hosted_engine_conf(),
            Self::Ha => paths.ha_conf(),
        }
    }

    const fn is_ini(self) -> bool {
        matches!(self, Self::Broker)
    }

    fn optional_keys(self) -> Vec<String> {
        let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        match self {
            Self::HeLocal | Self::HeShared => owned(&OPTIONAL_HE),
            Self::Ha => owned(&HA_KEYS),
            Self::Broker => {
                let email = EMAIL_KEYS.iter().map(|key| format!("email.{key}"));
                email.chain(["notify.state_transition".to_owned()]).collect()
            }
        }
    }

    /// The value as it is to be written, or why it may not be: known keys are checked, others taken as they are.
    pub fn checked_value(self, key: &str, value: &str) -> Result<String, ValueError> {
        let value = value.trim();
        let bad = |expected| {
            let value = if is_secret_key(key) { "…" } else { value };
            Err(ValueError::Value { key: key.to_owned(), value: value.to_owned(), expected })
        };
        if value.is_empty() || value.contains(['\n', '\r', '\0']) {
            return bad("one line of text, not empty");
        }
        let port = || value.parse().is_ok_and(|port: u16| port != 0);
        match (self, key) {
            (Self::HeShared, "host_id") => Err(ValueError::HostId),
            (Self::HeLocal, "host_id") if value.parse::<HostId>().is_err() => bad("a number from 1 to 2000"),
            (Self::HeLocal | Self::HeShared, "configured") | (Self::Ha, _) => match parse_bool(value) {
                // The existing agent compares with this very spelling.
                Some(on) => Ok(bool_text(on).to_owned()),
                None => bad(BOOL_EXPECTED),
            },
            (Self::HeLocal | Self::HeShared, "vdsm_use_ssl") if parse_bool(value).is_none() => {
                bad(BOOL_EXPECTED)
            }
            (Self::HeLocal | Self::HeShared, "domainType") if DomainType::from_word(value).is_none() => {
                bad("one of nfs, nfs3, nfs4, glusterfs, posixfs, iscsi, fc")
            }
            (Self::HeLocal | Self::HeShared, "network_test")
                if !matches!(value, "ping" | "dns" | "tcp" | "none") =>
            {
                bad("one of ping, dns, tcp, none")
            }
            (Self::HeLocal | Self::HeShared, "port" | "tcp_t_port") if !port() => {
                bad("a TCP port from 1 to 65535")
            }
            (Self::HeLocal | Self::HeShared, "fqdn" | "gateway" | "tcp_t_address") if !is_host(value) => {
                bad("a host name or an IPv4 or IPv6 address")
            }
            (Self::HeLocal | Self::HeShared, key) if UUID_KEYS.contains(&key) && !is_uuid(value) => {
                bad("a uuid, for example 8a1b6a20-6f0c-4d3a-9c4e-0a5b6c7d8e9f")
            }
            (Self::HeLocal | Self::HeShared | Self::Broker, _) => Ok(value.to_owned()),
        }
    }

    /// The text with one key changed, every other byte as it is. The whole is checked as its reader will read it;
    /// `path` is for error texts.
    pub fn edited(self, paths: &Paths, path: &Path, text: &[u8], key: &str, value: &str) -> Result<Vec<u8>> {
        if let Some((section, key)) = key.split_once('.').filter(|_| self.is_ini()) {
            let text = edit::set_ini(text, section, key, value);
            BrokerConf::parse(path, &String::from_utf8_lossy(&text))?;
            return Ok(text);
        }
        let text = edit::set_key_value(text, key, value);
        if key == "network_test" {
            // The test `tcp` needs its address and port.
            HostedEngineConf::parse(paths, &String::from_utf8_lossy(&text)).network_test()?;
        }
        Ok(text)
    }
}

/// A host name, or an address with or without brackets.
fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    // A zone (`fe80::1%eth0`) belongs to the address.
    bare.split('%').next().is_some_and(|address| address.parse::<IpAddr>().is_ok())
        || (text.len() <= 253
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
            && !text.starts_with(['.', '-']))
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.concat().chars().all(|c| c.is_ascii_hexdigit())
}

/// One kind's keys and values.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    kind: ConfigKind,
    values: BTreeMap<String, String>,
}

impl Content {
    /// Reads a text; `path` is for error texts.
    pub fn parse(kind: ConfigKind, path: &Path, text: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(text);
        let values = if kind.is_ini() {
            Ini::parse(path, &text)?
                .entries()
                .map(|entry| (format!("{}.{}", entry.section, entry.key), entry.value.clone()))
                .collect()
        } else {
            let file = KeyValueFile::parse(path, &text);
            file.entries().map(|(_, key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        Ok(Self { kind, values })
    }

    /// Reads this host's file or copy; a missing file has no keys.
    pub fn load(kind: ConfigKind, paths: &Paths) -> Result<Self> {
        let path = kind.path(paths);
        match std::fs::read(&path).map_err(crate::error::io("read", &path)) {
            Ok(text) => Self::parse(kind, &path, &text),
            Err(error) if error.is_not_found() => Self::parse(kind, &path, b""),
            Err(error) => Err(error),
        }
    }

    /// Whose.
    pub const fn kind(&self) -> ConfigKind {
        self.kind
    }

    /// The key as this kind spells it: in INI files the part after the section is in small letters.
    fn spelled(&self, key: &str) -> String {
        match key.split_once('.').filter(|_| self.kind.is_ini()) {
            Some((section, key)) => format!("{section}.{}", key.to_lowercase()),
            None => key.to_owned(),
        }
    }

    /// A key's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(&self.spelled(key)).map(String::as_str)
    }

    /// Whether the key is there, or is one that need not be.
    pub fn knows(&self, key: &str) -> bool {
        self.values.contains_key(&self.spelled(key)) || self.kind.optional_keys().contains(&self.spelled(key))
    }

    /// All keys that [`Content::knows`], sorted.
    pub fn keys(&self) -> BTreeSet<String> {
        self.values.keys().cloned().chain(self.kind.optional_keys()).collect()
    }
}

/// Keys only: there may be passwords.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple(self.kind.word()).field(&self.values.keys()).finish()
    }
}

/// Sets a key of a file that only this host has, keeping what other processes changed meanwhile.
pub fn set_local(kind: ConfigKind, paths: &Paths, key: &str, value: &str) -> Result<()> {
    let path = kind.path(paths);
    let current = KeyValueFile::load(&path)
        .map(|file| file.text())
        .or_else(|error: ConfigError| if error.is_not_found() { Ok(String::new()) } else { Err(error) })?;
    kind.edited(paths, &path, current.as_bytes(), key, value)?;
    KeyValueFile::update(&path, |file| file.set(key, value))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_members_are_those_of_the_existing_tools() {
        for kind in ConfigKind::ALL {
            assert_eq!(ConfigKind::from_word(kind.word()), Some(kind));
        }
        assert_eq!(ConfigKind::from_word("vm"), None);
        let members: Vec<_> = ConfigKind::ALL.into_iter().filter_map(ConfigKind::member).collect();
        assert_eq!(members, ["broker.conf", "hosted-engine.conf"]);
    }

    #[test]
    fn values_of_known_keys_are_checked() {
        use ConfigKind::{Broker, Ha, HeLocal, HeShared};
        for (kind, key, value, written) in [
            (HeShared, "gateway", " 192.0.2.1 ", Some("192.0.2.1")),
            (HeShared, "gateway", "[2001:db8::1]", Some("[2001:db8::1]")),
            (HeShared, "gateway", "fe80::1%ovirtmgmt", Some("fe80::1%ovirtmgmt")),
            (HeShared, "gateway", "gw 1", None),
            (HeShared, "domainType", "nfs4", Some("nfs4")),
            (HeShared, "domainType", "cifs", None),
            (HeShared, "tcp_t_port", "0", None),
            (HeShared, "host_id", "3", None),
            (HeLocal, "host_id", "3", Some("3")),
            (HeLocal, "host_id", "2001", None),
            (HeLocal, "configured", "yes", Some("True")),
            (HeLocal, "vdsm_use_ssl", "true", Some("true")),
            (HeLocal, "vdsm_use_ssl", "on", None),
            (
                HeLocal,
                "sdUUID",
                "8a1b6a20-6f0c-4d3a-9c4e-0a5b6c7d8e9f",
                Some("8a1b6a20-6f0c-4d3a-9c4e-0a5b6c7d8e9f"),
            ),
            (HeLocal, "sdUUID", "8a1b6a20", None),
            (Ha, "local_maintenance", "1", Some("True")),
            (Ha, "local_maintenance", "x", None),
            (Broker, "email.x", "a\nb", None),
            (HeLocal, "unknown", "anything at all", Some("anything at all")),
        ] {
            let checked = kind.checked_value(key, value);
            assert_eq!(checked.as_ref().ok().map(String::as_str), written, "{key}={value}: {checked:?}");
        }
        let error = HeShared
            .checked_value(
                "password",
                "hunter2
x",
            )
            .unwrap_err()
            .to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_edited_whole_must_be_usable() {
        let paths = Paths::default();
        let path = Path::new("volume");
        let edit = |kind: ConfigKind, text: &str, key, value| {
            kind.edited(&paths, path, text.as_bytes(), key, value)
                .map(|text| String::from_utf8(text).unwrap())
        };
        let broker = "[email]\nsmtp-port=25\n";
        assert_eq!(
            edit(ConfigKind::Broker, broker, "email.smtp-port", "26").unwrap(),
            "[email]\nsmtp-port = 26\n"
        );
        let error = edit(ConfigKind::Broker, broker, "email.smtp-port", "mail").unwrap_err().to_string();
        assert!(error.contains("smtp-port=\"mail\""), "{error}");
        let error = edit(ConfigKind::HeShared, "", "network_test", "tcp").unwrap_err().to_string();
        assert!(error.contains("tcp_t_address"), "{error}");
    }

    #[test]
    fn keys_are_found_as_the_existing_tools_find_them() {
        let broker =
            Content::parse(ConfigKind::Broker, Path::new("b"), b"[email]\nSMTP-Port=25\n[x]\ny=1\n").unwrap();
        assert_eq!(broker.get("email.smtp-port"), Some("25"));
        assert_eq!(broker.get("email.SMTP-PORT"), Some("25"));
        assert!(broker.knows("notify.state_transition") && !broker.knows("smtp-port"));
        assert!(broker.keys().contains("x.y"));
        let he = Content::parse(ConfigKind::HeLocal, Path::new("h"), b"a=1\npassword=hunter2\n").unwrap();
        assert_eq!((he.get("a"), he.get("tcp_t_port"), he.knows("tcp_t_port")), (Some("1"), None, true));
        assert!(!format!("{he:?}").contains("hunter2"));
    }
}
