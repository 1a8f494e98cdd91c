//! `--lease-use`: changes which lease protects the engine VM, so that no host can go on with the other one.
//!
//! ```text
//!  to a lease of the volume: hold both ── clear the disk's ── give both back
//!  to the disk's:            hold the volume's ── write the disk's ── give the volume's back
//! ```
//!
//! Holding them shows that the VM runs nowhere. A host whose ha.toml still means the other lease finds none on the
//! disk, or finds one that must not be there: in both cases it starts nothing and says why.

use anyhow::{Context, bail};
use ha_config::ha_toml::Hypervisor;
use ha_config::{HaToml, HostedEngineConf};
use sanlock_client::{
    AcquireOptions, Client, Disk, DiskPath, LockspaceName, PaxosRecord, Registration, Resource, ResourceName,
};
use xleases::LeaseName;

use super::UseArgs;
use crate::lease_status::gather::domain_grid;
use crate::setup::grid_for;
use crate::shared_file::{SharedFile, UNIT};
use crate::terminal::Terminal;

/// The two leases that may protect the VM.
struct Both {
    client: Client,
    of_disk: Resource,
    has_of_disk: bool,
    disk: SharedFile,
}

fn resource(
    conf: &HostedEngineConf,
    name: &str,
    path: &std::path::Path,
    offset: u64,
) -> anyhow::Result<Resource> {
    Ok(Resource {
        lockspace: LockspaceName::new(conf.sd_uuid()?)?,
        name: ResourceName::new(name)?,
        disks: vec![Disk { path: DiskPath::new(std::path::absolute(path)?)?, offset }],
    })
}

impl Both {
    fn find(conf: &HostedEngineConf) -> anyhow::Result<Self> {
        let (path, offset) = conf.vm_lease_place()?;
        let disk = SharedFile::open(&path, false)?;
        Ok(Self {
            client: Client::new(std::path::absolute(conf.paths().sanlock_socket())?),
            of_disk: resource(conf, conf.vm_lease_name()?, &path, offset)?,
            has_of_disk: PaxosRecord::parse(&disk.read(offset, UNIT)?).is_some(),
            disk,
        })
    }

    /// Takes leases for this process.
    fn hold(&self, leases: &[Resource]) -> anyhow::Result<Registration> {
        let mut registration = Registration::register_self(&self.client)?;
        let options = AcquireOptions { no_wait: true, owner_name: "hosted-engine".to_owned() };
        let names: Vec<&str> = leases.iter().map(|lease| lease.name.as_str()).collect();
        registration.acquire(leases, &options).with_context(|| {
            format!(
                "{} must be free: shut the engine VM down in global maintenance first",
                names.join(" and ")
            )
        })?;
        Ok(registration)
    }
}

/// A lease of the volume.
fn indexed(conf: &HostedEngineConf, name: &str) -> anyhow::Result<Resource> {
    let path = conf.xleases_path()?;
    let named = |error| anyhow::anyhow!("{}: {error}", path.display());
    let volume = xleases::open_to_read(&path, domain_grid(conf)).map_err(named)?;
    let lease = volume.lookup(&LeaseName::new(name)?).map_err(named)?;
    resource(conf, name, &path, lease.offset)
}

/// Does it.
pub fn switch(conf: &HostedEngineConf, args: &UseArgs, terminal: &mut Terminal) -> anyhow::Result<()> {
    let toml = HaToml::load(conf.paths())?;
    if toml.vm.hypervisor == Hypervisor::Vdsm {
        bail!(
            "VDSM always takes the lease of the engine VM's disk; a VM lease beside it is set in the engine"
        );
    }
    let file = conf.paths().ha_toml();
    let both = Both::find(conf)?;
    if let Some(name) = &args.name {
        let lease = indexed(conf, name)?;
        if both.has_of_disk {
            let held = both.hold(&[lease, both.of_disk.clone()])?;
            both.client.clear_resource(&both.of_disk, grid(conf, &both.disk)?.into())?;
            drop(held);
        }
        terminal.say(format!(
            "The lease of the engine VM's disk is retired. On all hosts set vm = {name:?} in [lease] of {}, and restart \
             ovirt-ha-agent and ovirt-ha-broker; a host without it cannot start the VM.",
            file.display()
        ));
    } else {
        if !both.has_of_disk {
            let held = match &toml.lease.vm {
                Some(name) => Some(both.hold(&[indexed(conf, name)?])?),
                None => bail!(
                    "which lease protects the engine VM now is not known here: run this on a host whose {} has [lease] \
                     vm set",
                    file.display()
                ),
            };
            both.client.write_resource(&both.of_disk, 0, 0, grid(conf, &both.disk)?.into())?;
            both.client.read_resource(&both.of_disk)?;
            drop(held);
        }
        terminal.say(format!(
            "The engine VM's disk has its own lease again. On all hosts remove vm from [lease] of {}, and restart \
             ovirt-ha-agent and ovirt-ha-broker; a host that still has it cannot start the VM.",
            file.display()
        ));
    }
    Ok(())
}

fn grid(conf: &HostedEngineConf, disk: &SharedFile) -> anyhow::Result<sanlock_client::GridSize> {
    Ok(match domain_grid(conf) {
        Some(grid) => grid,
        None => grid_for(disk.sector_size()?),
    })
}
