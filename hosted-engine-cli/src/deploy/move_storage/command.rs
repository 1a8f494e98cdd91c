//! `hosted-engine --move-storage` as operators type it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ha_config::{DomainType, HostedEngineConf, Paths};

use super::facts::{Member, Seen, same_storage};
use super::lease::OfSanlock;
use super::{Journal, former, half_move, journal, note, refuse_behind};
use crate::cli::OpenVm;
use crate::deploy::answers::Value;
use crate::deploy::carry_out::{Hands, Stopped};
use crate::deploy::command::{
    Plan, all_told, confirm, left, planned, service_manager, session_warning, show_status,
};
use crate::deploy::dialogue::{self, Asked, Asker, AtTerminal, Means, NewStorage, ThisHost};
use crate::deploy::log::{Logged, Told};
use crate::deploy::preview::{self, Row};
use crate::deploy::questions::{Lookups as _, keys};
use crate::deploy::storage::find::Hosts;
use crate::deploy::{DeployArgs, DeployError, Installed, Request, Secrets, Watcher, preflight, storage};
use crate::setup::Report as _;
use crate::terminal::{Exit, Terminal};

/// Move the hosted engine to another storage domain: make it, copy the VM's disk and the cluster's configuration, close
/// the former one for all hosts, change this host over. On each other host: --follow. The former domain stays as it is.
#[derive(Debug, Clone, Default, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct MoveStorageArgs {
    /// Answer file with the new storage, as for --deploy; only its answers about storage count.
    #[arg(long, visible_alias = "answers", value_name = "FILE")]
    pub config_append: Vec<PathBuf>,
    /// Change this host over to where its cluster moved: found by the note on the former storage, or named
    /// (`server:/path`, a directory, a portal of iSCSI) where that does not answer any more.
    #[arg(long, value_name = "STORAGE", num_args = 0..=1)]
    pub follow: Option<Option<String>>,
    /// Show what would be done, or with --undo what would be taken back, and do nothing.
    #[arg(long)]
    pub plan: bool,
    /// Confirm everything; with answers for all questions no terminal is needed.
    #[arg(long)]
    pub yes: bool,
    /// Go on with a move that was interrupted, at the step that was cut.
    #[arg(long, conflicts_with_all = ["undo", "config_append", "follow"])]
    pub resume: bool,
    /// Take back what an interrupted move made or changed; not once the former storage is closed.
    #[arg(long, conflicts_with_all = ["config_append", "follow"])]
    pub undo: bool,
}

/// `--move-storage`, in all its ways.
///
/// # Errors
/// Why it was not done.
pub fn move_storage(args: &MoveStorageArgs, paths: &Paths, open_vm: &OpenVm) -> anyhow::Result<ExitCode> {
    let what = if args.undo { Plan::Undo } else { Plan::Resume };
    if args.plan && (args.undo || args.resume) {
        Terminal::default().print(&interrupted(paths, what)?);
        return Ok(Exit::OK.into());
    }
    anyhow::ensure!(
        rustix::process::geteuid().is_root() || !paths.is_real_host(),
        "moving the hosted engine changes this host: run it as root"
    );
    let told = Told::new(paths, Terminal::default())?;
    let tools = Logged { tools: &Installed, told: &told };
    let services = service_manager(paths, &tools);
    let hands = Hands { paths, tools: &tools, report: &told, services: services.as_ref(), open_vm };
    told.info(&format!("Log file: {}", told.log_file().display()));
    if let Some(warning) = session_warning(|name| std::env::var_os(name).is_some()) {
        told.warning(warning);
    }
    if args.undo {
        told.text(&interrupted(paths, Plan::Undo)?);
        if !confirm("Take this back?", args.yes)? {
            told.failure("Nothing was taken back");
            return Ok(Exit::FAILED.into());
        }
        return match hands.undo_move(None) {
            Ok(()) => {
                told.info("Everything is taken back; the logs stay");
                Ok(Exit::OK.into())
            }
            Err(stopped) => Ok(failed(&stopped, &told)),
        };
    }
    if args.resume {
        interrupted(paths, Plan::Resume)?;
        return match hands.resume_move(None) {
            Ok(()) => finish(paths, &told),
            Err(stopped) => Ok(failed(&stopped, &told)),
        };
    }
    begin(args, &hands, &told)
}

fn failed(stopped: &Stopped, told: &Told) -> ExitCode {
    told.failure(&stopped.to_string());
    Exit::FAILED.into()
}

