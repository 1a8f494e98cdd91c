//! hosted-engine.conf: who this host is, which VM is the engine, and where the shared storage lies.
//!
//! Also the place of every shared file that follows from it. Reads and writes that one file only.

use std::path::{Path, PathBuf};

use metadata_format::HostId;

use crate::error::{ConfigError, Result};
use crate::key_value::KeyValueFile;
use crate::paths::Paths;
use crate::secret::Secret;
use crate::text::bool_text;

/// The key with the place of the VM's lease on block storage.
pub const VM_LEASE_OFFSET: &str = "vm_lease_offset";

/// Kind of storage domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainType {
    /// NFS, version left to the mount.
    Nfs,
    /// NFS version 3.
    Nfs3,
    /// NFS version 4.
    Nfs4,
    /// `GlusterFS`.
    Glusterfs,
    /// Any directory that somebody else has mounted already.
    Posixfs,
    /// iSCSI: a block domain.
    Iscsi,
    /// Fibre Channel: a block domain.
    Fc,
}

impl DomainType {
    const ALL: [Self; 7] =
        [Self::Nfs, Self::Nfs3, Self::Nfs4, Self::Glusterfs, Self::Posixfs, Self::Iscsi, Self::Fc];

    /// The word in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nfs => "nfs",
            Self::Nfs3 => "nfs3",
            Self::Nfs4 => "nfs4",
            Self::Glusterfs => "glusterfs",
            Self::Posixfs => "posixfs",
            Self::Iscsi => "iscsi",
            Self::Fc => "fc",
        }
    }

    /// Reads [`DomainType::word`].
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// VDSM's number for `StoragePool.connectStorageServer`.
    pub const fn vdsm_number(self) -> u8 {
        match self {
            Self::Nfs | Self::Nfs3 | Self::Nfs4 => 1,
            Self::Fc => 2,
            Self::Iscsi => 3,
            Self::Posixfs => 6,
            Self::Glusterfs => 7,
        }
    }

    /// True when volumes are logical volumes, not files.
    pub const fn is_block(self) -> bool {
        matches!(self, Self::Iscsi | Self::Fc)
    }
}

/// How the network monitor tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkTest {
    /// ICMP echo to the gateway.
    Ping,
    /// A DNS query over TCP to the configured resolvers.
    Dns,
    /// A TCP connection.
    Tcp {
        /// Host name or address, key `tcp_t_address`.
        address: String,
        /// Port, key `tcp_t_port`.
        port: u16,
    },
    /// No test: always good.
    None,
}

