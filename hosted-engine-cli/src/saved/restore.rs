//! `--restore`: look, refuse while anything lives, keep a copy of what is overwritten, write, read back.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use ha_config::secret::is_secret_key;
use ha_config::{HaToml, HostedEngineConf, Paths, atomic, conf_archive, conf_volume};
use metadata_format::{BLOCK_SIZE, HostId, parse_blocks};

use super::{CONFIGURATION, METADATA, Saved, host_files, node_name};
use crate::backup::backup;
use crate::deploy::services::Services;
use crate::deploy::{Installed, confirm, service_manager};
use crate::deployed;
use crate::repair::refuse_life;
use crate::setup::Lines;
use crate::shared_file::SharedFile;
use crate::terminal::{Exit, Terminal};

/// Write the HA configuration of a backup again. All HA services of the cluster must be stopped, and the engine VM down.
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// A file of --backup.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Show what differs, and change nothing.
    #[arg(long)]
    pub plan: bool,
    /// Also the blocks of the shared status: global maintenance, and what each host last said. Hosts that joined since
    /// keep theirs.
    #[arg(long)]
    pub blocks: bool,
    /// Confirm it; no terminal is needed.
    #[arg(long)]
    pub yes: bool,
}

/// One thing to write.
#[derive(PartialEq, Eq)]
pub(super) struct Change {
    /// For people.
    pub what: String,
    target: Target,
    before: Vec<u8>,
    after: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// A file of this host.
    File(PathBuf),
    /// A place on a volume.
    Volume(PathBuf, u64),
}

/// `--restore FILE`.
///
/// # Errors
/// Why nothing, or not everything, was restored.
pub fn restore(args: &RestoreArgs, paths: &Paths, terminal: &mut Terminal) -> anyhow::Result<ExitCode> {
    with_services(args, paths, service_manager(paths, &Installed).as_ref(), terminal)
}

pub(super) fn with_services(
    args: &RestoreArgs,
    paths: &Paths,
    services: &dyn Services,
    terminal: &mut Terminal,
) -> anyhow::Result<ExitCode> {
    let saved = load(&args.file)?;
    let conf = deployed::configuration(paths)?;
    let changes = changes(&saved, paths, conf.as_ref(), args.blocks, terminal)?;
    if changes.is_empty() {
        terminal.say("Nothing differs: there is nothing to restore");
        return Ok(Exit::OK.into());
    }
    for change in &changes {
        terminal.print(&change.describe());
    }
    if args.plan {
        return Ok(Exit::OK.into());
    }
    nothing_lives(paths, conf.as_ref(), services)?;
    if !confirm("Write this?", args.yes)? {
        terminal.complain("Nothing was changed");
        return Ok(Exit::FAILED.into());
    }
    for change in &changes {
        change.carry_out(paths).with_context(|| change.what.clone())?;
        terminal.say(format!("Restored: {}", change.what));
    }
    terminal.say(format!("Copies of what was there before are in {}", paths.backup_dir().display()));
    if conf.is_none() {
        terminal.say(
            "This host's files are there again. Connect the storage (hosted-engine --connect-storage), then run this once \
             more for what is on it",
        );
    }
    Ok(Exit::OK.into())
}

fn load(path: &Path) -> anyhow::Result<Saved> {
    let named = || path.display().to_string();
    let size = std::fs::metadata(path).with_context(named)?.len();
    ensure!(size <= super::archive::MAX_BYTES, "{}: {size} bytes are too many for a backup", path.display());
    Saved::parse(&std::fs::read(path).with_context(named)?).with_context(named)
}

