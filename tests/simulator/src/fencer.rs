//! Power switches: what a survivor's order does to a simulated host, and whether it was right to give it.

use std::time::Duration;

use async_trait::async_trait;
use ha_agent::core::HostName;
use ha_agent::core::fencing::Ended;
use ha_agent::fencer::Fencer;
use metadata_format::HostId;

use crate::command::SwitchFault;
use crate::host::PowerLoss;
use crate::invariant::Promise;
use crate::world::{HostRef, Kind};

/// As long as a device takes that answers.
const TAKES: Duration = Duration::from_secs(8);
/// How long a host may act on what it saw before: a look, and the broker's deadline for storage.
const GRACE: Duration = Duration::from_mins(1);

/// The switches as one host reaches them.
pub struct SimFencer(pub HostRef);

impl SimFencer {
    fn switch(&self, id: HostId) -> SwitchFault {
        let state = self.0.world.state();
        let host = state.hosts.get(usize::from(id.get()) - 1);
        host.map_or(SwitchFault::Missing, |host| host.switch)
    }

    /// Why this order should not have been given.
    fn wrong(&self, target: HostId) -> Option<String> {
        let now = self.0.world.now();
        let state = self.0.world.state();
        let (own, there) = (state.host(self.0.id), state.host(target));
        let since = |host: &crate::world::Host| now.saturating_sub(host.fit_since);
        if target == self.0.id {
            return Some("it is itself".to_owned());
        }
        if !own.path.is_good() && since(own) > GRACE {
            return Some(format!("its own storage has not worked for {} s", since(own).as_secs()));
        }
        let runs = there.powered && !there.frozen && there.stop_agent.is_some() && there.broker.is_some();
        let blocks = there.sanlock.space(crate::sanlock::Space::Blocks).standing;
        let well = runs
            && there.path.is_good()
            && there.path.delay.is_zero()
            && blocks == crate::sanlock::Standing::Held
            && since(there) > GRACE * 2;
        well.then(|| format!("host {target} has been well for {} s", since(there).as_secs()))
    }
}

#[async_trait]
impl Fencer for SimFencer {
    fn has_switch(&self, host: &HostName) -> bool {
        self.switch(host.id) != SwitchFault::Missing
    }

    async fn switch_off(&self, host: &HostName) -> Ended {
        let world = &self.0.world;
        world.log(Some(self.0.id), Kind::World, format!("asks the switch of host {} for off", host.id));
        if let Some(wrong) = self.wrong(host.id) {
            world.broke(
                Promise::FencedRightly,
                format!("host {} powers host {} off: {wrong}", self.0.id, host.id),
            );
        }
        tokio::time::sleep(TAKES).await;
        match self.switch(host.id) {
            SwitchFault::Works => {
                world.lose_power(host.id, PowerLoss::Fenced);
                Ended::Off { remark: None }
            }
            SwitchFault::Lies => Ended::Off { remark: None },
            SwitchFault::Unreachable | SwitchFault::Missing => {
                Ended::Failed { detail: "the switch does not answer".to_owned() }
            }
        }
    }
}
