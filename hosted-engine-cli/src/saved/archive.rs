//! The file of `--backup`: a tar archive, plain enough to be looked into and unpacked with the usual tools.
//!
//! | member | what |
//! | --- | --- |
//! | `manifest.json` | first: whose it is, when, and each other member's length and SHA-256 |
//! | `shared/configuration.tar` | the cluster's configuration archive |
//! | `shared/metadata` | block 0 and the hosts' blocks, up to the last that is used |
//! | `shared/lockspace`, `shared/xleases` | the lockspace's and the VM leases' index, for the record: not restored |
//! | `host/…` | this host's own files |
//!
//! Pure: no I/O.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::Read as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Version of the form.
const FORM: u32 = 1;
const MANIFEST: &str = "manifest.json";
/// No backup is longer.
pub const MAX_BYTES: u64 = 64 << 20;

/// Why a file is no backup that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is something else.
    #[error("it is no file of hosted-engine --backup: {0}")]
    Foreign(String),
    /// Of a later release.
    #[error(
        "its form is {0}, and this release reads form {FORM}: use the release that wrote it, or a later one"
    )]
    TooNew(u32),
    /// A member is not as it was written.
    #[error("{name} in it is damaged: {why}")]
    Damaged {
        /// The member.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// It cannot be written.
    #[error("it cannot be made: {0}")]
    Write(#[from] std::io::Error),
}

/// Whose backup it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whose {
    /// When it was made, seconds since 1970.
    pub at: i64,
    /// The host that made it.
    pub host_id: u16,
    /// Its node name.
    pub host_name: String,
    /// The engine's name.
    pub fqdn: String,
    /// The storage domain.
    pub sd_uuid: String,
    /// The engine VM.
    pub vmid: String,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    form: u32,
    version: String,
    whose: Whose,
    members: BTreeMap<String, Sum>,
}

#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Sum {
    bytes: u64,
    sha256: String,
}

impl Sum {
    fn of(bytes: &[u8]) -> Self {
        let mut sha256 = String::new();
        for byte in Sha256::digest(bytes) {
            // Writing to a String cannot fail.
            let _ = write!(sha256, "{byte:02x}");
        }
        Self { bytes: bytes.len() as u64, sha256 }
    }
}

/// A backup.
#[derive(Clone, PartialEq, Eq)]
pub struct Saved {
    /// Whose.
    pub whose: Whose,
    /// The members but the manifest, by name.
    pub members: BTreeMap<String, Vec<u8>>,
}

/// Names only: there are passwords in it.
impl fmt::Debug for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saved").field("whose", &self.whose).field("members", &self.members.keys()).finish()
    }
}

impl Saved {
    /// The bytes of the file.
    ///
    /// # Errors
    /// When a member does not fit into a tar archive.
    pub fn encode(&self) -> Result<Vec<u8>, ArchiveError> {
        let members = self.members.iter().map(|(name, bytes)| (name.clone(), Sum::of(bytes))).collect();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let manifest = Manifest { form: FORM, version, whose: self.whose.clone(), members };
        let manifest = serde_json::to_vec_pretty(&manifest).map_err(std::io::Error::from)?;
        let mut tar = tar::Builder::new(Vec::new());
        let first = std::iter::once((MANIFEST, manifest.as_slice()));
        let others = self.members.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        for (name, bytes) in first.chain(others) {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(u64::try_from(self.whose.at).unwrap_or(0));
            tar.append_data(&mut header, name, bytes)?;
        }
        Ok(tar.into_inner()?)
    }

