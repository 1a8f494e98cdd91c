//! Whether this host was deployed, and `--check-deployed`.
//!
//! As the existing command has it, `vmid` decides. Existing programs ask only whether hosted-engine.conf is there; where
//! the two differ, the command says what is missing.

use anyhow::{Context, Result};
use ha_config::{HostedEngineConf, Paths};

use crate::terminal::{Exit, Terminal};

/// The sentence that scripts know.
pub const NOT_DEPLOYED: &str = "You must run deploy first";

/// The configuration of a deployed host: one whose `vmid` is set. `None` when the host was never deployed.
///
/// # Errors
/// When the configuration is there and cannot be read.
pub fn configuration(paths: &Paths) -> Result<Option<HostedEngineConf>> {
    match HostedEngineConf::load(paths) {
        Ok(conf) if conf.file().get("vmid").is_some() => Ok(Some(conf)),
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error).context("Cannot tell whether this host was deployed"),
    }
}

/// `--check-deployed`: exit 0 when it was, 1 when not.
pub fn check(paths: &Paths, terminal: &mut Terminal) -> Result<Exit> {
    if configuration(paths)?.is_some() {
        terminal.say("The hosted engine has been deployed");
        return Ok(Exit::OK);
    }
    terminal.say("The hosted engine has not been deployed");
    let file = paths.hosted_engine_conf();
    if file.exists() {
        terminal.complain(format!(
            "{} is there without a vmid: its deployment goes on still, or was interrupted",
            file.display()
        ));
    }
    Ok(Exit::FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_deployed_when_its_vmid_is_set() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let mut terminal = Terminal::recording();
        assert_eq!(check(&paths, &mut terminal).unwrap(), Exit::FAILED, "no file");

        std::fs::create_dir_all(paths.hosted_engine_conf_dir()).unwrap();
        std::fs::write(paths.hosted_engine_conf(), "fqdn=e.example\nvmid=\n").unwrap();
        assert_eq!(terminal.recorded().err, "");
        assert_eq!(check(&paths, &mut terminal).unwrap(), Exit::FAILED, "no vmid");
        assert!(terminal.recorded().err.contains("without a vmid"));

        std::fs::write(paths.hosted_engine_conf(), "vmid=8b2b\n").unwrap();
        assert_eq!(check(&paths, &mut terminal).unwrap(), Exit::OK);
        assert!(terminal.recorded().out.ends_with("has been deployed\n"));
    }
}
