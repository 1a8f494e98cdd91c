//! A storage domain of files: on NFS, on `GlusterFS`, in a directory.
//!
//! It is reached below `/rhev/data-center/mnt`, as on a host that VDSM manages: network storage is mounted there, to a
//! directory of this host a link leads. What is mounted or linked there already stays so.

mod domain;
mod mount;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use clock::{Clock as _, SystemClock};
use ha_config::{HostedEngineConf, Paths};
use uuid::Uuid;

pub use domain::{MadeDomain, PublishedDomain};
use mount::Mount;
pub use mount::{MadeMount, check, mounted_at, target};

use super::conf::domain_type;
use super::{Backend, FoundDomain, LeasePlace, Role, find};
use crate::deploy::made::{MadeDirectory, MadeLink};
use crate::deploy::{DeployError, FirstHost, Job, Request, Storage, Tools, VolumeIds, World};
use crate::setup::domain::domain_metadata;
use crate::setup::volume::{CONFIGURATION, DISK, LOCKSPACE, METADATA, MIB, Owner, VolumeId};
use crate::setup::volume::{directory, text_file, write_meta, zeros};
use crate::setup::{ClusterConf, grid_for};
use crate::shared_file::SharedFile;

/// The backend.
#[derive(Debug, Clone, Copy)]
pub struct Files;

fn storage_of(request: &Request) -> &Storage {
    match request {
        Request::FirstHost(first) => &first.storage,
        Request::FurtherHost(further) => &further.storage,
    }
}

/// The first host's request; only it makes a domain.
fn first<'a>(world: &World<'a>) -> Result<&'a FirstHost, DeployError> {
    match world.request {
        Request::FirstHost(first) => Ok(first),
        Request::FurtherHost(_) => {
            Err(DeployError::Refused("a further host makes no storage domain: it joins one".to_owned()))
        }
    }
}

fn mount_dir(world: &World<'_>) -> PathBuf {
    target(world.paths, storage_of(world.request))
}

fn made(world: &World<'_>) -> Result<MadeDomain, DeployError> {
    Ok(MadeDomain::of(mount_dir(world), first(world)?))
}

/// Where the domain is now, of a first and of a further host.
fn domain_dir(world: &World<'_>) -> PathBuf {
    match world.request {
        Request::FirstHost(first) => MadeDomain::of(mount_dir(world), first).now(),
        Request::FurtherHost(further) => mount_dir(world).join(further.sd_uuid.to_string()),
    }
}

fn systemd_runs(paths: &Paths) -> bool {
    paths.is_real_host() && Path::new("/run/systemd/system").is_dir()
}

/// Makes this deployment's network storage mounted, unless it is: a host that was restarted in between has lost it, and
/// what is looked for would seem never to have been made.
///
/// # Errors
/// When it cannot be mounted.
pub fn must_be_connected(world: &World<'_>) -> Result<(), DeployError> {
    if let Some(mount) = Mount::of(world.paths, storage_of(world.request))? {
        attach_mount(world.paths, world.tools, &mount)?;
    }
    Ok(())
}

/// Nothing may be made in the empty directory below a mount that went away.
fn must_be_mounted(world: &World<'_>, target: &Path) -> Result<(), DeployError> {
    let storage = storage_of(world.request);
    if Mount::of(world.paths, storage)?.is_some() && mounted_at(world.tools, target)?.is_none() {
        return Err(DeployError::Refused(format!(
            "{} is not mounted at {} any more: was this host restarted? Mount it again there, then try again",
            storage.connection,
            target.display()
        )));
    }
    Ok(())
}

/// The version of NFS that this deployment's mount speaks; `None` when it is not mounted.
///
/// # Errors
/// When the mounts cannot be read.
pub fn nfs_version(world: &World<'_>) -> Result<Option<String>, DeployError> {
    Ok(mounted_at(world.tools, &mount_dir(world))?.and_then(|mounted| mounted.nfs_version()))
}

/// Mounts or links the storage of a deployed host as its configuration says; false when it was done already.
///
/// # Errors
/// What stands in the way.
pub fn attach(conf: &HostedEngineConf, tools: &dyn Tools) -> Result<bool, DeployError> {
    let target = conf.mount_dir()?;
    if let Some(mount) = Mount::of_conf(conf)? {
        return attach_mount(conf.paths(), tools, &mount);
    }
    if conf.domain_type()?.is_block() || target.symlink_metadata().is_ok() {
        return Ok(false);
    }
    let from = local_directory(conf.paths(), conf.storage()?)?;
    make_parents(&target)?;
    symlink(&from, &target).map_err(DeployError::io("make the link", &target))?;
    Ok(true)
}

