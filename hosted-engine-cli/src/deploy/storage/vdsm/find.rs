//! Hosted engines on storage that VDSM has connected.

use std::path::PathBuf;

use ha_config::hosted_engine::normal_connection;
use uuid::Uuid;
use vdsm_client::{BLANK_UUID, Client, DomainInfo};

use super::{conf, made, storage_of};
use crate::deploy::storage::conf::domain_type;
use crate::deploy::storage::{FoundDomain, Role};
use crate::deploy::vdsm::{ask, while_};
use crate::deploy::{DeployError, FirstHost, VolumeIds, World};
use crate::setup::ClusterConf;
use crate::setup::volume::CONFIGURATION;
use crate::shared_file::SharedFile;

const LOOKING: &str = "looking for storage domains";

/// The domains on the storage that the request names; on block storage all that VDSM sees.
async fn on_storage(vdsm: &Client, world: &World<'_>) -> Result<Vec<(Uuid, DomainInfo)>, DeployError> {
    let storage = storage_of(world);
    let is_block = domain_type(storage.kind).is_block();
    let wanted = normal_connection(&storage.connection);
    let mut all = Vec::new();
    for id in vdsm.storage_domains().await.map_err(while_(LOOKING))? {
        // One that cannot be read now is no candidate.
        let (Ok(uuid), Ok(info)) = (Uuid::try_parse(&id), vdsm.domain_info(&id).await) else { continue };
        let remote = info.remote_path.as_deref().filter(|remote| !remote.is_empty());
        let is_here = match remote {
            Some(remote) => !is_block && normal_connection(remote) == wanted,
            None => is_block,
        };
        if is_here {
            all.push((uuid, info));
        }
    }
    Ok(all)
}

/// The configuration volume of a domain; `None` when it has none.
async fn configuration(vdsm: &Client, sd: Uuid) -> Result<Option<VolumeIds>, DeployError> {
    let sd = sd.to_string();
    for image in vdsm.images(&sd).await.map_err(while_(LOOKING))? {
        for volume in vdsm.volumes(None, &sd, &image).await.map_err(while_(LOOKING))? {
            let info = vdsm.volume_info(BLANK_UUID, &sd, &image, &volume).await.map_err(while_(LOOKING))?;
            if info.description.as_deref() == Some(CONFIGURATION)
                && let (Ok(image), Ok(volume)) = (Uuid::try_parse(&image), Uuid::try_parse(&volume))
            {
                return Ok(Some(VolumeIds { image, volume }));
            }
        }
    }
    Ok(None)
}

/// The domains with a hosted engine. Their configuration volumes, which are told too, are prepared, which only makes them
/// readable.
pub(super) fn domains(world: &World<'_>) -> Result<Vec<(FoundDomain, VolumeIds)>, DeployError> {
    ask(world, async |vdsm| {
        let mut all = Vec::new();
        for (sd_uuid, _) in on_storage(vdsm, world).await? {
            let Some(ids) = configuration(vdsm, sd_uuid).await? else { continue };
            let (image, volume) = (ids.image.to_string(), ids.volume.to_string());
            let prepared = vdsm.image_prepare(BLANK_UUID, &sd_uuid.to_string(), &image, &volume).await;
            let prepared = prepared.map_err(while_("preparing the configuration volume"))?;
            let configuration = world.paths.resolve(prepared.path);
            if is_written(&configuration) {
                all.push((FoundDomain { sd_uuid, configuration }, ids));
            } else {
                made::let_go(vdsm, world, sd_uuid, &[ids]).await;
            }
        }
        Ok(all)
    })
}

/// A domain whose configuration is not written yet is one that is being made.
fn is_written(configuration: &std::path::Path) -> bool {
    let read = SharedFile::open(configuration, false).and_then(|file| file.read(0, 4096));
    // What cannot be read is told by whoever needs it.
    read.map_or(true, |bytes| bytes.iter().any(|byte| *byte != 0))
}

/// Where a volume of the cluster that this further host joins is; `None` when it cannot be found.
pub(super) fn volume(world: &World<'_>, role: Role) -> Option<PathBuf> {
    let sd = world.request.sd_uuid();
    let (found, _) = domains(world).ok()?.into_iter().find(|(found, _)| found.sd_uuid == sd)?;
    if role == Role::Configuration {
        return Some(found.configuration);
    }
    let conf = ClusterConf::read(&found.configuration).ok()?.parsed(world.paths);
    let (image, volume) = match role {
        Role::Metadata => (conf.metadata_image().ok()?, conf.metadata_volume().ok()?),
        Role::Lockspace => (conf.lockspace_image().ok()?, conf.lockspace_volume().ok()?),
        Role::Disk => (conf.vm_disk_id().ok()?, conf.vm_disk_vol_id().ok()?),
        Role::Configuration => return Some(found.configuration),
    };
    Some(world.paths.prepared_volumes().join(sd.to_string()).join(image).join(volume))
}

/// Refuses storage that is in use already.
pub(super) fn refuse_occupied(world: &World<'_>, first: &FirstHost) -> Result<(), DeployError> {
    let place = made::label(&first.storage);
    if let Some(lun) = &first.storage.lun {
        let device =
            ask(world, async |vdsm| vdsm.device(&lun.id).await.map_err(while_("looking at the LUN")))?;
        let problem = match device {
            None => "VDSM does not see it: are its paths up, and is it in multipath -ll?".to_owned(),
            Some(device) if device.status.as_deref() == Some("used") => {
                "it is in use: another storage domain, volume group or file system is on it".to_owned()
            }
            Some(device) if device.logical_block_size.is_some_and(|bytes| bytes != 512) => {
                "its sectors are not of 512 bytes, and VDSM makes no block storage domain with others"
                    .to_owned()
            }
            Some(_) => return Ok(()),
        };
        return Err(DeployError::Refused(format!("the LUN {} cannot be used: {problem}", lun.id)));
    }
    let carriers = domains(world)?;
    if let Some((found, ids)) = carriers.iter().find(|(found, _)| found.sd_uuid != first.ids.sd) {
        ask(world, async |vdsm| {
            made::let_go(vdsm, world, found.sd_uuid, &[*ids]).await;
            Ok(())
        })?;
        return Err(DeployError::Refused(format!(
            "{place} carries a hosted engine already (storage domain {}): add this host to it (hosted-engine --deploy \
             --join), or give other storage",
            found.sd_uuid
        )));
    }
    let all = ask(world, async |vdsm| on_storage(vdsm, world).await)?;
    if let Some((other, info)) = all.iter().find(|(uuid, _)| *uuid != first.ids.sd) {
        let name = info.name.as_deref().unwrap_or("without a name");
        let whose = if made::is_mark(name) {
            "another deployment makes it, or left it: finish or undo that one on its host (hosted-engine --deploy \
             --undo), or give other storage"
        } else {
            "VDSM makes one domain in a directory; give another one"
        };
        return Err(DeployError::Refused(format!(
            "{place} has the storage domain {other} ({name}): {whose}"
        )));
    }
    // The path by which VDSM has mounted it is the one that everybody here uses.
    conf(world).storage_domain_dir().map(drop).map_err(DeployError::from)
}
