//! `--doctor`: whether this host's protection is what it should be, a line for each check, with what to do where it is not.
//!
//! [`examine`] judges what was gathered and is pure; gathering asks sanlock and the broker, and changes nothing.

use std::process::ExitCode;
use std::time::Duration;

use broker_api::BrokerClient;
use broker_api::status::{LeaseState, StatusDocument, StorageState};
use clap::Args;
use ha_config::{HaToml, Paths};
use sanlock_client::{Client, DaemonSettings, HostStatus, LockspaceName, Version};

use crate::repair::deployed;
use crate::terminal::{Exit, Terminal};

/// The lockspace of the hosts' blocks.
const LOCKSPACE: &str = "hosted-engine";
/// How long a question to sanlock or to the broker may take.
const ASK: Duration = Duration::from_secs(5);

/// Check what protects the engine VM on this host: sanlock, watchdog, times, storage.
#[derive(Debug, Args)]
pub struct DoctorArgs {}

/// What was gathered. Errors are in words.
#[derive(Debug, Clone)]
pub struct Found {
    /// ha.toml, which has been checked against its own rules.
    pub toml: Result<HaToml, String>,
    /// sanlock's release.
    pub sanlock: Result<Version, String>,
    /// How it was started.
    pub settings: Result<DaemonSettings, String>,
    /// The hosts of the lockspace.
    pub hosts: Result<Vec<HostStatus>, String>,
    /// What the broker knows.
    pub broker: Result<Option<StatusDocument>, String>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub what: &'static str,
    /// What is well, or what is wrong and what to do.
    pub verdict: Result<String, String>,
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (word, text) = match &self.verdict {
            Ok(text) => ("good", text),
            Err(text) => ("BAD ", text),
        };
        write!(f, "{word}  {:15} {text}", self.what)
    }
}

/// `--doctor`. Exit code 1 when something is not as it should be.
pub fn run(paths: &Paths, terminal: &mut Terminal) -> ExitCode {
    if let Err(stop) = deployed(paths) {
        terminal.complain(&stop.text);
        return stop.code.into();
    }
    let checks = examine(&gather(paths));
    for check in &checks {
        terminal.say(check.to_string());
    }
    let is_bad = checks.iter().any(|check| check.verdict.is_err());
    if is_bad { Exit::FAILED.into() } else { Exit::OK.into() }
}

fn gather(paths: &Paths) -> Found {
    let sanlock = Client::new(paths.sanlock_socket()).with_deadline(ASK);
    let hosts = LockspaceName::new(LOCKSPACE)
        .map_err(|error| error.to_string())
        .and_then(|name| sanlock.get_hosts(&name, None).map_err(|error| error.to_string()));
    let ask_broker = || -> Result<Option<StatusDocument>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let client = BrokerClient::new(paths.broker_socket());
        runtime.block_on(async {
            match tokio::time::timeout(ASK, client.status()).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer within {} s", ASK.as_secs())),
            }
        })
    };
    Found {
        toml: HaToml::load(paths).map_err(|error| error.to_string()),
        sanlock: sanlock.version().map_err(|error| error.to_string()),
        settings: sanlock.settings().map_err(|error| error.to_string()),
        hosts,
        broker: ask_broker(),
    }
}

/// Judges what was found.
pub fn examine(found: &Found) -> Vec<Check> {
    let check = |what, verdict| Check { what, verdict };
    vec![
        check("sanlock", sanlock(found)),
        check("watchdog", watchdog(found)),
        check("times", times(found)),
        check("hosts' times", hosts_times(found)),
        check("broker", broker(found).map(|_| "answers".to_owned())),
        check("storage", storage(found)),
        check("host id lease", lease(found)),
    ]
}

fn sanlock(found: &Found) -> Result<String, String> {
    match &found.sanlock {
        Ok(version) => Ok(format!("sanlock {version} answers")),
        Err(error) => Err(format!("{error}; start it with: systemctl start sanlock")),
    }
}

fn watchdog(found: &Found) -> Result<String, String> {
    let settings = found.settings.as_ref().map_err(|error| format!("not known: {error}"))?;
    match settings.uses_watchdog {
        Some(true) => Ok("sanlock uses it: a host that cannot renew its leases is reset".to_owned()),
        Some(false) => Err(
            "sanlock does not use it: a host that freezes and thaws may run a second engine VM for a moment; load a \
             watchdog driver, start wdmd, and set use_watchdog = 1 in /etc/sanlock/sanlock.conf (its next start counts)"
                .to_owned(),
        ),
        None => Err("sanlock does not say whether it uses it".to_owned()),
    }
}

fn times(found: &Found) -> Result<String, String> {
    let toml = found.toml.as_ref().map_err(Clone::clone)?;
    let settings = found.settings.as_ref().ok().and_then(|settings| settings.watchdog_fire_timeout);
    let ours = toml.lease.watchdog_timeout;
    if let Some(theirs) = settings.filter(|theirs| *theirs != ours) {
        return Err(format!(
            "ha.toml has lease.watchdog_timeout = {ours}, and sanlock uses {theirs}: set both to the same, on all hosts"
        ));
    }
    Ok(format!(
        "the {} rules between them hold; a lease is lost after {} s and can be taken elsewhere after {} s",
        toml.relations().len(),
        toml.lease.lost_after().as_secs(),
        toml.lease.dead_after().as_secs()
    ))
}