/// Unmounts the storage of a deployed host, where a mount is what reaches it; false when there is nothing to unmount.
///
/// # Errors
/// What stands in the way.
pub fn detach(conf: &HostedEngineConf, tools: &dyn Tools) -> Result<bool, DeployError> {
    let Some(mount) = Mount::of_conf(conf)? else { return Ok(false) };
    if !mount.is_mounted(tools)? {
        return Ok(false);
    }
    Mount::unmount(tools, &mount.target)?;
    Ok(true)
}

fn attach_mount(paths: &Paths, tools: &dyn Tools, mount: &Mount) -> Result<bool, DeployError> {
    if mount.is_mounted(tools)? {
        return Ok(false);
    }
    make_parents(&mount.target)?;
    match fs::create_dir(&mount.target) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        other => other.map_err(DeployError::io("create the directory", &mount.target))?,
    }
    mount.mount(tools, systemd_runs(paths))?;
    Ok(true)
}

fn make_parents(target: &Path) -> Result<(), DeployError> {
    let parent = target.parent().unwrap_or(target);
    fs::create_dir_all(parent).map_err(DeployError::io("create the directory", parent))
}

/// The directory that an operator named as storage.
fn local_directory(paths: &Paths, connection: &str) -> Result<PathBuf, DeployError> {
    let refused = |text: String| Err(DeployError::Refused(text));
    if !connection.starts_with('/') {
        return refused(format!("the storage {connection:?} is no directory's absolute path (/srv/…)"));
    }
    let path = paths.resolve(connection);
    if !path.is_dir() {
        return refused(format!(
            "{} is no directory: make it, or mount there what shall be the storage",
            path.display()
        ));
    }
    Ok(path)
}

impl Backend for Files {
    fn connect(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let World { paths, tools, report, .. } = job.world;
        let storage = storage_of(job.world.request);
        if domain_type(storage.kind).is_block() {
            let kind = domain_type(storage.kind).word();
            return Err(DeployError::Refused(format!(
                "storage of the kind {kind} is made of volumes, not of files"
            )));
        }
        let target = target(paths, storage);
        if let Some(mount) = Mount::of(paths, storage)? {
            if mount.is_mounted(tools)? {
                report.info(&format!("{} is mounted already", mount.source));
            } else {
                make_directories(job, &target)?;
                let made = MadeMount { source: mount.source.clone(), target: target.clone() };
                job.make(made, |_| mount.mount(tools, systemd_runs(paths)))?;
            }
        } else if target.symlink_metadata().is_err() {
            let from = local_directory(paths, &storage.connection)?;
            make_directories(job, target.parent().unwrap_or(&target))?;
            let link = MadeLink { path: target.clone(), target: from.clone() };
            job.make(link, |_| symlink(&from, &target).map_err(DeployError::io("make the link", &target)))?;
        }
        let looked = fs::read_dir(&target).map(drop).map_err(DeployError::io("read", &target));
        looked.map_err(|error| match &error {
            DeployError::Io { source, .. } if source.raw_os_error() == Some(rustix::io::Errno::STALE.raw_os_error()) => DeployError::Refused(format!(
                "{error}: the server has replaced what it exported; unmount it (umount -l {}) and try again",
                target.display()
            )),
            _ => error,
        })
    }

    fn find(&self, world: &World<'_>) -> Result<Vec<FoundDomain>, DeployError> {
        Ok(find::in_directory(&mount_dir(world))?)
    }

    fn make_domain(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let world = job.world;
        let (made, first) = (made(&world)?, first(&world)?);
        if made.complete().is_dir() {
            return Ok(());
        }
        must_be_mounted(&world, &made.mount)?;
        refuse_occupied(&made)?;
        for left in unfinished_in(&made.mount)? {
            world.report.warning(&format!(
                "Another deployment goes on here or was interrupted: {}. On its host, hosted-engine --deploy --undo \
                 takes it back",
                left.display()
            ));
        }
        let owner = owner(&world, &made.mount)?;
        job.make(made.clone(), |_| lay_out(&made, first, owner))
    }

