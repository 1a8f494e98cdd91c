//! The passwords of a deployment, which are in no journal and no answer file.

use ha_config::{Paths, Secret};
use serde::{Deserialize, Serialize};

use super::DeployError;

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

/// As they stand in the file.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    #[serde(skip_serializing_if = "Option::is_none")]
    iscsi: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iscsi_discovery: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vm_root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_admin: Option<String>,
}

impl Secrets {
    /// Keeps them in a file of mode 0600; without any, there is no file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, paths: &Paths) -> Result<(), DeployError> {
        if *self == Self::default() {
            return Self::forget(paths);
        }
        let plain = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.reveal().to_owned());
        let text = serde_json::to_vec(&Plain {
            iscsi: plain(&self.iscsi),
            iscsi_discovery: plain(&self.iscsi_discovery),
            vm_root: plain(&self.vm_root),
            engine_admin: plain(&self.engine_admin),
        });
        let path = paths.deploy_secrets();
        let text = text.map_err(|error| DeployError::io("write", &path)(error.into()))?;
        // A file that others could read before must not be kept open by them.
        Self::forget(paths)?;
        Ok(ha_config::atomic::write(&path, &text, ha_config::atomic::Mode::Private)?)
    }

    /// Those that are kept; none when there is no file.
    ///
    /// # Errors
    /// When it cannot be read. The text never holds what is in it.
    pub fn kept(paths: &Paths) -> Result<Self, DeployError> {
        let path = paths.deploy_secrets();
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(DeployError::io("read", &path))?,
        };
        let plain: Plain = serde_json::from_slice(&bytes).map_err(|_| {
            DeployError::Refused(format!(
                "{} does not hold passwords in the form in which they were written: remove it, undo the deployment and \
                 begin anew",
                path.display()
            ))
        })?;
        Ok(Self {
            iscsi: plain.iscsi.map(Secret::new),
            iscsi_discovery: plain.iscsi_discovery.map(Secret::new),
            vm_root: plain.vm_root.map(Secret::new),
            engine_admin: plain.engine_admin.map(Secret::new),
        })
    }

    /// Removes the file.
    ///
    /// # Errors
    /// When it stays.
    pub fn forget(paths: &Paths) -> Result<(), DeployError> {
        let path = paths.deploy_secrets();
        ha_config::atomic::remove_leftovers(&path)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(DeployError::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn they_come_back_from_a_file_that_only_root_reads() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        std::fs::create_dir_all(paths.setup_state_dir()).unwrap();
        assert_eq!(Secrets::kept(&paths).unwrap(), Secrets::default());
        let secrets = Secrets { vm_root: Some(Secret::new("a \"b\"\n")), ..Secrets::default() };
        secrets.keep(&paths).unwrap();
        let file = paths.deploy_secrets();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Secrets::kept(&paths).unwrap(), secrets);

        std::fs::write(&file, "{\"vm_root\":\"hunter2\"").unwrap();
        let error = Secrets::kept(&paths).unwrap_err().to_string();
        assert!(error.contains("deploy.secrets") && !error.contains("hunter2"), "{error}");
        Secrets::forget(&paths).unwrap();
        Secrets::forget(&paths).unwrap();
        Secrets::default().keep(&paths).unwrap();
        assert!(!file.exists());
    }
}