fn hosts_times(found: &Found) -> Result<String, String> {
    let hosts = found.hosts.as_ref().map_err(|error| format!("not known: {error}"))?;
    let ours = found.toml.as_ref().map_err(Clone::clone)?.lease.io_timeout;
    let others: Vec<String> = hosts
        .iter()
        // A host that was never there has none.
        .filter(|host| host.io_timeout != 0 && host.io_timeout != ours)
        .map(|host| format!("host {} has {} s", host.host_id, host.io_timeout))
        .collect();
    if others.is_empty() {
        Ok(format!("all {} hosts have sanlock's I/O time-out of {ours} s", hosts.len()))
    } else {
        Err(format!(
            "this host has sanlock's I/O time-out of {ours} s, but {}: set lease.io_timeout to the same on all hosts",
            others.join(", ")
        ))
    }
}

fn broker(found: &Found) -> Result<&StatusDocument, String> {
    match &found.broker {
        Ok(Some(document)) => Ok(document),
        Ok(None) => Err("another release's broker, which does not tell".to_owned()),
        Err(error) => Err(format!("{error}; start it with: systemctl start ovirt-ha-broker")),
    }
}

fn storage(found: &Found) -> Result<String, String> {
    let io_timeout = found.toml.as_ref().map_err(Clone::clone)?.lease.io_timeout;
    match &broker(found)?.storage {
        StorageState::Good { read_ms } if *read_ms < u64::from(io_timeout) * 500 => {
            Ok(format!("the last read took {read_ms} ms"))
        }
        StorageState::Good { read_ms } => Err(format!(
            "the last read took {read_ms} ms: with an I/O time-out of {io_timeout} s sanlock may fail to renew the leases; \
             make the storage faster, or lease.io_timeout longer on all hosts"
        )),
        StorageState::Starting => Err("the broker has not read it yet".to_owned()),
        StorageState::Connecting { step, .. } => Err(format!("it is being connected: waiting for {step}")),
        StorageState::Stuck { operation, .. } => Err(format!("it does not answer: to {operation} hangs")),
        StorageState::Failed { error, .. } => Err(error.clone()),
    }
}

fn lease(found: &Found) -> Result<String, String> {
    match &broker(found)?.lease {
        LeaseState::Held { .. } => Ok("held".to_owned()),
        LeaseState::Joining { .. } => {
            Err("it is being taken; this may take minutes after a crash".to_owned())
        }
        LeaseState::NotRequested => Err("nobody asked for it: is ovirt-ha-agent running?".to_owned()),
        LeaseState::Lost { error, .. } => Err(error.clone()),
    }
}

#[cfg(test)]
mod tests {
    use sanlock_client::HostState;

    use super::*;

    fn host(host_id: u64, io_timeout: u32) -> HostStatus {
        HostStatus { host_id, generation: 1, timestamp: 1, io_timeout, state: HostState::Live }
    }

    fn found() -> Found {
        let document = serde_json::json!({
            "host_id": 1, "broker_version": "x", "global_maintenance": false, "unknown_global_keys": [], "hosts": {},
            "storage": {"kind": "good", "read_ms": 3}, "lease": {"kind": "held", "since": 1}, "monitors": {}, "agent": null
        });
        Found {
            toml: Ok(HaToml::default()),
            sanlock: Ok(Version { major: 3, minor: 8, patch: 5, protocol: 1 }),
            settings: Ok(DaemonSettings {
                uses_watchdog: Some(true),
                io_timeout: None,
                watchdog_fire_timeout: Some(60),
            }),
            hosts: Ok(vec![host(1, 10), host(2, 10)]),
            broker: Ok(Some(serde_json::from_value(document).unwrap())),
        }
    }

    fn bad(found: &Found) -> Vec<(&'static str, String)> {
        let checks = examine(found).into_iter();
        checks.filter_map(|check| Some((check.what, check.verdict.err()?))).collect()
    }

    #[test]
    fn a_protected_host_is_good_in_every_line() {
        assert_eq!(bad(&found()), []);
        assert!(
            examine(&found())[2]
                .to_string()
                .contains("lost after 80 s and can be taken elsewhere after 140 s")
        );
    }

    #[test]
    fn each_thing_that_is_wrong_is_named_with_what_to_do() {
        let mut wrong = found();
        wrong.settings = Ok(DaemonSettings {
            uses_watchdog: Some(false),
            io_timeout: None,
            watchdog_fire_timeout: Some(30),
        });
        wrong.hosts = Ok(vec![host(1, 10), host(2, 5)]);
        let named = bad(&wrong);
        assert_eq!(
            named.iter().map(|(what, _)| *what).collect::<Vec<_>>(),
            ["watchdog", "times", "hosts' times"]
        );
        assert!(
            named[0].1.contains("use_watchdog = 1") && named[2].1.contains("host 2 has 5 s"),
            "{named:?}"
        );
        let mut gone = found();
        gone.sanlock = Err("refused".to_owned());
        gone.broker = Err("refused".to_owned());
        let what: Vec<_> = bad(&gone).into_iter().map(|(what, _)| what).collect();
        assert_eq!(what, ["sanlock", "broker", "storage", "host id lease"]);
    }
}
