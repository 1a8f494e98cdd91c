//! iSCSI through `iscsiadm`: discovery, login through several portals, logout.
//!
//! `iscsiadm` takes passwords as arguments only, where every user of the host could read them. So a record is made by it
//! without any, and the password is written into the record's file, which only root may read. Its exit codes, not its
//! words, say what went wrong (iscsiadm(8), EXIT STATUS).

mod record;

use std::fmt;
use std::time::Duration;

use ha_config::{Paths, Secret};
use serde::{Deserialize, Serialize};

use crate::deploy::made::{Undo, Undone};
use crate::deploy::tools::{Call, Said, Tools};
use crate::deploy::{DeployError, Iscsi, Job, Storage, World};

/// The port of iSCSI.
pub const PORT: u16 = 3260;

/// Exit codes that are no failure for us.
const SESSION_EXISTS: i32 = 15;
const NOTHING_FOUND: i32 = 21;

/// One way to a target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Portal {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Target portal group.
    pub tpgt: u16,
    /// The target.
    pub target: String,
}

impl Portal {
    /// `host:port`, IPv6 in brackets.
    fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Reads `HOST:PORT,TPGT IQN` (discovery) or the same with more behind it (sessions).
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let (address, group) = words.next()?.rsplit_once(',')?;
        let (host, port) = address.rsplit_once(':')?;
        Some(Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: port.parse().ok()?,
            // -1, which stands for none, becomes 1 as everywhere.
            tpgt: group.parse().unwrap_or(1),
            target: words.next()?.to_owned(),
        })
    }

    fn node(&self) -> Call {
        let portal = format!("{},{}", self.address(), self.tpgt);
        Call::new("iscsiadm").args(["-m", "node", "-T", &self.target, "-p", &portal])
    }
}

impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.target, self.address())
    }
}

/// CHAP's user and password.
#[derive(Debug, Clone)]
pub struct Chap<'a> {
    /// The user.
    pub user: &'a str,
    /// The password.
    pub password: &'a Secret,
}

/// What an exit code of `iscsiadm` means, with what to do.
fn advice(code: i32) -> &'static str {
    match code {
        4 | 8 | 11 => "nothing answers there: check the address, the port and the network to it",
        5 | 19 => {
            "the target refused the login: does it let this host's initiator in (/etc/iscsi/initiatorname.iscsi)?"
        }
        12 => "the kernel has no iSCSI: modprobe iscsi_tcp",
        13 => "only root may do that",
        18 | 20 => "the daemon iscsid does not answer: systemctl start iscsid",
        21 => "the target has no such name, portal or session",
        23 => "this name has no address: check the name servers",
        24 => "the target does not take the CHAP user and password",
        28 => "a device of the target is in use",
        NO_RECORD => "this host cannot keep the password for as long as that takes",
        _ => "see the log of iscsid",
    }
}

fn failed(what: &str, call: &Call, said: &Said) -> DeployError {
    let words = if said.err.trim().is_empty() { &said.out } else { &said.err };
    let words = words.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let call = if call.program == "iscsiadm" { call.to_string() } else { "iscsiadm".to_owned() };
    DeployError::Refused(format!(
        "{what}: {} (`{call}`: exit code {}, {words:?})",
        advice(said.code),
        said.code
    ))
}

/// Keeps the record of a discovery that needs a password in memory.
const DISCOVER: &str = include_str!("iscsi/discover.sh");
/// What [`DISCOVER`] ends with when it came to no discovery. `iscsiadm` has no such code.
const NO_RECORD: i32 = 125;

/// The targets behind a portal, each once for each of its portals. Leaves no record on this host, and none that is there
/// already is touched.
///
/// # Errors
/// What stands in the way.
pub fn discover(
    paths: &Paths,
    tools: &dyn Tools,
    host: &str,
    port: u16,
    chap: Option<&Chap<'_>>,
) -> Result<Vec<Portal>, DeployError> {
    let portal = Portal { host: host.to_owned(), port, tpgt: 1, target: String::new() }.address();
    let what = format!("the iSCSI targets at {portal} cannot be found out");
    let Some(chap) = chap else {
        let call = Call::new("iscsiadm").args(["-m", "discovery", "-t", "sendtargets", "-p", &portal]);
        return listed(tools, &call.args(["-o", "nonpersistent"]), &what);
    };
    let call = Call::new("unshare").args(["--mount", "--propagation", "private", "sh", "-c", DISCOVER]);
    let call = call.args(["discover", &portal]).args(record::places(paths));
    listed(tools, &call.input(record::discovery(chap)?), &what)
}

