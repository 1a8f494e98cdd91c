//! A host's power: its switches level by level, as pacemaker's fencing topology has them.

use std::fmt::Write as _;

use ha_config::Paths;
use ha_config::ha_toml::FencingTable;
use metadata_format::HostId;

use crate::error::FenceError;
use crate::progress::{Progress, Report};
use crate::switch::{Action, Power, PowerSwitch};

/// The power switches of one host. All switches of a level must succeed; the next level is used when one failed.
#[derive(Debug, Clone)]
pub struct HostPower {
    levels: Vec<Vec<PowerSwitch>>,
}

/// Why a host's power could not be told or changed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Every level failed. After `off` the host must be taken for running.
    #[error("\"{action}\" failed at every level: {}", all(errors))]
    Failed {
        /// What was asked for.
        action: Action,
        /// Why, in the order in which levels were tried.
        errors: Vec<FenceError>,
    },
    /// The host was off, confirmed, and did not come on again.
    #[error("the host was switched off, confirmed, and not all of its power is on again: {}", all(errors))]
    LeftOff {
        /// Why.
        errors: Vec<FenceError>,
    },
}

fn all(errors: &[FenceError]) -> String {
    errors.iter().enumerate().fold(String::new(), |mut text, (index, error)| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{error}", if index == 0 { "" } else { "; " });
        text
    })
}

impl HostPower {
    /// The switches that the configuration has for a host; `None` when there are none. `name` is what its row says.
    pub fn of(table: &FencingTable, paths: &Paths, id: HostId, name: Option<&str>) -> Option<Self> {
        let levels: Vec<Vec<_>> = table
            .levels_of(id, name)
            .into_iter()
            .map(|level| level.into_iter().map(|entry| PowerSwitch::new(entry, paths)).collect())
            .collect();
        (!levels.is_empty()).then_some(Self { levels })
    }

    /// The switches, level by level in the order in which they are tried.
    pub fn levels(&self) -> &[Vec<PowerSwitch>] {
        &self.levels
    }

    /// Whether the host has power: off only when all switches of a level say so. The first level that answers counts.
    pub async fn status(&self, report: &mut Report<'_>) -> Result<Power, HostError> {
        let mut errors = Vec::new();
        for (index, level) in self.levels.iter().enumerate() {
            match status_of(level, report).await {
                Ok(power) => return Ok(power),
                Err(error) => self.level_failed(Action::Status, index, error, &mut errors, report),
            }
        }
        Err(HostError::Failed { action: Action::Status, errors })
    }

    /// Switches off. It is done only when all switches of a level have been confirmed off.
    pub async fn off(&self, report: &mut Report<'_>) -> Result<(), HostError> {
        self.switch_off(report).await.map(drop)
    }

    /// Switches on, by all switches of the first level that can.
    pub async fn on(&self, report: &mut Report<'_>) -> Result<(), HostError> {
        let mut errors = Vec::new();
        'levels: for (index, level) in self.levels.iter().enumerate() {
            for switch in level {
                if let Err(error) = switch.on(report).await {
                    self.level_failed(Action::On, index, error, &mut errors, report);
                    continue 'levels;
                }
            }
            return Ok(());
        }
        Err(HostError::Failed { action: Action::On, errors })
    }

    /// Switches off, and then on again whatever was switched off, each confirmed. Nothing is switched on before all that
    /// must be off is off.
    pub async fn reboot(&self, report: &mut Report<'_>) -> Result<(), HostError> {
        let switched = self.switch_off(report).await?;
        let mut errors = Vec::new();
        for switch in switched {
            if let Err(error) = switch.on(report).await {
                errors.push(error);
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(HostError::LeftOff { errors }) }
    }

    /// Switches off; gives all switches that are off now, those of levels that failed in part too.
    async fn switch_off(&self, report: &mut Report<'_>) -> Result<Vec<&PowerSwitch>, HostError> {
        let mut errors = Vec::new();
        let mut switched = Vec::new();
        'levels: for (index, level) in self.levels.iter().enumerate() {
            for switch in level {
                if let Err(error) = switch.off(report).await {
                    self.level_failed(Action::Off, index, error, &mut errors, report);
                    continue 'levels;
                }
                switched.push(switch);
            }
            return Ok(switched);
        }
        Err(HostError::Failed { action: Action::Off, errors })
    }

    fn level_failed(
        &self,
        action: Action,
        index: usize,
        error: FenceError,
        errors: &mut Vec<FenceError>,
        report: &mut Report<'_>,
    ) {
        let more = index + 1 < self.levels.len();
        report(&Progress::LevelFailed { action, level: index + 1, error: error.to_string(), more });
        errors.push(error);
    }
}

async fn status_of(level: &[PowerSwitch], report: &mut Report<'_>) -> Result<Power, FenceError> {
    let mut unknown = None;
    for switch in level {
        match switch.status(report).await {
            Ok(Power::On) => return Ok(Power::On),
            Ok(Power::Off) => {}
            Err(error) => unknown = unknown.or(Some(error)),
        }
    }
    unknown.map_or(Ok(Power::Off), Err)
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
