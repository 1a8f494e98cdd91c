//! The VM's lease on the storage that a cluster leaves.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use engine_vm::lease::LeaseSpec;
use ha_config::{HaToml, HostedEngineConf};
use sanlock_client::{
    Client, Disk, DiskPath, LockspaceName, PaxosRecord, Resource, ResourceName, SanlockError,
};

use super::former;
use crate::deploy::{DeployError, World};
use crate::lease_status::gather::domain_grid;
use crate::setup::{SetupError, grid_for};
use crate::shared_file::{SharedFile, UNIT};

/// A port: tests have a lease that needs no lock manager.
pub(super) trait FormerLease {
    /// Takes it for this process, until the value is dropped.
    ///
    /// # Errors
    /// Who holds it, or that there is none.
    fn take(&self, world: &World<'_>) -> Result<Box<dyn Any>, DeployError>;

    /// Makes that nobody can take it any more, and looks whether it is so. It must be held.
    ///
    /// # Errors
    /// When that fails.
    fn retire(&self, world: &World<'_>) -> Result<(), DeployError>;

    /// Whether there is none to take.
    ///
    /// # Errors
    /// When its place cannot be read.
    fn is_retired(&self, world: &World<'_>) -> Result<bool, DeployError>;
}

/// The lease, and whether this process has held it since before the VM's disk was copied.
pub(super) struct Held {
    pub lease: Box<dyn FormerLease>,
    pub holding: RefCell<Option<Box<dyn Any>>>,
}

impl Held {
    pub fn shared(lease: Box<dyn FormerLease>) -> Rc<Self> {
        Rc::new(Self { lease, holding: RefCell::new(None) })
    }
}

/// sanlock's, beside the VM's disk or among the domain's leases.
pub(super) struct OfSanlock;

fn conf(world: &World<'_>) -> Result<HostedEngineConf, DeployError> {
    Ok(former(world)?.conf(world.paths))
}

/// The lease as this host takes it for a start.
///
/// # Errors
/// What the configuration lacks.
pub(super) fn spec(conf: &HostedEngineConf, toml: &HaToml) -> Result<LeaseSpec, DeployError> {
    LeaseSpec::of_engine_vm(conf, toml).map_err(|error| DeployError::Refused(error.to_string()))
}

impl FormerLease for OfSanlock {
    fn take(&self, world: &World<'_>) -> Result<Box<dyn Any>, DeployError> {
        let spec = spec(&conf(world)?, &HaToml::load(world.paths)?)?;
        let holding = spec.take().map_err(|error| {
            DeployError::Refused(format!(
                "the engine VM's lease on the former storage cannot be had: {error}. The VM must be down everywhere, in \
                 global maintenance, while its disk is copied"
            ))
        })?;
        Ok(Box::new(holding))
    }

    fn retire(&self, world: &World<'_>) -> Result<(), DeployError> {
        let conf = conf(world)?;
        let (path, offset) = conf.vm_lease_place()?;
        let path = std::path::absolute(&path).map_err(DeployError::io("find the place of", &path))?;
        let sector = || SharedFile::open(&path, false)?.sector_size();
        let grid = match domain_grid(&conf) {
            Some(grid) => grid,
            None => grid_for(sector().map_err(SetupError::from)?),
        };
        let clear = || -> Result<(), SanlockError> {
            let resource = Resource {
                lockspace: LockspaceName::new(conf.sd_uuid().unwrap_or_default())?,
                name: ResourceName::new(conf.vm_lease_name().unwrap_or_default())?,
                disks: vec![Disk { path: DiskPath::new(&path)?, offset }],
            };
            let socket = world.paths.sanlock_socket();
            Client::new(std::path::absolute(&socket).unwrap_or(socket)).clear_resource(&resource, Some(grid))
        };
        clear().map_err(|source| {
            DeployError::Setup(SetupError::Sanlock {
                what: format!("retiring the engine VM's lease in {}", path.display()),
                source,
            })
        })?;
        if self.is_retired(world)? {
            return Ok(());
        }
        Err(DeployError::Refused(format!(
            "{}: the lease is there still after it was cleared",
            path.display()
        )))
    }

    fn is_retired(&self, world: &World<'_>) -> Result<bool, DeployError> {
        let (path, offset) = conf(world)?.vm_lease_place()?;
        let record = SharedFile::open(&path, false).and_then(|file| file.read(offset, UNIT));
        Ok(PaxosRecord::parse(&record.map_err(SetupError::from)?).is_none())
    }
}
