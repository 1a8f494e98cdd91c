//! Is the network there? Five tries of one kind, half a second apart, and the share that succeeded.
//!
//! Opens sockets of its own: ICMP echo (a datagram socket where the kernel allows it, else a raw one), TCP to the
//! resolvers or to a given port. Starts no processes.

mod tries;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time;

pub use tries::{DnsTry, NoTry, PingTry, TcpTry};

use super::options::{MonitorError, Options, shown};
use super::probe::{Probe, Reading, python_bool};
use crate::verbs::MonitorOptions;

/// One try; the error says in words what did not work. Bounded in time by its caller.
#[async_trait]
pub trait Try: Send + Sync {
    /// Tries once.
    async fn attempt(&self) -> Result<(), String>;
}

/// How often, how far apart, how long.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Schedule {
    count: u32,
    delay: Duration,
    timeout: Duration,
}

impl Schedule {
    fn read(options: &Options<'_>) -> Result<Self, MonitorError> {
        Ok(Self {
            count: options.number("count", 5, 1, 100)?,
            delay: options.seconds("delay", 0.5, 0.0, 10.0)?,
            timeout: options.seconds("timeout", 5.0, 0.1, 60.0)?,
        })
    }

    /// The longest that all tries can take, and some more.
    fn limit(&self) -> Duration {
        (self.delay + self.timeout) * self.count + Duration::from_secs(10)
    }
}

/// What the result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The share of the tries that succeeded; all are made.
    Share,
    /// Whether any succeeded; the first success ends it.
    Any,
}

/// The monitor.
pub struct Network {
    tries: Arc<dyn Try>,
    schedule: Schedule,
    verdict: Verdict,
}

impl Network {
    /// The `network` monitor of the options `network_test` and those that the test needs. `resolv_conf` names the
    /// resolvers for the DNS test.
    pub fn from_options(given: &MonitorOptions, resolv_conf: PathBuf) -> Result<Self, MonitorError> {
        let options = Options::new("network", given);
        let schedule = Schedule::read(&options)?;
        let tries: Arc<dyn Try> = match options.text("network_test").unwrap_or("ping") {
            "ping" => Arc::new(PingTry::new(options.needed("addr", "the gateway's address to ping")?)),
            "dns" => Arc::new(DnsTry::new(resolv_conf)),
            "tcp" => {
                let address = options.needed("tcp_t_address", "the host name or address to connect to")?;
                options.needed("tcp_t_port", "the TCP port to connect to")?;
                Arc::new(TcpTry::new(address, options.number("tcp_t_port", 0, 1, u16::MAX)?))
            }
            "none" => Arc::new(NoTry),
            other => {
                let problem = format!("is '{}': give ping, dns, tcp or none", shown(other));
                return Err(options.bad("network_test", problem));
            }
        };
        Ok(Self { tries, schedule, verdict: Verdict::Share })
    }

    /// The `ping` monitor of the founding design.
    pub fn ping(given: &MonitorOptions) -> Result<Self, MonitorError> {
        let options = Options::new("ping", given);
        let schedule = Schedule::read(&options)?;
        let tries = Arc::new(PingTry::new(options.needed("addr", "the gateway's address to ping")?));
        Ok(Self { tries, schedule, verdict: Verdict::Any })
    }
}

#[async_trait]
impl Probe for Network {
    async fn measure(&mut self) -> Result<Reading, String> {
        let Schedule { count, delay, timeout } = self.schedule;
        let mut succeeded = 0_u32;
        let mut trouble = None;
        for number in 1..=count {
            match time::timeout(timeout, self.tries.attempt()).await {
                Ok(Ok(())) => succeeded += 1,
                Ok(Err(error)) => trouble = Some(error),
                Err(_) => trouble = Some(format!("no answer within {} s", timeout.as_secs_f64())),
            }
            if self.verdict == Verdict::Any && succeeded > 0 {
                break;
            }
            if number < count {
                time::sleep(delay).await;
            }
        }
        match self.verdict {
            Verdict::Share => {
                let note = trouble.map(|last| {
                    format!("{succeeded} of {count} network tries succeeded; the last failure: {last}")
                });
                // Debug of a float spells it as Python does: with a point, as short as it can be.
                Ok(Reading::noted(format!("{:?}", f64::from(succeeded) / f64::from(count)), note))
            }
            Verdict::Any => {
                let note = trouble.filter(|_| succeeded == 0);
                Ok(Reading::noted(python_bool(succeeded > 0), note))
            }
        }
    }

    fn limit(&self) -> Duration {
        self.schedule.limit()
    }
}

#[cfg(test)]
mod tests;
