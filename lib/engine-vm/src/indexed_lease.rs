//! A lease in the storage domain's xleases volume, found by its name each time that it is used.
//!
//! While the VM's disk has a lease of its own, hosts that are not told of this one would take that, and two VMs could run:
//! the VM is not started under this lease before the disk's is retired (`hosted-engine --lease-use`). A host that was not
//! told then finds no lease, and starts nothing either.

use std::path::PathBuf;

use ha_config::shared_file::{SharedFile, UNIT};
use sanlock_client::{
    Client, DeltaRecord, Disk, DiskPath, LockspaceName, PaxosRecord, Resource, ResourceName, SanlockError,
};
use serde::{Deserialize, Serialize};
use xleases::LeaseName;

use crate::lease::{DEADLINE, LeaseError};

/// Which lease, and where its index is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedLease {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The storage domain's lockspace, which this host must have joined.
    pub lockspace: String,
    /// The lease's name.
    pub resource: String,
    /// The xleases volume.
    pub volume: PathBuf,
    /// The lockspace's volume, whose layout the leases share.
    pub ids: PathBuf,
    /// The file or device with the lease of the VM's disk, which must hold none.
    pub of_disk: Option<PathBuf>,
    /// Bytes before it.
    #[serde(default)]
    pub of_disk_offset: u64,
}

fn unavailable(error: &dyn std::fmt::Display) -> LeaseError {
    LeaseError::Unavailable(error.to_string())
}

impl IndexedLease {
    /// The daemon, and the resource at the offset that `find` gives.
    pub(crate) fn client(
        &self,
        find: impl FnOnce() -> Result<u64, LeaseError>,
    ) -> (Client, Result<Resource, LeaseError>) {
        let resource = find().and_then(|offset| {
            let build = || -> Result<Resource, SanlockError> {
                Ok(Resource {
                    lockspace: LockspaceName::new(self.lockspace.as_str())?,
                    name: ResourceName::new(self.resource.as_str())?,
                    disks: vec![Disk { path: DiskPath::new(&self.volume)?, offset }],
                })
            };
            build().map_err(|error| unavailable(&error))
        });
        (Client::new(&self.socket).with_deadline(DEADLINE), resource)
    }

    /// Its byte offset in the volume now.
    pub(crate) fn offset(&self) -> Result<u64, LeaseError> {
        self.refuse_lease_of_disk()?;
        let told = |detail: String| LeaseError::Unavailable(format!("{}: {detail}", self.volume.display()));
        let ids = SharedFile::open(&self.ids, false).and_then(|file| file.read(0, UNIT));
        let grid = ids.ok().and_then(|bytes| DeltaRecord::parse(&bytes)).map(|record| record.grid());
        let name = LeaseName::new(&self.resource).map_err(|error| unavailable(&error))?;
        let volume = xleases::open_to_read(&self.volume, grid).map_err(|error| told(error.to_string()))?;
        let lease = volume.lookup(&name).map_err(|error| told(error.to_string()))?;
        if lease.lockspace != self.lockspace {
            return Err(told(format!(
                "its leases are of the lockspace {}, and this storage domain is {}",
                lease.lockspace, self.lockspace
            )));
        }
        Ok(lease.offset)
    }

    /// A disk that has a lease of its own protects the VM on hosts that do not know of this one.
    fn refuse_lease_of_disk(&self) -> Result<(), LeaseError> {
        let Some(path) = self.of_disk.as_ref().filter(|path| path.exists()) else { return Ok(()) };
        let first = SharedFile::open(path, false).and_then(|file| file.read(self.of_disk_offset, UNIT));
        let first = first.map_err(|error| unavailable(&error))?;
        if PaxosRecord::parse(&first).is_none() {
            return Ok(());
        }
        Err(LeaseError::Unavailable(format!(
            "{} still holds the lease of the VM's disk, which hosts without [lease] vm = {:?} would take: retire it with \
             hosted-engine --lease-use {}",
            path.display(),
            self.resource,
            self.resource
        )))
    }
}

#[cfg(test)]
mod tests {
    use ha_config::{HaToml, HostedEngineConf, Paths};
    use sanlock_client::{GridSize, Owner};
    use xleases::{LeasesVolume, Resources};

    use crate::domain_xml::LeaseTarget;
    use crate::lease::LeaseSpec;

    use super::*;

    /// Says that every lease was written.
    struct Willing;

    impl Resources for Willing {
        fn write(&self, _lockspace: &str, _name: &LeaseName, _offset: u64) -> Result<(), String> {
            Ok(())
        }
        fn clear(&self, _lockspace: &str, _offset: u64) -> Result<(), String> {
            Ok(())
        }
        fn may_hold(&self, _lockspace: &str, _owner: Owner) -> Result<bool, String> {
            Ok(false)
        }
        fn take(&self, _lockspace: &str, _name: &LeaseName, _offset: u64) -> Result<(), String> {
            Ok(())
        }
        fn give_back(&self, _lockspace: &str, _name: &LeaseName, _offset: u64) -> Result<(), String> {
            Ok(())
        }
    }

