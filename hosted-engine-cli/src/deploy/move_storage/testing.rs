//! Requests of moves for tests.

use crate::deploy::storage::testing::{first_host, storage};
use crate::deploy::{Former, FurtherHost, Request, StorageKind};

/// Of the first host, or of one that follows.
pub(crate) fn request(follows: bool) -> Request {
    let first = first_host(StorageKind::Directory, "/srv/new");
    let moves = Some(Former { hosted_engine_conf: "sdUUID=old\nhost_id=1\n".to_owned() });
    if !follows {
        return Request::FirstHost(Box::new(crate::deploy::FirstHost { moves, ..first }));
    }
    Request::FurtherHost(Box::new(FurtherHost {
        hypervisor: first.hypervisor,
        storage: storage(StorageKind::Directory, "/srv/new"),
        network: first.network,
        host: first.host,
        sd_uuid: first.ids.sd,
        moves,
    }))
}