/// A new move: its questions, its preview, and then the steps.
fn begin(args: &MoveStorageArgs, hands: &Hands<'_>, told: &Told) -> anyhow::Result<ExitCode> {
    let paths = hands.paths;
    if let Some(half) = half_move(paths)? {
        anyhow::bail!("{half}");
    }
    let member = Member::of(paths)?;
    let seen = if args.follow.is_some() { None } else { Some(Seen::look(&member)?) };
    let objections = seen.as_ref().map(Seen::objections).unwrap_or_default();
    if !objections.is_empty() {
        for objection in &objections {
            told.failure(objection);
        }
        anyhow::bail!("The hosted engine cannot be moved as it is; nothing was changed");
    }
    let mut terminal = AtTerminal::open();
    let lookups = ThisHost { paths, tools: hands.tools, report: told };
    let asker = terminal.as_mut().map(|terminal| terminal as &mut dyn Asker);
    let means = Means { paths, lookups: &lookups, storage: hands, asker, report: told };
    let (join, presets) = match &args.follow {
        Some(Some(storage)) => (Some(storage.clone()), Vec::new()),
        Some(None) => {
            let (join, presets) = followed(&member.conf)?;
            (Some(join), presets)
        }
        None => (None, Vec::new()),
    };
    let given = DeployArgs {
        config_append: args.config_append.clone(),
        plan: args.plan,
        yes: args.yes,
        join,
        ..DeployArgs::default()
    };
    let new = dialogue::storage(&given, &presets, means)?;
    let name = lookups.facts().name;
    let request = match &seen {
        Some(seen) => {
            if let Some(why) = same_storage(&member.conf, &new.storage) {
                anyhow::bail!("{why}");
            }
            member.first(&new, seen, name)?
        }
        None => member.further(&new, name).map_err(anyhow::Error::msg)?,
    };
    let preview = rows(&member.conf, &request, &new, seen.as_ref());
    if args.plan {
        for line in preview::lines(&preview) {
            told.text(&format!("{line}\n"));
        }
        told.text(&planned(&request));
    }
    if seen.is_some() {
        told.info("Checking the new storage");
        if !all_told(&preflight::storage(&hands.world(&request, &new.secrets)), told) {
            told.failure("The new storage cannot be used as it is; nothing was changed");
            return Ok(Exit::FAILED.into());
        }
    }
    if args.plan {
        return Ok(Exit::OK.into());
    }
    let NewStorage { secrets, is_confirmed, answers, .. } = new;
    let whole =
        Asked { request, id_is_proposed: false, secrets, answers, preview, cluster: None, is_confirmed };
    let asker = terminal.as_mut().map(|terminal| terminal as &mut dyn Asker);
    preview::confirm(&whole, asker, told)?;
    match hands.begin(whole.request, &whole.secrets, None) {
        Ok(()) => finish(paths, told),
        Err(stopped) => Ok(failed(&stopped, told)),
    }
}

