//! What a verb answers when it fails: VDSM's codes and words.

use serde_json::{Value, json};

/// An error of VDSM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct Failure {
    /// Its number; the same in all releases.
    pub code: i64,
    /// Its words, as VDSM's clients see them.
    pub message: String,
}

/// What Python shows of a text in a tuple or a dictionary.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\");
    if text.contains('\'') && !text.contains('"') {
        format!("\"{escaped}\"")
    } else {
        format!("'{}'", escaped.replace('\'', "\\'"))
    }
}

impl Failure {
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn no_such_vm(id: &str) -> Self {
        Self::new(1, format!("Virtual machine does not exist: {{'vmId': {}}}", quoted(id)))
    }

    pub(crate) fn vm_exists() -> Self {
        Self::new(4, "Virtual machine already exists")
    }

    pub(crate) fn cannot_create(detail: &str) -> Self {
        Self::new(9, format!("Error creating the requested VM: {detail}"))
    }

    pub(crate) fn migration(detail: &str) -> Self {
        Self::new(12, format!("Fatal error during migration: {detail}"))
    }

    pub(crate) fn unexpected() -> Self {
        Self::new(16, "Unexpected exception")
    }

    pub(crate) fn destroy_failed(detail: &str) -> Self {
        Self::new(42, format!("Virtual machine destroy error: {detail}"))
    }

    pub(crate) fn update_device(detail: &str) -> Self {
        Self::new(56, format!("Failed to update device: {detail}"))
    }

    pub(crate) fn recovering() -> Self {
        Self::new(99, "Recovering from crash or Initializing")
    }

    pub(crate) fn no_such_volume(id: &str) -> Self {
        Self::new(201, format!("Volume does not exist: ({},)", quoted(id)))
    }

    pub(crate) fn volume_creation(detail: &str) -> Self {
        Self::new(205, format!("Error creating a new volume: ({},)", quoted(detail)))
    }

    pub(crate) fn volume_metadata(detail: &str) -> Self {
        Self::new(207, format!("Error while processing volume meta data: ({},)", quoted(detail)))
    }

    pub(crate) fn volume_exists(id: &str) -> Self {
        Self::new(212, format!("Volume already exists: ({},)", quoted(id)))
    }

    pub(crate) fn image_path(path: &str) -> Self {
        let path = quoted(path);
        Self::new(254, format!("Image path does not exist or cannot be accessed/created: ({path},)"))
    }

    pub(crate) fn general(detail: &str) -> Self {
        Self::new(100, format!("General Exception: ({},)", quoted(detail)))
    }

    /// What is done to a pool by a host that does not manage it.
    pub(crate) fn insecure() -> Self {
        Self::general("Secured object is not in safe state")
    }

    pub(crate) fn pool_unknown(id: &str) -> Self {
        Self::new(309, format!("Unknown pool id, pool not connected: ({},)", quoted(id)))
    }

    pub(crate) fn several_pools(id: &str) -> Self {
        let id = quoted(id);
        Self::new(323, format!("Cannot connect pool, already connected to another pool: ({id},)"))
    }

    pub(crate) fn wrong_master(pool: &str, domain: &str) -> Self {
        let detail = quoted(&format!("spUUID={pool}, msdUUID={domain}"));
        Self::new(324, format!("Wrong Master domain or its version: {detail}"))
    }

    pub(crate) fn domain_creation(detail: &str) -> Self {
        Self::new(351, format!("Error creating a storage domain: ({},)", quoted(detail)))
    }

    pub(crate) fn long_description() -> Self {
        Self::new(387, "Storage domain description is too long")
    }

    pub(crate) fn not_mounted(path: &str) -> Self {
        Self::new(360, format!("Storage domain remote path not mounted: ({},)", quoted(path)))
    }

    pub(crate) fn domain_not_empty(path: &str) -> Self {
        Self::new(361, format!("Storage domain is not empty - requires cleaning: ({},)", quoted(path)))
    }

