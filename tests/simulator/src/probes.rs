//! What the monitors of a simulated host measure. The engine's health is the shipped monitor on the simulated VM and
//! page; the others read the world, as slowly as the real ones.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ha_broker::monitors::{EngineHealth, Kind, MonitorError, Probe, ProbeFactory, Reading, python_bool};
use ha_broker::verbs::MonitorOptions;

use crate::page::SimPage;
use crate::vm::SimVm;
use crate::world::{Host, HostRef};

/// Makes the probes of one host.
pub struct SimProbes(pub HostRef);

/// Memory of a host in MB, for the share in use.
const MEMORY: f64 = 32_000.0;
/// Tries of one sample of the network, half a second apart, each with a time-out.
const TRIES: u16 = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(500);
const TRY_FAILS: Duration = Duration::from_secs(5);

struct Measure {
    host: HostRef,
    read: fn(&Host) -> String,
}

#[async_trait]
impl Probe for Measure {
    async fn measure(&mut self) -> Result<Reading, String> {
        Ok(Reading::plain((self.read)(self.host.world.state().host(self.host.id))))
    }
}

struct Network(HostRef);

#[async_trait]
impl Probe for Network {
    async fn measure(&mut self) -> Result<Reading, String> {
        let mut good = 0.0;
        for number in 0..TRIES {
            if number > 0 {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            let share = self.0.world.state().host(self.0.id).network;
            if share > 0.0 {
                good += share;
            } else {
                tokio::time::sleep(TRY_FAILS).await;
            }
        }
        Ok(Reading::plain(good / f64::from(TRIES)))
    }
}

struct Storage(HostRef);

#[async_trait]
impl Probe for Storage {
    async fn measure(&mut self) -> Result<Reading, String> {
        self.0.io(false).await.map_err(|errno| errno.to_string())?;
        Ok(Reading::plain("True"))
    }
}

impl ProbeFactory for SimProbes {
    fn probe(&self, kind: Kind, _options: &MonitorOptions) -> Result<Box<dyn Probe>, MonitorError> {
        let read = |read| Box::new(Measure { host: self.0.clone(), read });
        Ok(match kind {
            Kind::Network | Kind::Ping => Box::new(Network(self.0.clone())),
            Kind::MgmtBridge => read(|host| python_bool(host.bridge).to_owned()),
            Kind::MemFree => read(|host| host.mem_free.to_string()),
            Kind::MemLoad => read(|host| (1.0 - host.mem_free / MEMORY).to_string()),
            Kind::CpuLoad | Kind::CpuLoadNoEngine => read(|host| host.cpu_load.to_string()),
            Kind::StorageDomain => Box::new(Storage(self.0.clone())),
            Kind::EngineHealth => {
                let page = Arc::new(SimPage(self.0.clone()));
                Box::new(EngineHealth::new(Arc::new(SimVm(self.0.clone())), page))
            }
        })
    }
}