    /// A storage domain with an xleases volume, and the lease that ha.toml's `lease.vm = "vm"` means there.
    fn scene() -> (tempfile::TempDir, IndexedLease, LeasesVolume<SharedFile, Willing>) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, mib) in [("xleases", 6), ("ids", 1), ("disk.lease", 1)] {
            std::fs::File::create(at(name)).unwrap().set_len(mib << 20).unwrap();
        }
        let lease = IndexedLease {
            socket: at("no-daemon"),
            lockspace: "sd".to_owned(),
            resource: "vm".to_owned(),
            volume: at("xleases"),
            ids: at("ids"),
            of_disk: Some(at("disk.lease")),
            of_disk_offset: 0,
        };
        let file = SharedFile::open(&at("xleases"), true).unwrap();
        let grid = GridSize::Sector512Align1M;
        (dir, lease, LeasesVolume::format(file, Willing, grid, "sd", 1).unwrap())
    }

    #[test]
    fn the_place_is_looked_up_anew_at_each_use() {
        let (_dir, lease, mut volume) = scene();
        let spec = LeaseSpec::Indexed(Box::new(lease.clone()));
        let missing = spec.as_element().unwrap_err().to_string();
        assert!(missing.contains("xleases: there is no lease vm"), "{missing}");
        let [vm, other] = ["vm", "other"].map(|name| LeaseName::new(name).unwrap());
        volume.add(&vm).unwrap();
        let target = |offset| LeaseTarget::At { path: lease.volume.clone(), offset };
        assert_eq!(spec.as_element().unwrap().target, target(3 << 20));
        volume.remove(&vm).unwrap();
        volume.add(&other).unwrap();
        volume.add(&vm).unwrap();
        assert_eq!(spec.as_element().unwrap().target, target(4 << 20));
    }

    #[test]
    fn a_disk_with_a_lease_of_its_own_is_a_reason_not_to_start() {
        let (_dir, lease, mut volume) = scene();
        volume.add(&LeaseName::new("vm").unwrap()).unwrap();
        let mut record = vec![0; 512];
        record[..4].copy_from_slice(&0x0615_2010_u32.to_le_bytes());
        let disk = SharedFile::open(lease.of_disk.as_ref().unwrap(), true).unwrap();
        disk.write(0, &record).unwrap();
        let error = lease.offset().unwrap_err().to_string();
        assert!(error.contains("disk.lease still holds the lease of the VM's disk"), "{error}");
        assert!(error.ends_with("hosted-engine --lease-use vm"), "{error}");
        // A cleared one is none.
        record[..4].copy_from_slice(&0x1128_2016_u32.to_le_bytes());
        disk.write(0, &record).unwrap();
        assert_eq!(lease.offset(), Ok(3 << 20));
    }

    #[test]
    fn a_volume_of_another_domain_is_refused() {
        let (_dir, lease, mut volume) = scene();
        volume.add(&LeaseName::new("vm").unwrap()).unwrap();
        let error = IndexedLease { lockspace: "other".to_owned(), ..lease }.offset().unwrap_err().to_string();
        assert!(
            error.contains("its leases are of the lockspace sd, and this storage domain is other"),
            "{error}"
        );
    }

    #[test]
    fn the_setting_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        std::fs::create_dir_all(paths.hosted_engine_conf().parent().unwrap()).unwrap();
        std::fs::write(
            paths.hosted_engine_conf(),
            "domainType=nfs\nstorage=s:/x\nsdUUID=sd\nvm_disk_id=d\nvm_disk_vol_id=v\nvmid=i\n",
        )
        .unwrap();
        let conf = HostedEngineConf::load(&paths).unwrap();
        let spec =
            |text: &str| LeaseSpec::of_engine_vm(&conf, &HaToml::parse(&paths, text).unwrap()).unwrap();
        assert!(matches!(spec(""), LeaseSpec::Sanlock { resource, offset: 0, .. } if resource == "v"));
        assert!(matches!(spec("[lease]\nadapter = \"file\"\n"), LeaseSpec::File { .. }));
        let LeaseSpec::Indexed(lease) = spec("[lease]\nvm = \"vm\"\n") else { panic!() };
        assert!(lease.volume.ends_with("sd/dom_md/xleases"), "{lease:?}");
        assert!(lease.of_disk.unwrap().ends_with("images/d/v.lease"));

        // On block storage the disk's lease is one of many in a volume.
        let block = |more: &str| {
            let text = format!("domainType=fc\nsdUUID=sd\nvm_disk_id=d\nvm_disk_vol_id=v\nvmid=i\n{more}");
            let conf = HostedEngineConf::parse(&paths, &text);
            move |toml: &str| LeaseSpec::of_engine_vm(&conf, &HaToml::parse(conf.paths(), toml).unwrap())
        };
        let known = block("vm_lease_offset=109051904\n");
        let LeaseSpec::Sanlock { path, offset, .. } = known("").unwrap() else { panic!() };
        assert!(path.ends_with("blockSD/sd/dom_md/leases") && offset == 104 << 20, "{path:?} {offset}");
        let LeaseSpec::Indexed(lease) = known("[lease]\nvm = \"vm\"\n").unwrap() else { panic!() };
        assert_eq!(lease.of_disk_offset, 104 << 20);
        assert!(known("[lease]\nadapter = \"file\"\n").is_err());
        assert!(block("")("").unwrap_err().to_string().contains("vm_lease_offset"));
    }
}
