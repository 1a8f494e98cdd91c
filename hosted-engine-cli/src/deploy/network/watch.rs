//! Whether the gateway answers, before and after the network is changed: the network monitor's own test.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use clock::{Clock as _, SystemClock};
use ha_broker::monitors::Probe as _;
use ha_broker::monitors::network::Network as Monitor;
use ha_config::Paths;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::deploy::Network;

/// How long after a change the gateway may need to answer.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// So many answers in a row count.
const ANSWERS: u32 = 5;
/// Between two tries.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
/// Tries before the change, of which one must succeed.
const TRIES_BEFORE: u32 = 5;

/// What is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// An echo from this address.
    Ping(String),
    /// An answer of a resolver.
    Dns,
    /// A TCP connection to this host and port.
    Tcp(String, u16),
    /// Nothing: there is nobody who could be asked.
    Nothing,
}

impl Test {
    /// The configured test; without one, a ping of the way to everywhere.
    pub fn of(network: &Network, default_gateway: Option<&str>) -> Self {
        match (network.test.as_str(), &network.tcp_target) {
            ("dns", _) => Self::Dns,
            ("tcp", Some((host, port))) => Self::Tcp(host.clone(), *port),
            _ => {
                let given =
                    network.gateway.filter(|_| network.test != "none").as_ref().map(IpAddr::to_string);
                given.or_else(|| default_gateway.map(str::to_owned)).map_or(Self::Nothing, Self::Ping)
            }
        }
    }

    /// `the gateway 10.0.0.1`
    pub fn describe(&self) -> String {
        match self {
            Self::Ping(address) => format!("the gateway {address}"),
            Self::Dns => "a name server of /etc/resolv.conf".to_owned(),
            Self::Tcp(host, port) => format!("{host}, TCP port {port},"),
            Self::Nothing => "nobody".to_owned(),
        }
    }

    fn options(&self) -> BTreeMap<String, Option<String>> {
        let mut options = vec![("count", "1".to_owned()), ("timeout", "1".to_owned())];
        match self {
            Self::Ping(address) => {
                options.extend([("network_test", "ping".to_owned()), ("addr", address.clone())]);
            }
            Self::Dns => options.push(("network_test", "dns".to_owned())),
            Self::Tcp(host, port) => options.extend([
                ("network_test", "tcp".to_owned()),
                ("tcp_t_address", host.clone()),
                ("tcp_t_port", port.to_string()),
            ]),
            Self::Nothing => options.push(("network_test", "none".to_owned())),
        }
        options.into_iter().map(|(key, value)| (key.to_owned(), Some(value))).collect()
    }
}

/// Tries again and again.
pub struct Watch {
    runtime: Runtime,
    monitor: Monitor,
    test: Test,
    patience: Duration,
}

impl Watch {
    /// For one test; after a change there must be answers within `patience`.
    ///
    /// # Errors
    /// When the test cannot be made at all.
    pub fn new(paths: &Paths, test: &Test, patience: Duration) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let monitor = Monitor::from_options(&test.options(), paths.resolve("/etc/resolv.conf"))?;
        Ok(Self { runtime, monitor, test: test.clone(), patience })
    }

    fn attempt(&mut self) -> Result<(), String> {
        let reading = self.runtime.block_on(self.monitor.measure())?;
        if reading.value == "1.0" { Ok(()) } else { Err(reading.note.unwrap_or_default()) }
    }

    /// Whether it answers at all: a test that fails now would say nothing after the change.
    ///
    /// # Errors
    /// That it does not, in words.
    pub fn before(&mut self) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..TRIES_BEFORE {
            match self.attempt() {
                Ok(()) => return Ok(()),
                Err(why) => last = why,
            }
        }
        Err(format!(
            "{} does not answer ({last}), so nobody could tell whether the host is still reached after a change of its \
             network; nothing was changed. Correct the gateway, or choose another network test",
            self.test.describe()
        ))
    }

    /// Waits for some answers in a row, as long as somebody is at the other end of `asker`.
    ///
    /// # Errors
    /// That there were none, or that the asker is gone.
    pub fn after(&mut self, asker: impl AsFd) -> Result<(), String> {
        let begin = SystemClock.monotonic();
        let (mut answers, mut last) = (0, String::new());
        loop {
            match self.attempt() {
                Ok(()) => answers += 1,
                Err(why) => (answers, last) = (0, why),
            }
            if answers == ANSWERS || self.test == Test::Nothing {
                return Ok(());
            }
            if SystemClock.monotonic().saturating_since(begin) >= self.patience {
                let (who, seconds) = (self.test.describe(), self.patience.as_secs());
                return Err(format!("{who} did not answer within {seconds} s after the change ({last})"));
            }
            let mut ends = [PollFd::new(&asker, PollFlags::RDHUP)];
            if poll(&mut ends, Some(&PAUSE)).is_ok_and(|number| number > 0) {
                return Err("the deployment ended".to_owned());
            }
        }
    }
}