fn listed(tools: &dyn Tools, call: &Call, what: &str) -> Result<Vec<Portal>, DeployError> {
    let said = tools.ask(call)?;
    match said.code {
        0 => Ok(said.out.lines().filter_map(Portal::parse).collect()),
        NOTHING_FOUND => Ok(Vec::new()),
        _ => Err(failed(what, call, &said)),
    }
}

/// The sessions of this host.
fn sessions(tools: &dyn Tools) -> Result<Vec<Portal>, DeployError> {
    let call = Call::new("iscsiadm").args(["-m", "session"]);
    let said = tools.ask(&call)?;
    match said.code {
        // `tcp: [1] 10.0.0.1:3260,1 iqn.… (non-flash)`
        0 => Ok(said.out.lines().filter_map(|line| Portal::parse(line.split_once("] ")?.1)).collect()),
        NOTHING_FOUND => Ok(Vec::new()),
        _ => Err(failed("the iSCSI sessions of this host are unknown", &call, &said)),
    }
}

/// The portals that a request names.
///
/// # Errors
/// A name that `iscsiadm` could take for something else.
pub fn portals(connection: &str, iscsi: &Iscsi) -> Result<Vec<Portal>, DeployError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-:_".contains(c);
    if iscsi.target.is_empty() || iscsi.target.starts_with(['-', '.']) || !iscsi.target.chars().all(is_plain)
    {
        return Err(DeployError::Refused(format!(
            "{:?} is no name of an iSCSI target, for example iqn.2003-01.org.example:storage",
            iscsi.target
        )));
    }
    let portal = |(host, port)| Portal { host, port, tpgt: iscsi.tpgt, target: iscsi.target.clone() };
    Ok(addresses(connection, &iscsi.ports)?.into_iter().map(portal).collect())
}

/// The portals' addresses, IPv6 without brackets, each with its port.
///
/// # Errors
/// One that is no address; none at all.
pub fn addresses(connection: &str, ports: &[u16]) -> Result<Vec<(String, u16)>, DeployError> {
    let mut all = Vec::new();
    for (index, host) in connection.split(',').map(str::trim).filter(|host| !host.is_empty()).enumerate() {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // iscsiadm keeps its settings by address.
        if host.parse::<std::net::IpAddr>().is_err() {
            return Err(DeployError::Refused(format!(
                "{host:?} is no address of an iSCSI portal: give addresses as discovery shows them, for example 10.0.0.1"
            )));
        }
        let port = ports.get(index).or(ports.last()).copied().unwrap_or(PORT);
        all.push((host.to_owned(), port));
    }
    if all.is_empty() {
        return Err(DeployError::Refused(
            "iSCSI needs a portal: the address of the storage server, for example 10.0.0.1".to_owned(),
        ));
    }
    Ok(all)
}

/// Logs in through every portal that has no session yet. One that works is enough; others are warnings.
pub(super) fn connect(job: &mut Job<'_>, storage: &Storage) -> Result<(), DeployError> {
    let iscsi = storage.iscsi.as_ref().ok_or_else(|| {
        DeployError::Refused("iSCSI storage needs the name of its target, iqn.…".to_owned())
    })?;
    let wanted = portals(&storage.connection, iscsi)?;
    let present = sessions(job.world.tools)?;
    let mut failures = Vec::new();
    for portal in &wanted {
        let same = |session: &&Portal| {
            (&session.host, session.port, &session.target) == (&portal.host, portal.port, &portal.target)
        };
        if present.iter().any(|session| same(&session)) {
            job.world.report.info(&format!("This host is logged in to {portal} already"));
            rescan(job.world.tools, portal)?;
            continue;
        }
        if let Err(error) = log_in(job, portal, iscsi) {
            failures.push(error);
        }
    }
    if failures.len() == wanted.len() {
        // The first says most: the portals are ways to the same target.
        return Err(failures.swap_remove(0));
    }
    for failure in failures {
        job.world.report.warning(&format!("One way to the storage is missing: {failure}"));
    }
    Ok(())
}