    /// Reads the bytes of a file, and checks each member's length and sum.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArchiveError> {
        let foreign = |error: &dyn fmt::Display| ArchiveError::Foreign(error.to_string());
        let mut members = BTreeMap::new();
        let mut archive = tar::Archive::new(bytes);
        for entry in archive.entries().map_err(|error| foreign(&error))? {
            let mut entry = entry.map_err(|error| {
                if members.is_empty() {
                    return foreign(&error);
                }
                // It begins as one.
                ArchiveError::Damaged { name: "what follows".to_owned(), why: error.to_string() }
            })?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if !entry.header().entry_type().is_file() {
                return Err(foreign(&format!("{name} is no file")));
            }
            let mut content = Vec::new();
            entry
                .read_to_end(&mut content)
                .map_err(|error| ArchiveError::Damaged { name: name.clone(), why: error.to_string() })?;
            if members.insert(name.clone(), content).is_some() {
                return Err(ArchiveError::Damaged { name, why: "it is there twice".to_owned() });
            }
        }
        let manifest = members.remove(MANIFEST).ok_or_else(|| foreign(&"it has no manifest.json"))?;
        let form = serde_json::from_slice::<serde_json::Value>(&manifest).map_err(|error| foreign(&error))?;
        let form = form["form"].as_u64().ok_or_else(|| foreign(&"its manifest has no form"))?;
        if form != u64::from(FORM) {
            return Err(ArchiveError::TooNew(u32::try_from(form).unwrap_or(u32::MAX)));
        }
        let manifest: Manifest = serde_json::from_slice(&manifest).map_err(|error| foreign(&error))?;
        let damaged =
            |name: &str, why: &str| ArchiveError::Damaged { name: name.to_owned(), why: why.to_owned() };
        for (name, sum) in &manifest.members {
            let bytes = members.get(name).ok_or_else(|| damaged(name, "it is missing"))?;
            if Sum::of(bytes) != *sum {
                return Err(damaged(name, "its length or its SHA-256 is not the manifest's"));
            }
        }
        if let Some(name) = members.keys().find(|name| !manifest.members.contains_key(*name)) {
            return Err(damaged(name, "the manifest does not know it"));
        }
        Ok(Self { whose: manifest.whose, members })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::saved) fn saved() -> Saved {
        Saved {
            whose: Whose {
                at: 1_700_000_000,
                host_id: 2,
                host_name: "h2".to_owned(),
                fqdn: "engine.example.com".to_owned(),
                sd_uuid: "sd".to_owned(),
                vmid: "vm".to_owned(),
            },
            members: BTreeMap::from([
                ("host/hosted-engine.conf".to_owned(), b"host_id=2\npassword=hunter2\n".to_vec()),
                ("shared/metadata".to_owned(), vec![7; 9000]),
            ]),
        }
    }

    #[test]
    fn what_was_written_is_read_and_nothing_secret_is_printed() {
        let saved = saved();
        assert_eq!(Saved::parse(&saved.encode().unwrap()).unwrap(), saved);
        assert!(!format!("{saved:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_missing_changed_or_foreign_is_named() {
        let said = |bytes: &[u8]| Saved::parse(bytes).unwrap_err().to_string();
        assert!(said(b"hello").contains("no file of hosted-engine --backup"), "{}", said(b"hello"));
        let bytes = saved().encode().unwrap();
        let at = bytes.windows(5).rposition(|part| part == [7; 5]).unwrap();
        let mut changed = bytes.clone();
        changed[at] = 8;
        assert!(said(&changed).starts_with("shared/metadata in it is damaged"), "{}", said(&changed));
        assert!(said(&bytes[..at]).contains("damaged"), "{}", said(&bytes[..at]));
        let text = String::from_utf8(bytes[..1536].to_vec()).unwrap();
        let newer = text.replace("\"form\": 1,", "\"form\": 2,").into_bytes();
        let newer = [&newer[..], &bytes[1536..]].concat();
        assert!(said(&newer).contains("its form is 2"), "{}", said(&newer));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert!(Saved::parse(&bytes).is_err());
        }

        #[test]
        fn no_changed_byte_of_a_content_passes(at in 0_usize..9000, by in 1_u8..=255) {
            let mut bytes = saved().encode().unwrap();
            let first = bytes.windows(100).position(|part| part == [7; 100]).unwrap();
            bytes[first + at] ^= by;
            prop_assert!(Saved::parse(&bytes).is_err());
        }
    }
}