/// Everything that differs.
pub(super) fn changes(
    saved: &Saved,
    paths: &Paths,
    conf: Option<&HostedEngineConf>,
    with_blocks: bool,
    terminal: &mut Terminal,
) -> anyhow::Result<Vec<Change>> {
    let whose = &saved.whose;
    let is_own = match conf {
        Some(conf) => {
            let (sd_uuid, vmid) = (conf.sd_uuid()?, conf.vmid()?);
            ensure!(
                sd_uuid == whose.sd_uuid && vmid == whose.vmid,
                "the backup is of another hosted engine: of {} (storage domain {}, VM {}), and this host belongs to {} \
                 (storage domain {sd_uuid}, VM {vmid})",
                whose.fqdn,
                whose.sd_uuid,
                whose.vmid,
                conf.fqdn().unwrap_or("one without a name")
            );
            conf.host_id()?.map(HostId::get) == Some(whose.host_id)
        }
        None if whose.host_name == node_name() => true,
        None => bail!(
            "the backup is of the host {} (id {}), and this host is {}, which is not deployed: add it to the cluster with \
             hosted-engine --deploy --join",
            whose.host_name,
            whose.host_id,
            node_name()
        ),
    };
    let mut all = Vec::new();
    if is_own {
        for (name, path) in host_files(paths) {
            let Some(after) = saved.members.get(name) else { continue };
            let before = match std::fs::read(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                other => other.with_context(|| path.display().to_string())?,
            };
            let what = path.display().to_string();
            all.push(Change { what, target: Target::File(path), before, after: after.clone() });
        }
    } else {
        terminal.complain(format!(
            "The backup was made on host {} ({}): this host's own files stay as they are",
            whose.host_id, whose.host_name
        ));
    }
    if let Some(conf) = conf {
        all.extend(configuration(saved, conf)?);
        if with_blocks {
            all.extend(blocks(saved, conf)?);
        }
    }
    all.retain(|change| change.before != change.after);
    Ok(all)
}

/// The cluster's configuration archive.
fn configuration(saved: &Saved, conf: &HostedEngineConf) -> anyhow::Result<Option<Change>> {
    let (Some(after), Some(path)) = (saved.members.get(CONFIGURATION), conf.conf_volume_path()?) else {
        return Ok(None);
    };
    let archive = conf_archive::Archive::parse(after).context("the configuration archive in the backup")?;
    archive.check_complete().context("the configuration archive in the backup")?;
    let volume = SharedFile::open(&path, false)?;
    let size = volume.size()?;
    ensure!(
        after.len() as u64 <= size,
        "the cluster's configuration has {} bytes, and its volume {size}",
        after.len()
    );
    // Where they are the same, what follows the archive's end on the volume is of no matter.
    if conf_volume::read(&path).is_ok_and(|now| now.same_files(&archive)) {
        return Ok(None);
    }
    let before = volume.read(0, after.len().max(conf_archive::MAX_BYTES))?;
    let what = format!("the cluster's configuration on {}", path.display());
    Ok(Some(Change { what, target: Target::Volume(path, 0), before, after: after.clone() }))
}

/// Block 0 and each host's block that is in the backup.
fn blocks(saved: &Saved, conf: &HostedEngineConf) -> anyhow::Result<Vec<Change>> {
    let Some(all) = saved.members.get(METADATA) else { return Ok(Vec::new()) };
    let path = conf.metadata_path()?;
    let volume = SharedFile::open(&path, false)?;
    let mut changes = Vec::new();
    for (number, after) in all.chunks_exact(BLOCK_SIZE).enumerate().filter(|(_, block)| block[0] != 0) {
        let offset = (number * BLOCK_SIZE) as u64;
        let what = match number {
            0 => "block 0: the cluster's mode".to_owned(),
            _ => format!("the block of host {number}"),
        };
        let before = volume.read(offset, BLOCK_SIZE)?;
        changes.push(Change {
            what,
            target: Target::Volume(path.clone(), offset),
            before,
            after: after.to_vec(),
        });
    }
    Ok(changes)
}