fn log_in(job: &mut Job<'_>, portal: &Portal, iscsi: &Iscsi) -> Result<(), DeployError> {
    if record::find(job.world.paths, portal).is_none() {
        job.make(MadeNode(portal.clone()), |world| {
            world.tools.run(&portal.node().args(["-o", "new"]))?;
            let chap = chap(world, iscsi)?;
            record::set_node(world.paths, portal, chap.as_ref())
        })?;
    } else {
        job.world.report.info(&format!("Using this host's own settings for {portal}"));
    }
    job.make(MadeSession(portal.clone()), |world| {
        let call = portal.node().arg("--login").within(Duration::from_mins(3));
        let said = world.tools.ask(&call)?;
        match said.code {
            0 | SESSION_EXISTS => Ok(()),
            _ => Err(failed(&format!("this host cannot log in to {portal}"), &call, &said)),
        }
    })
}

fn chap<'w>(world: &World<'w>, iscsi: &'w Iscsi) -> Result<Option<Chap<'w>>, DeployError> {
    let Some(user) = &iscsi.user else { return Ok(None) };
    let password = world.secrets.iscsi.as_ref().ok_or_else(|| {
        DeployError::Refused(format!(
            "the password of the iSCSI user {user:?} is not known: give it in an answer file"
        ))
    })?;
    Ok(Some(Chap { user, password }))
}

/// A session does not see LUNs by itself that were mapped after its login.
fn rescan(tools: &dyn Tools, portal: &Portal) -> Result<(), DeployError> {
    let call = portal.node().arg("--rescan").within(Duration::from_mins(2));
    let said = tools.ask(&call)?;
    match said.code {
        0 | NOTHING_FOUND => Ok(()),
        _ => Err(failed(&format!("the LUNs of {portal} cannot be looked for"), &call, &said)),
    }
}

/// Logs in where a record of this host is and a session is not: after a boot whose own login failed.
pub(super) fn log_in_again(paths: &Paths, tools: &dyn Tools, portals: &[Portal]) -> Result<(), DeployError> {
    let present = sessions(tools)?;
    let is_present = |portal: &Portal| {
        present.iter().any(|session| session.host == portal.host && session.target == portal.target)
    };
    let mut failure = None;
    for portal in portals.iter().filter(|portal| !is_present(portal)) {
        if record::find(paths, portal).is_none() {
            continue;
        }
        let call = portal.node().arg("--login").within(Duration::from_mins(3));
        let said = tools.ask(&call)?;
        if !matches!(said.code, 0 | SESSION_EXISTS) {
            failure = Some(failed(&format!("this host cannot log in to {portal}"), &call, &said));
        }
    }
    match failure {
        Some(failure) if !portals.iter().any(is_present) => Err(failure),
        Some(_) | None => Ok(()),
    }
}

/// A record of a portal, by which the host logs in at boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeNode(pub Portal);

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeSession(pub Portal);

fn undo(world: &World<'_>, call: &Call, what: &str) -> Result<Undone, DeployError> {
    let said = world.tools.ask(call)?;
    match said.code {
        0 => Ok(Undone::TakenBack),
        NOTHING_FOUND => Ok(Undone::Absent),
        _ => Err(failed(what, call, &said)),
    }
}

impl Undo for MadeNode {
    fn describe(&self) -> String {
        format!("this host's settings for {}", self.0)
    }

    fn describe_undo(&self) -> String {
        "removed".to_owned()
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let call = self.0.node().args(["-o", "delete"]);
        undo(world, &call, &format!("the settings for {} cannot be removed", self.0))
    }
}

impl Undo for MadeSession {
    fn describe(&self) -> String {
        format!("iSCSI session to {}", self.0)
    }

    fn describe_undo(&self) -> String {
        "logged out".to_owned()
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let call = self.0.node().arg("--logout").within(Duration::from_mins(2));
        undo(world, &call, &format!("this host cannot log out of {}", self.0))
    }
}

#[cfg(test)]
#[path = "iscsi/tests.rs"]
mod tests;
