//! `[fencing]`: whether dead hosts are fenced, and how a host is switched from outside: by the programs of the
//! fence-agents project, or through storage by sanlock's reset daemon.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use metadata_format::HostId;
use serde::Deserialize;

use super::seconds;
use crate::secret::is_secret_key;

/// The agent that is no program: the reset through storage.
const SANLOCK_AGENT: &str = "sanlock";
/// Its only option.
const LOCKSPACE_OPTION: &str = "lockspace";
/// The lockspace that every HA host is in.
const BLOCK_LOCKSPACE: &str = "hosted-engine";
/// Highest `level`; pacemaker's too.
const MAX_LEVEL: u8 = 9;

/// `[fencing]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FencingTable {
    /// The agents switch a dead host off that ran the engine VM; default false. The command line needs no `true`.
    pub enabled: bool,
    /// So long a host must have been dead before it is switched off, 0 to 3600 s; default 30.
    #[serde(with = "seconds")]
    pub grace: Duration,
    /// `[[fencing.host]]`: one entry for each power switch of each host; default none.
    pub host: Vec<FencingHost>,
}

impl Default for FencingTable {
    fn default() -> Self {
        Self { enabled: false, grace: Duration::from_secs(30), host: Vec::new() }
    }
}

/// What the agents do to a dead host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FencingAction {
    /// It is switched off and stays so.
    #[default]
    Off,
    /// It is switched off, seen off, and switched on again.
    Reboot,
}

/// One power switch of one host. Nothing in it is secret: secrets are in files of their own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FencingHost {
    /// The host, by the name that its row has; either this or `host_id`.
    #[serde(default)]
    pub name: Option<String>,
    /// The host, by its number; either this or `name`.
    #[serde(default)]
    pub host_id: Option<HostId>,
    /// 1 to 9: switches of one level act together, as two power supplies need it; the next level is used when one
    /// fails. Entries without a level come after those with one, each as a level of its own.
    #[serde(default)]
    pub level: Option<u8>,
    /// The program: a name like `fence_ipmilan`, which is in /usr/sbin, or an absolute path.
    pub agent: String,
    /// What the agents of the cluster do with it: `off` or `reboot`; default off. The same in all entries of a host.
    #[serde(default)]
    pub action: FencingAction,
    /// What the agent is told, by the names of its metadata.
    #[serde(default)]
    pub options: BTreeMap<String, OptionText>,
    /// The outlet, blade or machine, where one device switches several; also written `port`.
    #[serde(default, alias = "port")]
    pub plug: Option<OptionText>,
    /// File whose first line is the password; readable by its owner only.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Such a file for any other secret option, for example `snmp_priv_passwd`.
    #[serde(default)]
    pub secret_files: BTreeMap<String, PathBuf>,
    /// Switching on and seeing it on may take so long, 1 to 600 s; default 60.
    #[serde(with = "seconds", default = "Timeouts::switch")]
    pub on_timeout: Duration,
    /// Switching off and seeing it off may take so long, 1 to 600 s; default 60.
    #[serde(with = "seconds", default = "Timeouts::switch")]
    pub off_timeout: Duration,
    /// One look at the power may take so long, 1 to 600 s; default 20.
    #[serde(with = "seconds", default = "Timeouts::look")]
    pub status_timeout: Duration,
}

/// The defaults of the time-outs.
struct Timeouts;

impl Timeouts {
    const fn switch() -> Duration {
        Duration::from_mins(1)
    }
    const fn look() -> Duration {
        Duration::from_secs(20)
    }
}

/// An option's value as an agent reads it: TOML's `true` is `1`, `false` is `0`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "AnyValue")]
pub struct OptionText(pub String);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a text, a whole number, true or false")]
enum AnyValue {
    Switch(bool),
    Number(i64),
    Text(String),
}

impl From<AnyValue> for OptionText {
    fn from(value: AnyValue) -> Self {
        Self(match value {
            AnyValue::Switch(on) => u8::from(on).to_string(),
            AnyValue::Number(number) => number.to_string(),
            AnyValue::Text(text) => text,
        })
    }
}

