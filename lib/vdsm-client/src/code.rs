//! Numbers of VDSM's errors, as far as somebody here decides by them.
//!
//! Source: `vdsm.common.exception` and `vdsm.storage.exception` of VDSM 4.4 and 4.5, and JSON-RPC 2.0.

/// The host runs no such virtual machine.
pub const NO_SUCH_VM: i64 = 1;
/// The image repository did not answer in time.
pub const IMAGE_ACCESS_TIMEOUT: i64 = 3;
/// The host has such a virtual machine already.
pub const VM_EXISTS: i64 = 4;
/// The virtual machine is down: it can only be destroyed.
pub const VM_IS_DOWN: i64 = 6;
/// The virtual machine could not be created.
pub const CANNOT_CREATE_VM: i64 = 9;
/// The destination of a migration could not be reached.
pub const NO_CONNECTION_TO_PEER: i64 = 10;
/// After a change of the networks nobody reached the host any more: it was put back. The same number as
/// [`NO_CONNECTION_TO_PEER`].
pub const LOST_CONNECTION: i64 = 10;
/// A parameter is missing.
pub const MISSING_PARAMETER: i64 = 11;
/// A migration failed.
pub const MIGRATION_ERROR: i64 = 12;
/// Something unexpected happened in the server.
pub const UNEXPECTED: i64 = 16;
/// The virtual machine is being migrated.
pub const MIGRATION_IN_PROGRESS: i64 = 51;
/// A device could not be changed.
pub const UPDATE_DEVICE_FAILED: i64 = 56;
/// The server has just started and learns what the host runs; the request was not executed. [`crate::Client`] waits it out.
pub const RECOVERING: i64 = 99;
/// Anything else that went wrong.
pub const GENERAL: i64 = 100;
/// There is no such volume.
pub const NO_SUCH_VOLUME: i64 = 201;
/// There is no path of such an image.
pub const NO_IMAGE_PATH: i64 = 254;
/// The volume exists already.
pub const VOLUME_EXISTS: i64 = 212;
/// There is no such image in the storage domain.
pub const NO_SUCH_IMAGE: i64 = 268;
/// This host is not in the storage pool.
pub const POOL_UNKNOWN: i64 = 309;
/// There is no such storage domain, or it cannot be read.
pub const NO_SUCH_DOMAIN: i64 = 358;
/// There is a storage domain on the storage already.
pub const DOMAIN_NOT_EMPTY: i64 = 361;
/// There is no such task.
pub const NO_SUCH_TASK: i64 = 401;
/// This host does not manage the storage pool.
pub const NOT_SPM: i64 = 654;
/// This host manages the storage pool.
pub const IS_SPM: i64 = 656;
/// The storage domain belongs to a storage pool, which monitors it itself.
pub const DOMAIN_IN_POOL: i64 = 900;
/// The body of a request is not JSON.
pub const PARSE: i64 = -32700;
/// A request is no JSON-RPC request.
pub const INVALID_REQUEST: i64 = -32600;
/// The server has no such verb.
pub const UNKNOWN_VERB: i64 = -32601;
/// The parameters do not fit the verb.
pub const INVALID_PARAMETERS: i64 = -32602;
/// Something went wrong in the server.
pub const INTERNAL: i64 = -32603;
