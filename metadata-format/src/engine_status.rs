//! What a host says about the engine VM: field 5 of a host block.

use serde::{Deserialize, Serialize};

use crate::text;

/// Whether the engine VM runs on the host that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// The VM runs (or is paused) here.
    Up,
    /// No VM here, and that was expected.
    Down,
    /// The VM was here and ended without being asked to.
    DownUnexpected,
    /// The VM was here at the last look and is gone without a trace.
    DownMissing,
    /// The hypervisor could not be asked, or the word is not one of ours.
    #[serde(other)]
    Unknown,
}

impl VmState {
    /// The state for a block's word; any other word is [`VmState::Unknown`].
    pub fn from_word(word: &str) -> Self {
        match word {
            "up" => Self::Up,
            "down" => Self::Down,
            "down_unexpected" => Self::DownUnexpected,
            "down_missing" => Self::DownMissing,
            _ => Self::Unknown,
        }
    }

    /// Any of the forms of "not running here".
    pub const fn is_down(self) -> bool {
        matches!(self, Self::Down | Self::DownUnexpected | Self::DownMissing)
    }
}

/// Whether the engine inside the VM answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// The liveliness page answered as it must.
    Good,
    /// It did not, or there is no VM to ask.
    Bad,
    /// Nobody could look.
    #[serde(other)]
    Unknown,
}

impl Health {
    /// The health for a block's word; any other word is [`Health::Unknown`].
    pub fn from_word(word: &str) -> Self {
        match word {
            "good" => Self::Good,
            "bad" => Self::Bad,
            _ => Self::Unknown,
        }
    }
}

/// The engine status object: `{"vm": …, "health": …, "detail": …, "reason": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Whether the VM runs on this host.
    pub vm: VmState,
    /// Whether the engine in it answers.
    pub health: Health,
    /// The VM's own status word: Up, Down, Paused, `WaitForLaunch`, Powering up, Powering down, Migration Source,
    /// Migration Destination, `RebootInProgress`, Restoring state, Saving State, or unknown.
    pub detail: String,
    /// Why it is so, in words; absent when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl EngineStatus {
    /// The status of a host whose word about the VM is missing or cannot be read, and why.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self {
            vm: VmState::Unknown,
            health: Health::Unknown,
            detail: "unknown".to_owned(),
            reason: Some(reason.into()),
        }
    }

    /// Reads either form of field 5: the JSON object, or the plain text of 2013 (`vm-up good-health-status`,
    /// `vm-up bad-health-status`, `vm-down`, `None`). It never fails: what cannot be understood is
    /// [`EngineStatus::unknown`] with the reason, because the rest of the block is still worth having.
    pub fn parse(field: &str) -> Self {
        let field = field.trim();
        let plain = |vm, health, detail: &str| Self { vm, health, detail: detail.to_owned(), reason: None };
        match field {
            "vm-up good-health-status" => return plain(VmState::Up, Health::Good, "Up"),
            "vm-up bad-health-status" => return plain(VmState::Up, Health::Bad, "Up"),
            "vm-down" => return plain(VmState::Down, Health::Bad, "Down"),
            "None" | "null" | "" => return Self::unknown("the host's agent could not say"),
            _ => {}
        }
        let Ok(serde_json::Value::Object(object)) = serde_json::from_str(field) else {
            let seen = text::excerpt(field.as_bytes(), 60);
            return Self::unknown(format!(
                "the host's block has an engine status that cannot be read: {seen}"
            ));
        };
        // Key by key, so that a missing or odd one costs only itself.
        let word = |key| object.get(key).and_then(serde_json::Value::as_str);
        Self {
            vm: word("vm").map_or(VmState::Unknown, VmState::from_word),
            health: word("health").map_or(Health::Unknown, Health::from_word),
            detail: word("detail").unwrap_or("unknown").to_owned(),
            reason: word("reason").map(str::to_owned),
        }
    }

    /// How much engine there is, for comparing hosts: unknown 0, any down 1, up and paused 2, up with bad
    /// health 3, up with good health 4.
    pub fn rank(&self) -> u8 {
        match (self.vm, self.health) {
            (VmState::Unknown, _) => 0,
            (VmState::Down | VmState::DownUnexpected | VmState::DownMissing, _) => 1,
            (VmState::Up, _) if self.detail == "Paused" => 2,
            (VmState::Up, Health::Good) => 4,
            (VmState::Up, Health::Bad | Health::Unknown) => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let json = EngineStatus::parse(r#"{"vm": "up", "health": "good", "detail": "Up"}"#);
        assert_eq!(json, EngineStatus::parse("vm-up good-health-status"));
        assert_eq!(json.rank(), 4);
        assert_eq!(EngineStatus::parse("vm-up bad-health-status").rank(), 3);
        assert_eq!(EngineStatus::parse("vm-down").rank(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_unknown_with_a_reason() {
        for field in ["null", "None", "", "{", "[1]", "\"up\"", "{\"vm\": 5}", "{}", "vm-sideways"] {
            let status = EngineStatus::parse(field);
            assert_eq!((status.vm, status.health), (VmState::Unknown, Health::Unknown), "{field}");
            assert_eq!(status.rank(), 0, "{field}");
        }
        assert!(EngineStatus::parse("vm-sideways").reason.is_some_and(|r| r.contains("vm-sideways")));
    }

    #[test]
    fn an_odd_key_costs_only_itself() {
        let status = EngineStatus::parse(r#"{"vm": "up", "health": 7, "reason": "x", "new": []}"#);
        assert_eq!(
            (status.vm, status.health, status.reason.as_deref()),
            (VmState::Up, Health::Unknown, Some("x"))
        );
    }
}
