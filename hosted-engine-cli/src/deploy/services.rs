//! Starting and enabling the host's services. A port: systemd on a host, the host's own init in the sandbox.

use super::DeployError;

/// A service as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ServiceState {
    /// It starts at boot.
    pub is_enabled: bool,
    /// It runs.
    pub is_active: bool,
}

/// The host's service manager. Names are without `.service`.
pub trait Services: Send + Sync {
    /// How it is; `None` when there is no such service.
    ///
    /// # Errors
    /// When the manager cannot be asked.
    fn state(&self, service: &str) -> Result<Option<ServiceState>, DeployError>;

    /// Makes it run, now, or run no more; and at boot, or no more at boot.
    ///
    /// # Errors
    /// What the manager says, with the way to the service's own words.
    fn set(&self, service: &str, wanted: ServiceState) -> Result<(), DeployError>;

    /// Has it read its files anew. It is started when it does not run.
    ///
    /// # Errors
    /// As [`Services::set`].
    fn restart(&self, service: &str) -> Result<(), DeployError>;
}