/// Answers that no file need give.
type Presets = Vec<(&'static str, Value)>;

/// Where the note on the former storage leads: as `--join` has it, and as answers.
fn followed(conf: &HostedEngineConf) -> anyhow::Result<(String, Presets)> {
    let advice = "name the new storage: hosted-engine --move-storage --follow=STORAGE";
    let note = note::read(conf).map_err(|error| anyhow::anyhow!("{error}; {advice}"))?;
    let Some(to) = note else {
        anyhow::bail!(
            "the cluster did not move: {} has no note of it. To move it, leave --follow out",
            conf.storage_domain_dir()?.display()
        )
    };
    let text = |text: &str| Value::Text(text.to_owned());
    let mut presets = Vec::new();
    let kind = match to.domain_type()? {
        DomainType::Posixfs => "directory",
        DomainType::Nfs => match to.nfs_version() {
            Some(version) if version.starts_with("v3") => "nfs3",
            Some(version) if version.starts_with("v4") => "nfs4",
            _ => "nfs",
        },
        other => other.word(),
    };
    presets.push((keys::DOMAIN_TYPE, text(kind)));
    presets.push((keys::STORAGE_DOMAIN, text(to.sd_uuid()?)));
    for (key, value) in [
        (keys::MOUNT_OPTIONS, to.mnt_options()),
        (keys::TARGET, to.iqn()),
        (keys::TPGT, to.portal()),
        (keys::ISCSI_USER, to.iscsi_user()),
    ] {
        presets.extend(value.map(|value| (key, text(value))));
    }
    let join = match to.domain_type()? {
        DomainType::Fc => "fc".to_owned(),
        DomainType::Iscsi => {
            let ports: Vec<&str> = to.file().get("port").unwrap_or("3260").split(',').collect();
            let portals = to.storage()?.split(',').enumerate();
            let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or("3260");
            portals.map(|(index, host)| format!("{host}:{}", port(index))).collect::<Vec<_>>().join(",")
        }
        _ => to.storage()?.to_owned(),
    };
    Ok((join, presets))
}

/// What is shown before it is confirmed.
fn rows(conf: &HostedEngineConf, request: &Request, new: &NewStorage, seen: Option<&Seen>) -> Vec<Row> {
    let row = |label, value: String| Row { label, value };
    let mut all = vec![
        row("Engine", conf.fqdn().unwrap_or_default().to_owned()),
        row("Storage until now", conf.storage().unwrap_or_default().to_owned()),
        row("Storage domain until now", conf.sd_uuid().unwrap_or_default().to_owned()),
    ];
    all.extend(new.preview.iter().cloned());
    if let (Request::FirstHost(first), Some(seen)) = (request, seen) {
        all.push(row(
            "VM's disk",
            format!("{} bytes to copy", seen.disk.as_ref().copied().unwrap_or_default()),
        ));
        all.push(row("Disk size GiB", first.vm.disk_gib.to_string()));
        let others = seen.others.as_ref().ok().cloned().flatten();
        all.push(row("Hosts to follow", others.unwrap_or_else(|| "(none)".to_owned())));
    }
    all
}

/// What is left to do, or to take back.
fn interrupted(paths: &Paths, what: Plan) -> anyhow::Result<String> {
    match Journal::read(&journal(paths))?.filter(|story| story.outcome.is_none()) {
        Some(story) => Ok(left(&story, what)),
        None => anyhow::bail!("no move of the hosted engine is under way on this host"),
    }
}

/// What the operator does next.
fn finish(paths: &Paths, told: &Told) -> anyhow::Result<ExitCode> {
    if let Some(story) = Journal::read(&journal(paths))?
        && let Some(former) = story.request.moves()
    {
        told.text(&closing(&story.request, &former.conf(paths)));
    }
    told.info("The hosted engine is on its new storage");
    show_status(paths, told)?;
    Ok(Exit::OK.into())
}

fn closing(request: &Request, conf: &HostedEngineConf) -> String {
    let Request::FirstHost(first) = request else { return String::new() };
    let (Ok(domain), Ok(metadata), Ok(lockspace)) =
        (conf.storage_domain_dir(), conf.metadata_path(), conf.lockspace_path())
    else {
        return String::new();
    };
    let own = metadata_format::HostId::new(first.host.id).ok();
    let others = Hosts::read(&metadata, &lockspace).ok().and_then(|hosts| hosts.others(own));
    let follow = others.map_or_else(String::new, |others| {
        format!("Run on each other host ({others}):\n  hosted-engine --move-storage --follow\n")
    });
    let sd = conf.sd_uuid().unwrap_or_default();
    let delete = if conf.domain_type().is_ok_and(DomainType::is_block) {
        format!("vgremove {sd}")
    } else {
        format!("rm -r {}", domain.display())
    };
    format!(
        "{follow}The former storage domain {sd} is as it was, but for the VM's lease: no host can start the VM from there. \
         When every host has followed and you are sure, delete it, with its storage connected: {delete}\n"
    )
}

impl Hands<'_> {
    /// Goes on with a move that was interrupted.
    ///
    /// # Errors
    /// Why it stopped.
    pub fn resume_move(&self, watcher: Option<Watcher>) -> Result<(), Stopped> {
        let journal = self.open_move()?;
        let (request, secrets) = (journal.story().request.clone(), Secrets::default());
        self.reach_former(&request, &secrets)?;
        self.resume_at(journal, watcher)
    }

    /// Takes back what an interrupted move made or changed.
    ///
    /// # Errors
    /// What cannot be taken back now, or any more.
    pub fn undo_move(&self, watcher: Option<Watcher>) -> Result<(), Stopped> {
        let journal = self.open_move()?;
        let (request, secrets) = (journal.story().request.clone(), Secrets::default());
        self.reach_former(&request, &secrets)?;
        refuse_behind(journal.story(), &self.world(&request, &secrets), &OfSanlock)?;
        self.undo_at(journal, watcher)
    }

    /// The host may have been restarted since. Of a host that follows, the former storage may be gone.
    fn reach_former(&self, request: &Request, secrets: &Secrets) -> Result<(), DeployError> {
        let conf = former(&self.world(request, secrets))?.conf(self.paths);
        match (storage::attach(&conf, self.tools), request) {
            (Err(error), Request::FirstHost(_)) => Err(error),
            _ => Ok(()),
        }
    }

    fn open_move(&self) -> Result<Journal, DeployError> {
        let journal =
            Journal::open(&journal(self.paths))?.filter(|journal| journal.story().outcome.is_none());
        journal.ok_or_else(|| {
            DeployError::Refused("no move of the hosted engine is under way on this host".to_owned())
        })
    }
}