/// True when an agent's option holds a secret, by its name. An option that names a script does not.
pub fn is_secret_option(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    (is_secret_key(&lower) || lower.contains("token") || lower.contains("community"))
        && !lower.ends_with("script")
        && !lower.ends_with("_file")
}

/// What an agent could not read back from a line `name=value`: it takes lines apart at any line end, drops white space
/// at the end and quotes around a value.
///
/// # Errors
/// What is wrong, without the value.
pub fn check_option_value(value: &str) -> Result<(), &'static str> {
    if value.chars().any(char::is_control) {
        Err("has a control character, which the agent would take for the end of a line")
    } else if value.trim_end() != value {
        Err("ends with white space, which the agent would drop")
    } else if value.len() > 1 && value.starts_with('"') && value.ends_with('"') {
        Err("stands in quotes, which the agent would drop")
    } else {
        Ok(())
    }
}

impl FencingTable {
    /// The switches of a host, level by level in the order in which they are tried. `name` is what its row says.
    pub fn levels_of(&self, id: HostId, name: Option<&str>) -> Vec<Vec<&FencingHost>> {
        let own = |entry: &&FencingHost| {
            entry.host_id == Some(id) || (name.is_some() && entry.name.as_deref() == name)
        };
        let mut together: BTreeMap<u8, Vec<&FencingHost>> = BTreeMap::new();
        let mut alone = Vec::new();
        for entry in self.host.iter().filter(own) {
            match entry.level {
                Some(level) => together.entry(level).or_default().push(entry),
                None => alone.push(vec![entry]),
            }
        }
        together.into_values().chain(alone).collect()
    }

    /// What is done to a dead host: a reboot only when all its entries say so.
    pub fn action_of(&self, id: HostId, name: Option<&str>) -> FencingAction {
        let levels = self.levels_of(id, name);
        let mut entries = levels.iter().flatten().peekable();
        let reboots = entries.peek().is_some() && entries.all(|entry| entry.action == FencingAction::Reboot);
        if reboots { FencingAction::Reboot } else { FencingAction::Off }
    }

    /// Checks all entries; the error names the entry by its number in the file.
    pub(super) fn check(&self) -> Result<(), String> {
        for (index, entry) in self.host.iter().enumerate() {
            let label = format!("entry {} of [[fencing.host]] ({})", index + 1, entry.agent);
            entry.check().map_err(|reason| format!("{label}: {reason}"))?;
            let same_host =
                |other: &&FencingHost| (&other.name, other.host_id) == (&entry.name, entry.host_id);
            if self.host.iter().filter(same_host).any(|other| other.action != entry.action) {
                return Err(format!("{label}: the entries of one host must all have the same action"));
            }
        }
        let grace = self.grace.as_secs_f64();
        if !(0.0..=3600.0).contains(&grace) {
            return Err(format!("grace = {grace} of [fencing] must be from 0 to 3600 seconds"));
        }
        Ok(())
    }
}

impl FencingHost {
    fn check(&self) -> Result<(), String> {
        match (&self.name, self.host_id) {
            (None, None) => return Err("say which host it switches, with name or host_id".to_owned()),
            (Some(_), Some(_)) => {
                return Err("it has a name and a host_id; keep one of them".to_owned());
            }
            (Some(name), None) if name.trim().is_empty() => return Err("name is empty".to_owned()),
            (Some(_), None) | (None, Some(_)) => {}
        }
        if let Some(level) = self.level.filter(|level| !(1..=MAX_LEVEL).contains(level)) {
            return Err(format!("level = {level} must be from 1 to {MAX_LEVEL}"));
        }
        self.check_agent()?;
        for (name, value) in [
            ("on_timeout", self.on_timeout),
            ("off_timeout", self.off_timeout),
            ("status_timeout", self.status_timeout),
        ] {
            let value = value.as_secs_f64();
            if !(1.0..=600.0).contains(&value) {
                return Err(format!("{name} = {value} must be from 1 to 600 seconds"));
            }
        }
        self.check_options()?;
        self.check_secrets()
    }