    pub(crate) fn domain_exists(id: &str) -> Self {
        Self::new(365, format!("Storage domain already exists: ({},)", quoted(id)))
    }

    pub(crate) fn domain_type(number: i64) -> Self {
        Self::new(372, format!("Unsupported Storage Domain type: ({number},)"))
    }

    pub(crate) fn domain_attached(pool: &str, domain: &str) -> Self {
        let detail = quoted(&format!("domain={domain}, pool={pool}"));
        Self::new(380, format!("Storage domain already attached to pool: {detail}"))
    }

    pub(crate) fn format_attached(id: &str) -> Self {
        Self::new(391, format!("Cannot format attached storage domain: ({},)", quoted(id)))
    }

    pub(crate) fn format_connected(id: &str) -> Self {
        Self::new(392, format!("Cannot format storage domain in connected pool: ({},)", quoted(id)))
    }

    pub(crate) fn cleanup(detail: &str) -> Self {
        Self::new(2008, format!("Directory cleanup failure: ({},)", quoted(detail)))
    }

    /// What is wrong with a volume group or its devices.
    pub(crate) fn volume_group(code: i64, words: &str, detail: &str) -> Self {
        Self::new(code, format!("{words}: ({},)", quoted(detail)))
    }

    pub(crate) fn task_state(id: &str) -> Self {
        Self::new(410, format!("Operation is not allowed in this task state: ({},)", quoted(id)))
    }

    pub(crate) fn not_spm(pool: &str) -> Self {
        Self::new(654, format!("Not SPM: ({},)", quoted(pool)))
    }

    pub(crate) fn is_spm(pool: &str) -> Self {
        Self::new(656, format!("Operation not allowed while SPM is active: ({},)", quoted(pool)))
    }

    pub(crate) fn host_id(domain: &str) -> Self {
        Self::new(661, format!("Cannot acquire host id: ({},)", quoted(domain)))
    }

    pub(crate) fn host_id_mismatch(pool: &str) -> Self {
        let detail = quoted(pool);
        Self::new(700, format!("Host id not found or does not match manager host id: ({detail},)"))
    }

    pub(crate) fn no_such_domain(id: &str) -> Self {
        Self::new(358, format!("Storage domain does not exist: ({},)", quoted(id)))
    }

    pub(crate) fn domain_action(detail: &str) -> Self {
        Self::new(350, format!("Error in storage domain action: ({},)", quoted(detail)))
    }

    pub(crate) fn no_such_task(id: &str) -> Self {
        Self::new(401, format!("Task id unknown: ({},)", quoted(id)))
    }

    pub(crate) fn release_host_id(detail: &str) -> Self {
        Self::new(662, format!("Cannot release host id: ({},)", quoted(detail)))
    }

    pub(crate) fn invalid_parameter(name: &str, value: &str) -> Self {
        Self::new(1000, format!("Invalid parameter: {}", quoted(&format!("{name}={value}"))))
    }

    pub(crate) fn unknown_method(method: &str) -> Self {
        let method = quoted(method);
        Self::new(-32601, format!("The method does not exist or is not available: {{'method': {method}}}"))
    }

    pub(crate) fn internal(reason: &str) -> Self {
        Self::new(-32603, format!("Internal JSON-RPC error: {{'reason': {}}}", quoted(reason)))
    }

    /// The member `error` of an answer.
    pub(crate) fn to_json(&self) -> Value {
        json!({"code": self.code, "message": self.message})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_recorded_server() {
        assert_eq!(
            Failure::no_such_vm("eccb9cb6").message,
            "Virtual machine does not exist: {'vmId': 'eccb9cb6'}"
        );
        assert_eq!(Failure::no_such_domain("0").message, "Storage domain does not exist: ('0',)");
        assert_eq!(
            Failure::internal("VM.__init__() missing 1 required positional argument: 'UUID'").message,
            "Internal JSON-RPC error: {'reason': \"VM.__init__() missing 1 required positional argument: 'UUID'\"}"
        );
    }
}