/// hosted-engine.conf as read. Keys that are not known here are kept.
#[derive(Debug, Clone)]
pub struct HostedEngineConf {
    file: KeyValueFile,
    paths: Paths,
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident = $key:literal, $expected:literal;)*) => {
        impl HostedEngineConf {
            $($(#[$doc])* pub fn $name(&self) -> Result<&str> { self.file.require($key, $expected) })*
        }
    };
}

macro_rules! optional_texts {
    ($($(#[$doc:meta])* $name:ident = $key:literal;)*) => {
        impl HostedEngineConf {
            $($(#[$doc])* pub fn $name(&self) -> Option<&str> { self.file.get($key) })*
        }
    };
}

texts! {
    /// The engine's fully qualified domain name.
    fqdn = "fqdn", "the engine's fully qualified domain name";
    /// The engine VM's uuid.
    vmid = "vmid", "the engine VM's uuid";
    /// Image of the VM's disk.
    vm_disk_id = "vm_disk_id", "the uuid of the VM disk's image";
    /// Volume of the VM's disk; also the name of the VM's sanlock resource.
    vm_disk_vol_id = "vm_disk_vol_id", "the uuid of the VM disk's volume";
    /// Connection of the storage, for example `server:/path`.
    storage = "storage", "the storage's connection, for example server:/path";
    /// The storage domain's uuid; also the name of the lockspace that carries the VM's lease.
    sd_uuid = "sdUUID", "the storage domain's uuid";
    /// Volume of the metadata.
    metadata_volume = "metadata_volume_UUID", "the uuid of the metadata volume";
    /// Image of the metadata.
    metadata_image = "metadata_image_UUID", "the uuid of the metadata image";
    /// Volume of the `hosted-engine` lockspace.
    lockspace_volume = "lockspace_volume_UUID", "the uuid of the lockspace volume";
    /// Image of the `hosted-engine` lockspace.
    lockspace_image = "lockspace_image_UUID", "the uuid of the lockspace image";
    /// The management bridge.
    bridge = "bridge", "the name of the management bridge, for example ovirtmgmt";
}

optional_texts! {
    /// The storage pool's uuid.
    sp_uuid = "spUUID";
    /// Uuid of the storage connection.
    connection_uuid = "connectionUUID";
    /// Extra mount options.
    mnt_options = "mnt_options";
    /// NFS version.
    nfs_version = "nfs_version";
    /// Console kind: `vnc` or `spice`.
    console = "console";
    /// The gateway to ping, when it is not to be taken from the routing table.
    gateway = "gateway";
    /// The engine's CA certificate.
    ca_cert = "ca_cert";
    /// Volume of the configuration archive.
    conf_volume = "conf_volume_UUID";
    /// Image of the configuration archive.
    conf_image = "conf_image_UUID";
    /// iSCSI target.
    iqn = "iqn";
    /// iSCSI portal.
    portal = "portal";
    /// iSCSI user.
    iscsi_user = "user";
    /// iSCSI paths that are not to be used.
    iscsi_paths_blacklist = "iscsi_paths_blacklist";
    /// File system of a `posixfs` domain, as `mount -t` takes it.
    vfs_type = "vfs_type";
}

impl HostedEngineConf {
    /// Reads the file of this host.
    pub fn load(paths: &Paths) -> Result<Self> {
        Ok(Self { file: KeyValueFile::load(paths.hosted_engine_conf())?, paths: paths.clone() })
    }

    /// Reads a text as if it were the file of this host.
    pub fn parse(paths: &Paths, text: &str) -> Self {
        Self { file: KeyValueFile::parse(paths.hosted_engine_conf(), text), paths: paths.clone() }
    }

    /// The lines, for keys without a method here.
    pub fn file(&self) -> &KeyValueFile {
        &self.file
    }

    /// The host's paths.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// This host's number, if set.
    pub fn host_id(&self) -> Result<Option<HostId>> {
        self.file.get_as("host_id", "a number from 1 to 2000", |text| text.parse().ok())
    }

    /// This host's number; an error that says what to do when it is not set.
    pub fn require_host_id(&self) -> Result<HostId> {
        self.host_id()?.ok_or_else(|| ConfigError::Missing {
            path: self.file.path().to_owned(),
            key: "host_id".to_owned(),
            expected: "this host's number from 1 to 2000; is the host deployed?".to_owned(),
        })
    }

    /// True when `host_id` is set and `configured` is absent or true.
    pub fn is_configured(&self) -> Result<bool> {
        Ok(self.host_id()?.is_some() && self.file.get_bool("configured")?.unwrap_or(true))
    }

    /// Kind of storage.
    pub fn domain_type(&self) -> Result<DomainType> {
        const EXPECTED: &str = "one of nfs, nfs3, nfs4, glusterfs, posixfs, iscsi, fc";
        self.file.require("domainType", EXPECTED)?;
        let kind = self.file.get_as("domainType", EXPECTED, DomainType::from_word)?;
        kind.ok_or_else(|| self.file.bad_value("domainType", EXPECTED))
    }

    /// How to test the network; ping when it is not set.
    pub fn network_test(&self) -> Result<NetworkTest> {
        const PORT: &str = "a TCP port from 1 to 65535";
        // `None` is a word of this key, not the absence of a value, and is written in small letters.
        match self.file.find("network_test").map_or("", |found| found.value) {
            "" | "None" | "ping" => Ok(NetworkTest::Ping),
            "dns" => Ok(NetworkTest::Dns),
            "tcp" => {
                let address = self.file.require("tcp_t_address", "the host for the TCP network test")?;
                self.file.require("tcp_t_port", PORT)?;
                let port =
                    self.file.get_as("tcp_t_port", PORT, |text| text.parse().ok().filter(|p| *p != 0))?;
                let port = port.ok_or_else(|| self.file.bad_value("tcp_t_port", PORT))?;
                Ok(NetworkTest::Tcp { address: address.to_owned(), port })
            }
            "none" => Ok(NetworkTest::None),
            _ => Err(self.file.bad_value("network_test", "one of ping, dns, tcp, none")),
        }
    }

    /// Whether VDSM is spoken to over TLS; true when not set.
    pub fn vdsm_use_ssl(&self) -> Result<bool> {
        Ok(self.file.get_bool("vdsm_use_ssl")?.unwrap_or(true))
    }

    /// The iSCSI password.
    pub fn iscsi_password(&self) -> Option<Secret> {
        self.file.get("password").map(Secret::new)
    }

    /// Subject of the certificate that SPICE presents, without the quotes that deploy puts around it.
    pub fn ca_subject(&self) -> Option<&str> {
        self.file.get("ca_subject").map(|text| text.trim_matches('"')).filter(|text| !text.is_empty())
    }

    /// The iSCSI port.
    pub fn iscsi_port(&self) -> Result<Option<u16>> {
        self.file.get_as("port", "a TCP port from 1 to 65535", |text| text.parse().ok())
    }

    /// Where the VM's description is kept on this host: the key `conf`, else [`Paths::vm_conf`].
    pub fn vm_conf_path(&self) -> PathBuf {
        self.file.get("conf").map_or_else(|| self.paths.vm_conf(), |path| self.paths.resolve(path))
    }

    /// Sets keys in the file of this host, keeping comments, order and what other processes changed meanwhile.
    /// Keys with secrets take the file from everybody but its owner and group.
    pub fn update<'k>(&mut self, values: impl IntoIterator<Item = (&'k str, &'k str)>) -> Result<()> {
        self.file = KeyValueFile::update(&self.paths.hosted_engine_conf(), |file| {
            for (key, value) in values {
                file.set(key, value);
            }
        })?;
        Ok(())
    }

    /// Where the storage is mounted.
    pub fn mount_dir(&self) -> Result<PathBuf> {
        let mounts = self.paths.storage_mounts();
        Ok(match self.domain_type()? {
            DomainType::Iscsi | DomainType::Fc => mounts.join("blockSD"),
            DomainType::Glusterfs => mounts.join("glusterSD").join(escape_connection(self.storage()?)),
            DomainType::Nfs | DomainType::Nfs3 | DomainType::Nfs4 | DomainType::Posixfs => {
                mounts.join(escape_connection(self.storage()?))
            }
        })
    }

    /// The storage domain's directory.
    pub fn storage_domain_dir(&self) -> Result<PathBuf> {
        Ok(self.mount_dir()?.join(plain_name(&self.file, "sdUUID")?))
    }

    /// The metadata file: one block for each host.
    pub fn metadata_path(&self) -> Result<PathBuf> {
        Ok(self.storage_domain_dir()?.join("ha_agent/hosted-engine.metadata"))
    }

    /// The `hosted-engine` lockspace, which protects the blocks of the metadata file.
    pub fn lockspace_path(&self) -> Result<PathBuf> {
        Ok(self.storage_domain_dir()?.join("ha_agent/hosted-engine.lockspace"))
    }

    /// The storage domain's own lockspace, which carries the VM's lease.
    pub fn ids_path(&self) -> Result<PathBuf> {
        Ok(self.storage_domain_dir()?.join("dom_md/ids"))
    }

    /// The storage domain's volume of VM leases; a domain of an old format has none.
    pub fn xleases_path(&self) -> Result<PathBuf> {
        Ok(self.storage_domain_dir()?.join("dom_md/xleases"))
    }

    /// The volume `volume` of the image `image`: in the storage domain of file storage, where VDSM has prepared it
    /// for block storage.
    pub fn volume_path(&self, image: &str, volume: &str) -> Result<PathBuf> {
        if self.domain_type()?.is_block() {
            let domain = self.paths.prepared_volumes().join(plain_name(&self.file, "sdUUID")?);
            return Ok(domain.join(image).join(volume));
        }
        Ok(self.storage_domain_dir()?.join("images").join(image).join(volume))
    }

    /// The configuration volume, whose content [`crate::conf_archive`] reads; `None` when the cluster has none.
    pub fn conf_volume_path(&self) -> Result<Option<PathBuf>> {
        if self.conf_image().is_none() || self.conf_volume().is_none() {
            return Ok(None);
        }
        let image = plain_name(&self.file, "conf_image_UUID")?;
        self.volume_path(image, plain_name(&self.file, "conf_volume_UUID")?).map(Some)
    }

    /// The VM's disk.
    pub fn vm_disk_path(&self) -> Result<PathBuf> {
        self.volume_path(plain_name(&self.file, "vm_disk_id")?, plain_name(&self.file, "vm_disk_vol_id")?)
    }

    /// The file that is the VM's lease alone, beside its disk. Block storage has none.
    pub fn vm_lease_path(&self) -> Result<PathBuf> {
        if self.domain_type()?.is_block() {
            let expected =
                "file storage (nfs, glusterfs, posixfs) for the VM's lease to be a file of its own";
            return Err(self.file.bad_value("domainType", expected));
        }
        let disk = self.vm_disk_path()?;
        let mut name = disk.file_name().unwrap_or_default().to_owned();
        name.push(".lease");
        Ok(disk.with_file_name(name))
    }

    /// Where the sanlock resource is that is the VM's lease, named as the volume of its disk: the file or device, and the
    /// bytes before it. On file storage that is the start of [`Self::vm_lease_path`]. A block domain keeps the leases of all
    /// its volumes in one; in a domain that VDSM made, VDSM alone knows the offset.
    pub fn vm_lease_place(&self) -> Result<(PathBuf, u64)> {
        const EXPECTED: &str = "where the lease of the VM's disk begins in the domain's leases, in bytes: a multiple of \
                                1048576, (100 + the number in the disk's tag MD_) times the alignment, 1 MiB for sectors \
                                of 512 bytes and 8 MiB for 4096. Deployment without VDSM writes it; where VDSM manages \
                                the host use hypervisor = \"vdsm\", which needs no offset";
        if !self.domain_type()?.is_block() {
            return Ok((self.vm_lease_path()?, 0));
        }
        self.file.require(VM_LEASE_OFFSET, EXPECTED)?;
        let aligned =
            |text: &str| text.parse().ok().filter(|bytes: &u64| *bytes > 0 && bytes.is_multiple_of(1 << 20));
        let offset = self.file.get_as(VM_LEASE_OFFSET, EXPECTED, aligned)?;
        let offset = offset.ok_or_else(|| self.file.bad_value(VM_LEASE_OFFSET, EXPECTED))?;
        Ok((self.storage_domain_dir()?.join("dom_md/leases"), offset))
    }

    /// The name of the VM's sanlock resource.
    pub fn vm_lease_name(&self) -> Result<&str> {
        self.vm_disk_vol_id()
    }
}

/// A value that becomes one component of a path.
fn plain_name<'a>(file: &'a KeyValueFile, key: &str) -> Result<&'a str> {
    const EXPECTED: &str = "a uuid (one plain name without \"/\")";
    let value = file.require(key, EXPECTED)?;
    if value.contains('/') || value == "." || value == ".." {
        return Err(file.bad_value(key, EXPECTED));
    }
    Ok(value)
}

/// A connection as VDSM mounts it: empty and `.` parts of its path taken out, `..` resolved, no `/` at the end unless
/// the path is `/` itself.
pub fn normal_connection(connection: &str) -> String {
    // What stands before the path, `server:` or `[address]:`, is nobody's to change.
    let (server, path) = connection.split_at(connection.find('/').unwrap_or(connection.len()));
    if path.is_empty() {
        return server.to_owned();
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("{server}/{}", parts.join("/"))
}

/// The name of the mount directory for a connection in its normal form: `_` doubled, then `/` turned into `_`.
pub fn escape_connection(connection: &str) -> String {
    normal_connection(connection).replace('_', "__").replace('/', "_")
}

/// ha.conf: local maintenance of this host. Either of the first two means local maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HaConf {
    /// Set by the engine or by the command line.
    pub local_maintenance: bool,
    /// Set by an operator by hand.
    pub local_maintenance_manual: bool,
    /// Also when no other host can take the engine VM: then it is shut down. Means nothing without one of the others.
    pub local_maintenance_force: bool,
}

impl HaConf {
    /// Reads the file; a missing file and a missing key mean false.
    pub fn load(paths: &Paths) -> Result<Self> {
        let file = match KeyValueFile::load(paths.ha_conf()) {
            Err(error) if error.is_not_found() => return Ok(Self::default()),
            other => other?,
        };
        Ok(Self {
            local_maintenance: file.get_bool("local_maintenance")?.unwrap_or(false),
            local_maintenance_manual: file.get_bool("local_maintenance_manual")?.unwrap_or(false),
            local_maintenance_force: file.get_bool("local_maintenance_force")?.unwrap_or(false),
        })
    }

    /// True when the host is in local maintenance.
    pub const fn is_maintenance(self) -> bool {
        self.local_maintenance || self.local_maintenance_manual
    }

    /// Writes the keys, keeping everything else in the file. Force is there only while it is set: earlier releases do not
    /// know it.
    pub fn store(self, paths: &Paths) -> Result<()> {
        KeyValueFile::update(&paths.ha_conf(), |file| {
            file.set("local_maintenance", bool_text(self.local_maintenance));
            file.set("local_maintenance_manual", bool_text(self.local_maintenance_manual));
            if self.local_maintenance_force {
                file.set("local_maintenance_force", bool_text(true));
            } else {
                file.unset("local_maintenance_force");
            }
        })?;
        Ok(())
    }

    /// The file's path, for watching it.
    pub fn path(paths: &Paths) -> PathBuf {
        Path::to_owned(&paths.ha_conf())
    }
}

#[cfg(test)]
#[path = "hosted_engine_tests.rs"]
mod tests;