/// Refuses while an agent, a broker or the engine VM lives on any host.
fn nothing_lives(
    paths: &Paths,
    conf: Option<&HostedEngineConf>,
    services: &dyn Services,
) -> anyhow::Result<()> {
    for name in ["ovirt-ha-agent", "ovirt-ha-broker"] {
        if services.state(name)?.is_some_and(|state| state.is_active) {
            bail!(
                "{name} runs on this host: stop the HA services of all hosts first (systemctl stop ovirt-ha-agent \
                   ovirt-ha-broker)"
            );
        }
    }
    let Some(conf) = conf else { return Ok(()) };
    let toml = HaToml::load(paths)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(refuse_life(conf, &toml, &Lines)).map_err(|stop| anyhow::anyhow!(stop.text))
}

impl Change {
    /// What becomes of it, line by line where it is text, without passwords.
    pub fn describe(&self) -> String {
        let text = |bytes: &[u8]| -> Option<String> {
            let is_text = matches!(self.target, Target::File(_));
            String::from_utf8(bytes.to_vec()).ok().filter(|_| is_text)
        };
        let mut said = match (self.before.is_empty(), &self.target) {
            (true, _) => format!("{}: is written anew\n", self.what),
            (false, _) => format!("{}: is changed\n", self.what),
        };
        if let Target::Volume(..) = self.target {
            said += &archive_differences(&self.before, &self.after);
        }
        if let (false, Some(before), Some(after)) =
            (self.before.is_empty(), text(&self.before), text(&self.after))
        {
            said += &differences(&before, &after);
        }
        said
    }

    fn carry_out(&self, paths: &Paths) -> anyhow::Result<()> {
        let name = match &self.target {
            Target::File(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            Target::Volume(_, 0) => "restored-volume".to_owned(),
            Target::Volume(_, offset) => format!("restored-volume.at-{offset}"),
        };
        if !self.before.is_empty() {
            backup(paths, &name, &self.before)?;
        }
        match &self.target {
            Target::File(path) => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
                }
                // One with a password was not for others, and is not.
                let is_secret = String::from_utf8_lossy(&self.after).lines().any(holds_secret);
                let mode = if is_secret { atomic::Mode::Private } else { atomic::Mode::KeepOr644 };
                atomic::write(path, &self.after, mode)?;
            }
            Target::Volume(path, offset) => {
                let volume = SharedFile::open(path, true)?;
                volume.write(*offset, &self.after)?;
                let seen = volume.read(*offset, self.after.len())?;
                ensure!(seen == self.after, "{} reads back as something else", path.display());
            }
        }
        Ok(())
    }
}

fn holds_secret(line: &str) -> bool {
    line.split_once('=').is_some_and(|(key, value)| is_secret_key(key.trim()) && !value.trim().is_empty())
}

/// Lines that only one of the two has.
fn differences(before: &str, after: &str) -> String {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (before.lines().collect(), after.lines().collect());
    let mut said = String::new();
    let shown = |line: &str| match line.split_once('=') {
        Some((key, _)) if holds_secret(line) => format!("{key}=********"),
        _ => line.to_owned(),
    };
    for line in before.lines().filter(|line| !new.contains(line)) {
        // Writing to a String cannot fail.
        let _ = writeln!(said, "  - {}", shown(line));
    }
    for line in after.lines().filter(|line| !old.contains(line)) {
        let _ = writeln!(said, "  + {}", shown(line));
    }
    said
}

/// Of a configuration archive file by file; of blocks which host they name.
fn archive_differences(before: &[u8], after: &[u8]) -> String {
    let mut said = String::new();
    let Ok(new) = conf_archive::read(after) else {
        for (id, block) in parse_blocks(&[vec![0; BLOCK_SIZE], after.to_vec()].concat()) {
            if let Ok(block) = block {
                let _ = writeln!(said, "  + {} (id {id}), score {}", block.hostname, block.score.0);
            }
        }
        return said;
    };
    let old = conf_archive::read(before).unwrap_or_default();
    for (name, bytes) in &new {
        let (before, after) = (old.get(name), String::from_utf8_lossy(bytes));
        if before == Some(bytes) {
            continue;
        }
        let _ = writeln!(said, "  {name}:");
        let before = before.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
        for line in differences(&before, &after).lines() {
            let _ = writeln!(said, "  {line}");
        }
    }
    said
}