    /// The lockspace through which the host is told to reset itself, when the agent is the lock manager.
    pub fn storage_lockspace(&self) -> Option<&str> {
        let named = self.options.get(LOCKSPACE_OPTION).map(|name| name.0.as_str());
        (self.agent == SANLOCK_AGENT).then(|| named.unwrap_or(BLOCK_LOCKSPACE))
    }

    /// What is wrong with an entry whose agent is the lock manager.
    fn check_storage(&self) -> Result<(), String> {
        let only = "agent = \"sanlock\" takes host_id, level and options = { lockspace = \"…\" }";
        if self.host_id.is_none() {
            return Err(format!(
                "{only}; say which host it is with host_id, which is its number in the lockspace"
            ));
        }
        if self.action == FencingAction::Reboot {
            return Err(
                "agent = \"sanlock\" resets the host, which boots by itself: leave action out".to_owned()
            );
        }
        let further = self.options.keys().any(|name| name != LOCKSPACE_OPTION);
        if further || self.plug.is_some() || self.password_file.is_some() || !self.secret_files.is_empty() {
            return Err(format!("{only}, and nothing else"));
        }
        let name = self.storage_lockspace().unwrap_or_default();
        if name.is_empty() || name.len() > 48 {
            return Err(format!("options.lockspace = {name:?} must have 1 to 48 bytes"));
        }
        Ok(())
    }

    fn check_agent(&self) -> Result<(), String> {
        let path = self.agent.starts_with('/');
        let name = if path { self.agent.rsplit('/').next().unwrap_or_default() } else { &self.agent };
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        if self.agent == SANLOCK_AGENT {
            return self.check_storage();
        }
        if plain && name.len() > "fence_".len() && name.starts_with("fence_") {
            return Ok(());
        }
        Err("agent must be a name like \"fence_ipmilan\", an absolute path of such a program, or \"sanlock\""
            .to_owned())
    }

    fn check_options(&self) -> Result<(), String> {
        for (name, value) in &self.options {
            if name.is_empty()
                || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
            {
                return Err(format!("{name:?} cannot be the name of an option"));
            }
            if matches!(name.as_str(), "password" | "passwd") {
                return Err(format!(
                    "options must not have {name}, which everybody could read; write it into a file of its own \
                     and name that with password_file"
                ));
            }
            if is_secret_option(name) {
                return Err(format!(
                    "options must not have {name}, which everybody could read; write it into a file of its own \
                     and name that with secret_files = {{ {name} = \"/path\" }}"
                ));
            }
            match name.as_str() {
                "action" | "option" => {
                    return Err(format!("options must not have {name}: the command says what is done"));
                }
                "debug" | "debug_file" | "debug-file" => {
                    return Err(format!(
                        "options must not have {name}: the agent would write the password into that file"
                    ));
                }
                "plug" | "port" if self.plug.is_some() => {
                    return Err(format!("{name} is set twice, here and in options; keep one of them"));
                }
                _ => {}
            }
            check_option_value(&value.0).map_err(|reason| format!("the option {name} {reason}"))?;
        }
        match &self.plug {
            Some(plug) => check_option_value(&plug.0).map_err(|reason| format!("plug {reason}")),
            None => Ok(()),
        }
    }

    fn check_secrets(&self) -> Result<(), String> {
        for name in ["password", "passwd"] {
            if self.password_file.is_some() && self.secret_files.contains_key(name) {
                return Err(format!("password_file and secret_files.{name} are one thing; keep one of them"));
            }
        }
        let files = self.secret_files.iter().map(|(name, path)| (name.as_str(), path));
        for (name, path) in self.password_file.iter().map(|path| ("password_file", path)).chain(files) {
            if !path.is_absolute() {
                return Err(format!("{name} = {:?} must be an absolute path", path.display().to_string()));
            }
        }
        match self.secret_files.keys().find(|name| self.options.contains_key(*name)) {
            Some(name) => Err(format!("{name} is set twice, in options and in secret_files")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "fencing_tests.rs"]
mod tests;
