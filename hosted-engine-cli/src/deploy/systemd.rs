//! The service manager of a real host.

use std::time::Duration;

use super::DeployError;
use super::services::{ServiceState, Services};
use super::tools::{Call, Tools};

/// Units that notify may take their whole start time-out.
const PATIENCE: Duration = Duration::from_mins(3);

/// systemd, through `systemctl`.
pub struct Systemd<'a> {
    /// Runs it.
    pub tools: &'a dyn Tools,
}

impl Systemd<'_> {
    fn control(&self, verb: &str, service: &str) -> Result<(), DeployError> {
        let call = Call::new("systemctl").args([verb, &unit(service)]).within(PATIENCE);
        self.tools.run(&call).map(drop).map_err(|error| {
            DeployError::Refused(format!("{error}; see: journalctl -u {} -n 50", unit(service)))
        })
    }
}

impl Services for Systemd<'_> {
    fn state(&self, service: &str) -> Result<Option<ServiceState>, DeployError> {
        let properties = "--property=LoadState,ActiveState,UnitFileState";
        let said = self.tools.run(&Call::new("systemctl").args(["show", properties, &unit(service)]))?;
        parse(&said.out).map_err(|what| {
            DeployError::Refused(format!("systemctl show {} says nothing about its {what}", unit(service)))
        })
    }

    fn set(&self, service: &str, wanted: ServiceState) -> Result<(), DeployError> {
        let Some(now) = self.state(service)? else {
            return Err(DeployError::Refused(format!(
                "there is no service {}: install the package that has it",
                unit(service)
            )));
        };
        if now.is_enabled != wanted.is_enabled {
            self.control(if wanted.is_enabled { "enable" } else { "disable" }, service)?;
        }
        if now.is_active != wanted.is_active {
            self.control(if wanted.is_active { "start" } else { "stop" }, service)?;
        }
        Ok(())
    }

    fn restart(&self, service: &str) -> Result<(), DeployError> {
        self.control("restart", service)
    }
}

fn unit(service: &str) -> String {
    format!("{service}.service")
}

/// Of `systemctl show`. A service that is starting or failing runs, as far as stopping it goes.
fn parse(text: &str) -> Result<Option<ServiceState>, &'static str> {
    let value = |key: &'static str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).ok_or(key)
    };
    if value("LoadState")? == "not-found" {
        return Ok(None);
    }
    Ok(Some(ServiceState {
        is_active: matches!(value("ActiveState")?, "active" | "activating" | "reloading" | "refreshing"),
        is_enabled: matches!(value("UnitFileState")?, "enabled" | "enabled-runtime" | "alias" | "static"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::testing::Recorded;

    const SHOW: &str = "systemctl show --property=LoadState,ActiveState,UnitFileState ovirt-ha-agent.service";
    const OFF: &str = "LoadState=loaded\nActiveState=inactive\nUnitFileState=disabled\n";
    const ON: &str = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n";

    fn state(text: &str) -> Option<(bool, bool)> {
        parse(text).unwrap().map(|state| (state.is_enabled, state.is_active))
    }

    #[test]
    fn its_words_are_understood() {
        assert_eq!(state(OFF), Some((false, false)));
        assert_eq!(state(ON), Some((true, true)));
        assert_eq!(
            state("LoadState=loaded\nActiveState=activating\nUnitFileState=disabled\n"),
            Some((false, true))
        );
        assert_eq!(
            state("LoadState=loaded\nActiveState=failed\nUnitFileState=enabled\n"),
            Some((true, false))
        );
        assert_eq!(state("LoadState=not-found\nActiveState=inactive\nUnitFileState=\n"), None);
        assert_eq!(parse("System has not been booted"), Err("LoadState"));
    }

    #[test]
    fn only_what_differs_is_changed() {
        let tools = Recorded::new(&[
            (SHOW, 0, OFF, ""),
            ("systemctl enable ovirt-ha-agent.service", 0, "", "Created symlink …\n"),
            ("systemctl start ovirt-ha-agent.service", 0, "", ""),
            (SHOW, 0, ON, ""),
            (SHOW, 0, ON, ""),
            ("systemctl stop ovirt-ha-agent.service", 0, "", ""),
        ]);
        let systemd = Systemd { tools: &tools };
        systemd.set("ovirt-ha-agent", ServiceState { is_enabled: true, is_active: true }).unwrap();
        systemd.set("ovirt-ha-agent", ServiceState { is_enabled: true, is_active: true }).unwrap();
        systemd.set("ovirt-ha-agent", ServiceState { is_enabled: true, is_active: false }).unwrap();
        tools.assert_over();
    }

    #[test]
    fn a_service_that_does_not_start_leads_to_its_own_words() {
        let failed = "Job for ovirt-ha-agent.service failed because the control process exited with error code.\n\
                      See \"systemctl status ovirt-ha-agent.service\" and \"journalctl -xeu ovirt-ha-agent.service\" for \
                      details.\n";
        let tools = Recorded::new(&[
            (SHOW, 0, OFF, ""),
            ("systemctl start ovirt-ha-agent.service", 1, "", failed),
            (SHOW, 0, "LoadState=not-found\nActiveState=inactive\nUnitFileState=\n", ""),
        ]);
        let systemd = Systemd { tools: &tools };
        let on = ServiceState { is_enabled: false, is_active: true };
        let error = systemd.set("ovirt-ha-agent", on).unwrap_err().to_string();
        assert!(error.contains("journalctl -u ovirt-ha-agent.service"), "{error}");
        let error = systemd.set("ovirt-ha-agent", on).unwrap_err().to_string();
        assert!(error.contains("install the package"), "{error}");
        tools.assert_over();
    }
}
