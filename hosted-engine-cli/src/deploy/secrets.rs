//! The passwords of a deployment, which are in no journal and no answer file.

use ha_config::Secret;

/// What only the operator knows. Kept in a file of mode 0600 until the deployment is over, so that `--resume` need not
/// ask again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// CHAP password of the iSCSI target.
    pub iscsi: Option<Secret>,
    /// CHAP password for iSCSI discovery.
    pub iscsi_discovery: Option<Secret>,
    /// Root's password in the engine VM, for the seed.
    pub vm_root: Option<Secret>,
    /// The engine's `admin`, for registering this host.
    pub engine_admin: Option<Secret>,
}