    fn make_volume(&self, job: &mut Job<'_>, role: Role, bytes: u64) -> Result<(), DeployError> {
        // Covered by the domain in the journal: its volumes come and go with it.
        let world = job.world;
        let (place, owner) = (domain_dir(&world), owner(&world, &mount_dir(&world))?);
        let (sd, ids) = (first(&world)?.ids.sd, volume_ids(first(&world)?, role));
        let id = VolumeId { image: ids.image, volume: ids.volume };
        let path = id.path(&place);
        if path.exists() {
            return Ok(());
        }
        directory(&place.join("images").join(id.image.to_string()), owner)?;
        let (description, reserve) = match role {
            Role::Metadata => (METADATA, true),
            Role::Lockspace => (LOCKSPACE, true),
            Role::Configuration => (CONFIGURATION, true),
            Role::Disk => (DISK, false),
        };
        zeros(&path, bytes, reserve, owner)?;
        if role == Role::Disk {
            let sector =
                SharedFile::open(&place.join("dom_md/ids"), false).map_err(crate::setup::SetupError::from)?;
            let sector = sector.sector_size().map_err(crate::setup::SetupError::from)?;
            zeros(&lease_beside(&path), grid_for(sector).align_bytes(), true, owner)?;
        }
        let now = u64::try_from(SystemClock.wall().0).unwrap_or(0);
        Ok(write_meta(&place, sd, id, description, bytes, now, owner)?)
    }

    fn prepare(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let world = job.world;
        let place = domain_dir(&world);
        let Request::FirstHost(first) = world.request else {
            // The links are on the storage, for all hosts.
            let metadata = place.join("ha_agent").join(METADATA);
            return fs::metadata(&metadata).map(drop).map_err(DeployError::io("reach", &metadata));
        };
        let owner = owner(&world, &mount_dir(&world))?;
        for (name, ids) in [(METADATA, first.ids.metadata), (LOCKSPACE, first.ids.lockspace)] {
            let link = place.join("ha_agent").join(name);
            let target = domain::volume_path(Path::new(".."), ids);
            let made = owner.act(|| match symlink(&target, &link) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                other => other,
            });
            made.map_err(DeployError::io("make the link", &link))?;
        }
        domain::sync(&place)
    }

    fn volume(&self, world: &World<'_>, role: Role) -> PathBuf {
        let place = domain_dir(world);
        match world.request {
            Request::FirstHost(first) => domain::volume_path(&place, volume_ids(first, role)),
            Request::FurtherHost(_) => volume_of_found(world.paths, &place, role),
        }
    }

    fn ids(&self, world: &World<'_>) -> LeasePlace {
        LeasePlace { path: domain_dir(world).join("dom_md/ids"), offset: 0 }
    }

    fn vm_lease(&self, world: &World<'_>) -> Result<LeasePlace, DeployError> {
        Ok(LeasePlace { path: lease_beside(&self.volume(world, Role::Disk)), offset: 0 })
    }

    fn complete(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let made = made(&job.world)?;
        let (from, to) = (made.unfinished(), made.complete());
        if to.is_dir() {
            return Ok(());
        }
        refuse_occupied(&made)?;
        job.make(PublishedDomain { domain: made.clone() }, |world| made.rename(world, &from, &to))
    }
}

/// Makes a directory and those above it that are not there.
fn make_directories(job: &mut Job<'_>, path: &Path) -> Result<(), DeployError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        let made = MadeDirectory { path: path.to_owned() };
        job.make(made, |_| fs::create_dir(path).map_err(DeployError::io("create the directory", path)))?;
    }
    Ok(())
}

fn owner(world: &World<'_>, mount: &Path) -> Result<Owner, DeployError> {
    Owner::of(mount, world.paths).map_err(DeployError::io("look at", mount))
}

fn volume_ids(first: &FirstHost, role: Role) -> VolumeIds {
    match role {
        Role::Metadata => first.ids.metadata,
        Role::Lockspace => first.ids.lockspace,
        Role::Configuration => first.ids.configuration,
        Role::Disk => first.ids.disk,
    }
}

fn lease_beside(disk: &Path) -> PathBuf {
    let mut path = disk.as_os_str().to_owned();
    path.push(".lease");
    path.into()
}

