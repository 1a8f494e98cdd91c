//! `--get-shared-config` and `--set-shared-config`: single keys of the cluster's configuration and of this host's.
//!
//! Both look at all four kinds (see [`ha_config::shared_config`]) and want `--type` only for a key that several have.
//! What is on shared storage is read there, and this host's copies are brought up to date on the way. How a change
//! gets there without losing another host's is told in [`ha_config::conf_volume`].

use std::time::Duration;

use anyhow::{Context, Result, bail};
use ha_config::conf_archive::{Archive, RECORD};
use ha_config::conf_volume::{ConfVolume, Write};
use ha_config::secret::is_secret_key;
use ha_config::shared_config::set_local;
use ha_config::shared_file::Lock;
use ha_config::text::nearest;
use ha_config::{ConfigKind, Content, HostedEngineConf, Refreshed, refresh_copies};

use crate::backup::backup;
use crate::terminal::{Exit, Terminal};

/// Shown in place of a password.
const HIDDEN: &str = "********";
/// Longer than a host takes from its second read of the volume to its write, unless its storage stalls.
const SETTLE: Duration = Duration::from_secs(2);
/// How often a change that another host overtook is tried again.
const ATTEMPTS: u32 = 5;
/// How long another host's change is waited for: looks at the lock, and the pause between two.
const LOCK_LOOKS: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(300);

/// A new value, and how it came here.
#[derive(Clone, PartialEq, Eq)]
pub enum Given {
    /// On the command line, where every user of the host can read it.
    Argument(String),
    /// By standard input.
    Input(String),
}

impl Given {
    /// What stands on the command line: `-` reads standard input.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn of(value: String) -> Result<Self> {
        Ok(if value == "-" { Self::Input(crate::password::from_input()?) } else { Self::Argument(value) })
    }
}

/// Reads the option `--type`.
///
/// # Errors
/// A text that names the word and what it may be.
pub fn kind(word: &str) -> Result<ConfigKind, String> {
    ConfigKind::from_word(word).ok_or_else(|| {
        let known = ConfigKind::ALL.map(ConfigKind::word).join(", ");
        match word {
            "vm" => {
                format!("the engine VM's description is changed in the engine only; the types are {known}")
            }
            _ => format!("the types are {known}"),
        }
    })
}

/// `--get-shared-config`: prints `KEY : VALUE, type : TYPE`. Exit 1 when there is no such key, or several files have it.
pub fn get(
    conf: &HostedEngineConf,
    key: &str,
    kind: Option<ConfigKind>,
    show_secret: bool,
    terminal: &mut Terminal,
) -> Result<Exit> {
    let contents = contents(conf, kind, terminal)?;
    let Some(content) = one_with(&contents, key, terminal) else { return Ok(Exit::FAILED) };
    let value = match content.get(key) {
        Some(value) if is_secret_key(key) && !show_secret && !value.is_empty() => HIDDEN,
        Some(value) => value,
        // As existing scripts see a key that may be missing.
        None => "None",
    };
    terminal.say(format!("\n{key} : {value}, type : {}\n", content.kind().word()));
    Ok(Exit::OK)
}

/// `--set-shared-config`: says nothing when it was done. Exit 1 when there is no such key, several files have it, or
/// the value is not usable.
pub async fn set(
    conf: &HostedEngineConf,
    key: &str,
    value: Given,
    kind: Option<ConfigKind>,
    terminal: &mut Terminal,
) -> Result<Exit> {
    let value = match value {
        Given::Argument(_) if is_secret_key(key) => {
            terminal.complain(format!(
                "A password on the command line can be read by every user of this host and is refused. Give - as the \
                 value of {key} and type it, or send it by standard input"
            ));
            return Ok(Exit::FAILED);
        }
        Given::Argument(value) | Given::Input(value) => value,
    };
    let contents = contents(conf, kind, terminal)?;
    let Some(content) = one_with(&contents, key, terminal) else { return Ok(Exit::FAILED) };
    let kind = content.kind();
    let value = match kind.checked_value(key, &value) {
        Ok(value) => value,
        Err(error) => {
            terminal.complain(error.to_string());
            return Ok(Exit::FAILED);
        }
    };
    match kind.member() {
        None => set_local(kind, conf.paths(), key, &value)?,
        Some(member) => {
            Change { conf, kind, member, key, value: &value }.carry_out(terminal).await?;
            refresh_copies(conf).context("It was changed on shared storage; this host's copy was not")?;
        }
    }
    Ok(Exit::OK)
}

/// The kinds that are asked about, as they are now.
fn contents(
    conf: &HostedEngineConf,
    kind: Option<ConfigKind>,
    terminal: &mut Terminal,
) -> Result<Vec<Content>> {
    let wanted = |candidate: &ConfigKind| kind.is_none_or(|kind| kind == *candidate);
    let wanted: Vec<ConfigKind> = ConfigKind::ALL.into_iter().filter(wanted).collect();
    if wanted.iter().any(|kind| kind.member().is_some()) {
        match refresh_copies(conf) {
            Ok(Refreshed::Current | Refreshed::Updated) => {}
            Ok(Refreshed::NoVolume) => terminal.complain(
                "This cluster has no configuration volume (conf_image_UUID and conf_volume_UUID are not set)",
            ),
            Err(error) => terminal.complain(format!(
                "The configuration on shared storage cannot be read, this host's copy is used: {error}"
            )),
        }
    }
    Ok(wanted.into_iter().map(|kind| Content::load(kind, conf.paths())).collect::<Result<_, _>>()?)
}

/// The one that knows the key; tells when there is none, or more than one.
fn one_with<'c>(contents: &'c [Content], key: &str, terminal: &mut Terminal) -> Option<&'c Content> {
    let found: Vec<&Content> = contents.iter().filter(|content| content.knows(key)).collect();
    match found.as_slice() {
        [one] => return Some(one),
        [] => {
            let all: Vec<_> = contents.iter().map(|content| (content.kind(), content.keys())).collect();
            let meant = nearest(key, all.iter().flat_map(|(_, keys)| keys).map(String::as_str));
            let meant = meant.map(|near| format!("; is {near} meant?")).unwrap_or_default();
            terminal.complain(format!("Invalid configuration key {key}{meant}\nAvailable keys are:"));
            for (kind, keys) in all {
                let keys: Vec<String> = keys.into_iter().collect();
                terminal.complain(format!("{} : {}", kind.word(), keys.join(", ")));
            }
        }
        several => {
            let kinds: Vec<&str> = several.iter().map(|content| content.kind().word()).collect();
            terminal.complain(format!(
                "Duplicate key {key}, please specify the key type with --type. Available types are: {}",
                kinds.join(", ")
            ));
        }
    }
    None
}

/// One key's change on the configuration volume.
struct Change<'a> {
    conf: &'a HostedEngineConf,
    kind: ConfigKind,
    member: &'a str,
    key: &'a str,
    value: &'a str,
}

impl Change<'_> {
    async fn carry_out(&self, terminal: &mut Terminal) -> Result<()> {
        let path = self.conf.conf_volume_path()?.context(
            "This cluster has no configuration volume: set the key with --type=he_local on each host",
        )?;
        let not_changed = || {
            format!(
                "Nothing was changed: {} cannot be used; is the storage connected (hosted-engine --connect-storage)?",
                path.display()
            )
        };
        let volume = ConfVolume::open(&path).with_context(not_changed)?;
        lock(&volume, terminal).await?;
        for _ in 0..ATTEMPTS {
            let old = volume.read().with_context(not_changed)?;
            if self.is_in(&old)? {
                return Ok(());
            }
            let text = old.content(self.member).unwrap_or_default();
            let text = self.kind.edited(self.conf.paths(), &path, text, self.key, self.value)?;
            let new = volume.prepare(&old, self.member, &text).with_context(not_changed)?;
            backup(self.conf.paths(), "configuration.tar", &old.encode()?)?;
            match volume.write(&old, &new).context("The configuration on shared storage was not changed")? {
                Write::Overtaken => continue,
                Write::Done => {}
            }
            tokio::time::sleep(SETTLE).await;
            if self.is_in(&volume.read()?)? {
                if new.encode()?.len() > RECORD {
                    terminal.complain(format!(
                        "The cluster's configuration has outgrown {RECORD} bytes: hosts with the existing release \
                         read it and cannot change it any more. Shorten it"
                    ));
                }
                return Ok(());
            }
        }
        bail!(
            "The configuration on shared storage was changed by somebody else {ATTEMPTS} times while {} was being set; \
             look what it is now with --get-shared-config, and try again. Copies of what it was are in {}",
            self.key,
            self.conf.paths().backup_dir().display()
        )
    }

    /// Whether the key has the value.
    fn is_in(&self, archive: &Archive) -> Result<bool> {
        let text = archive.content(self.member).unwrap_or_default();
        let content = Content::parse(self.kind, &self.kind.path(self.conf.paths()), text)?;
        Ok(content.get(self.key) == Some(self.value))
    }
}

/// Waits until no other host of this release changes the volume.
async fn lock(volume: &ConfVolume, terminal: &mut Terminal) -> Result<()> {
    for look in 0..LOCK_LOOKS {
        match volume.try_lock()? {
            Lock::Held | Lock::Unsupported => return Ok(()),
            Lock::Busy if look == 0 => {
                terminal.complain("Another host changes the configuration; waiting for it");
            }
            Lock::Busy => {}
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    bail!(
        "Nothing was changed: another host has been changing the configuration for {} s; try again",
        (LOCK_PAUSE * LOCK_LOOKS).as_secs()
    )
}