/// A volume of a domain that was found, as its configuration names it. What cannot be found has a path that says what
/// is missing.
fn volume_of_found(paths: &Paths, place: &Path, role: Role) -> PathBuf {
    let configuration = find::configuration_of(place).ok().flatten();
    let conf = || {
        let conf = ClusterConf::read(configuration.as_deref()?).ok()?.parsed(paths);
        let ids = match role {
            Role::Metadata => (conf.metadata_image().ok()?, conf.metadata_volume().ok()?),
            Role::Lockspace => (conf.lockspace_image().ok()?, conf.lockspace_volume().ok()?),
            Role::Disk => (conf.vm_disk_id().ok()?, conf.vm_disk_vol_id().ok()?),
            Role::Configuration => return configuration.clone(),
        };
        Some(place.join("images").join(ids.0).join(ids.1))
    };
    let missing = match role {
        Role::Metadata => METADATA,
        Role::Lockspace => LOCKSPACE,
        Role::Configuration => CONFIGURATION,
        Role::Disk => DISK,
    };
    conf().unwrap_or_else(|| place.join("images").join(missing))
}

/// Refuses storage that carries another hosted engine.
fn refuse_occupied(made: &MadeDomain) -> Result<(), DeployError> {
    for (sd, _) in find::carriers(&made.mount)? {
        if sd != made.sd {
            return Err(DeployError::Refused(format!(
                "{} carries a hosted engine already (storage domain {}): add this host to it (hosted-engine --deploy \
                 --join), or give other storage",
                made.mount.display(),
                sd
            )));
        }
    }
    Ok(())
}

/// What other deployments left or make now.
fn unfinished_in(mount: &Path) -> Result<Vec<PathBuf>, DeployError> {
    let mut all = Vec::new();
    for entry in fs::read_dir(mount).map_err(DeployError::io("read", mount))? {
        let entry = entry.map_err(DeployError::io("read", mount))?;
        let name = entry.file_name();
        let uuid = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".setup"));
        if uuid.is_some_and(|uuid| Uuid::try_parse(uuid).is_ok()) {
            all.push(entry.path());
        }
    }
    Ok(all)
}

/// Makes the directories and the domain's own areas.
fn lay_out(made: &MadeDomain, first: &FirstHost, owner: Owner) -> Result<(), DeployError> {
    let place = made.unfinished();
    directory(&place, owner).map_err(|error| not_writable(error.into(), &made.mount))?;
    text_file(&place.join(domain::MARKER), &format!("{}\n", made.deploy), owner)?;
    for name in domain::DIRECTORIES {
        directory(&place.join(name), owner)?;
    }
    let dom_md = place.join("dom_md");
    zeros(&dom_md.join("inbox"), 16 * MIB, false, owner)?;
    zeros(&dom_md.join("outbox"), 16 * MIB, false, owner)?;
    let ids = dom_md.join("ids");
    zeros(&ids, MIB, true, owner)?;
    let sector = SharedFile::open(&ids, false).map_err(crate::setup::SetupError::from)?;
    let sector = sector.sector_size().map_err(crate::setup::SetupError::from)?;
    let area = grid_for(sector).align_bytes();
    if area != MIB {
        owner.act(|| fs::remove_file(&ids)).map_err(DeployError::io("remove", &ids))?;
        zeros(&ids, area, true, owner)?;
    }
    zeros(&dom_md.join("leases"), 2 * area, true, owner)?;
    zeros(&dom_md.join("xleases"), 1024 * MIB, false, owner)?;
    let text = domain_metadata(
        domain_type(first.storage.kind),
        &first.domain_name,
        &first.storage.connection,
        made.sd,
        sector,
    );
    Ok(text_file(&dom_md.join("metadata"), &text, owner)?)
}

fn not_writable(error: DeployError, mount: &Path) -> DeployError {
    let denied = |error: &std::io::Error| {
        matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
    };
    match &error {
        DeployError::Setup(crate::setup::SetupError::Io { source, .. }) if denied(source) => {
            DeployError::Refused(format!(
                "{error}: the user vdsm (36) and the group kvm (36) must be able to write to {}: on the server, chown \
                 36:36 the exported directory, and export it for reading and writing",
                mount.display()
            ))
        }
        _ => error,
    }
}
