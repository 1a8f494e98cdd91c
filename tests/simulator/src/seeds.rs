//! Random worlds: a seed gives a cluster, a script of faults, and a quiet end.

use std::time::Duration;

use ha_config::ha_toml::ScoreProfile;
use ha_config::{AgentConf, HaToml};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::command::{
    BlockFault, ByHand, Command, Daemons, MigrationEnd, Step, StorageFault, SwitchFault, VmFault, Who,
};
use crate::run::Plan;
use crate::world::Shape;

/// What random worlds are like.
#[derive(Debug, Clone)]
pub struct Weather {
    /// Number of hosts; drawn from 1 to 64 without it.
    pub hosts: Option<u16>,
    /// Time between two faults on average: minutes for a hostile world, hours for a calm one; drawn without it.
    pub between_faults: Option<Duration>,
    /// How long faults happen.
    pub faulty: Duration,
    /// The hosts' ha.toml.
    pub toml: HaToml,
    /// Their agent.conf.
    pub agent: AgentConf,
    /// Draw the lease's time-outs and the score profile too.
    pub vary_leases: bool,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            hosts: None,
            between_faults: None,
            faulty: Duration::from_hours(1),
            toml: HaToml::default(),
            agent: AgentConf::default(),
            vary_leases: true,
        }
    }
}

/// sanlock's time-outs, N and W in seconds: its own, and shorter ones that the agent's timers bear.
const LEASES: [(u32, u32); 3] = [(10, 60), (5, 30), (2, 30)];

/// The plan of a seed.
pub fn plan(seed: u64, weather: &Weather) -> Plan {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let hosts = weather.hosts.unwrap_or_else(|| match rng.random_range(0..20) {
        0 => 1,
        1..=4 => 2,
        5..=12 => 3,
        13..=16 => 4,
        17 | 18 => rng.random_range(5..=12),
        _ => rng.random_range(13..=64),
    });
    let between = weather.between_faults.unwrap_or_else(|| {
        *[20, 60, 180, 600, 1800, 7200].map(Duration::from_secs).choose(&mut rng).unwrap_or(&weather.faulty)
    });
    let mut toml = weather.toml.clone();
    if weather.vary_leases
        && let Some((n, w)) = LEASES.choose(&mut rng)
    {
        toml.lease.io_timeout = *n;
        toml.lease.watchdog_timeout = *w;
    }
    if rng.random() && weather.vary_leases {
        toml.score.profile = ScoreProfile::Founding;
    }
    let mut script = Vec::new();
    for id in 1..=hosts {
        let at = Duration::from_millis(rng.random_range(0..30_000));
        script.push(Step { at, command: Command::Boot(Who::Id(id)), lasts: None });
        if rng.random_ratio(1, 2) {
            let rate = rng.random_range(-200..=200);
            script.push(Step { at, command: Command::ClockRate(Who::Id(id), rate), lasts: None });
        }
    }
    let end = Duration::from_mins(5) + weather.faulty;
    let mut at = Duration::from_mins(rng.random_range(1..=5));
    loop {
        at += exponential(&mut rng, between);
        if at >= end {
            break;
        }
        script.extend(fault(&mut rng, whole_millis(at), hosts, &toml));
    }
    script.retain(|step| step.at < end);
    for step in &mut script {
        // Everything ends before the quiet.
        if let Some(lasts) = &mut step.lasts {
            *lasts = (*lasts).min(end.saturating_sub(step.at));
        }
    }
    script.push(Step { at: end, command: Command::HealAll, lasts: None });
    let later = end + Duration::from_secs(90);
    script.push(Step { at: later, command: Command::GlobalMaintenance(false, Who::All), lasts: None });
    script.sort_by_key(|step| step.at);
    Plan {
        shape: Shape {
            hosts,
            toml,
            agent: weather.agent.clone(),
            has_watchdog: true,
            stalled_vm_cannot_die: rng.random(),
            seed,
        },
        script,
        end: later + Duration::from_secs(30),
        ends_well: true,
        breaks: Vec::new(),
    }
}

/// The next whole millisecond, which is when a timer for `time` fires; scripts are written in milliseconds.
fn whole_millis(time: Duration) -> Duration {
    let millis = time.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).map_or(time, Duration::from_millis)
}

fn exponential(rng: &mut impl Rng, mean: Duration) -> Duration {
    let share: f64 = rng.random_range(0.000_1..1.0);
    mean.mul_f64(-share.ln())
}

/// A time that lies at, just before or just after one that the product knows, or anywhere.
fn length(rng: &mut impl Rng, toml: &HaToml) -> Duration {
    let n = Duration::from_secs(toml.lease.io_timeout.into());
    let known = [
        toml.timers.loop_interval,
        toml.timers.storage_deadline,
        toml.timers.host_alive,
        n,
        n * 2,
        n * 6,
        toml.lease.lost_after(),
        toml.lease.dead_after(),
        toml.timers.maybe_away,
        toml.timers.bad_health,
    ];
    let moment = Duration::from_millis(1);
    match rng.random_range(0..6) {
        0 => Duration::from_secs(rng.random_range(1..30)),
        1 => Duration::from_secs(rng.random_range(30..600)),
        _ => {
            let exactly = known.choose(rng).copied().unwrap_or(n);
            match rng.random_range(0..3) {
                0 => exactly.saturating_sub(moment),
                1 => exactly,
                _ => exactly + moment,
            }
        }
    }
}

fn some(rng: &mut impl Rng, hosts: u16) -> Who {
    match rng.random_range(0..10) {
        0..=2 => Who::VmHost,
        3 => Who::All,
        4 => Who::Others,
        _ => Who::Id(rng.random_range(1..=hosts)),
    }
}

fn one(rng: &mut impl Rng, hosts: u16) -> Who {
    if rng.random_ratio(1, 3) { Who::VmHost } else { Who::Id(rng.random_range(1..=hosts)) }
}

/// One misfortune.
#[allow(clippy::too_many_lines, reason = "a list")]
fn fault(rng: &mut impl Rng, at: Duration, hosts: u16, toml: &HaToml) -> Vec<Step> {
    let time = length(rng, toml);
    let lasting = |command| vec![Step { at, command, lasts: Some(time) }];
    let moment = |command| vec![Step { at, command, lasts: None }];
    // Drawn only where it means something, so that other seeds stay what they are.
    if toml.fencing.enabled && rng.random_ratio(1, 12) {
        let fault = *[SwitchFault::Unreachable, SwitchFault::Lies, SwitchFault::Missing]
            .choose(rng)
            .unwrap_or(&SwitchFault::Missing);
        return lasting(Command::Switch(some(rng, hosts), fault));
    }
    match rng.random_range(0..38) {
        0 | 1 => lasting(Command::PowerOff(one(rng, hosts))),
        2 => lasting(Command::Freeze(one(rng, hosts))),
        3 => {
            let daemon = if rng.random() { Daemons::Agent } else { Daemons::Broker };
            moment(if rng.random() {
                Command::Kill(daemon, some(rng, hosts))
            } else {
                Command::Restart(daemon, some(rng, hosts))
            })
        }
        4 => lasting(Command::StopServices(one(rng, hosts))),
        5..=7 => lasting(Command::Storage(some(rng, hosts), StorageFault::Stalled)),
        8 => lasting(Command::Storage(some(rng, hosts), StorageFault::Failing)),
        9 => lasting(Command::Storage(some(rng, hosts), StorageFault::ReadOnly)),
        10 => lasting(Command::Storage(some(rng, hosts), StorageFault::Full)),
        11 => {
            let by = length(rng, toml);
            lasting(Command::Storage(some(rng, hosts), StorageFault::Delay { by, once: rng.random() }))
        }
        12 => {
            let worst = Duration::from_millis(rng.random_range(100..20_000));
            lasting(Command::Storage(some(rng, hosts), StorageFault::Slow { worst }))
        }
        13 => {
            let by = Duration::from_secs(rng.random_range(1..60));
            lasting(Command::Storage(some(rng, hosts), StorageFault::Stale { by }))
        }
        14 => moment(Command::Storage(one(rng, hosts), StorageFault::TearsNextWrite)),
        15 => {
            let to = rng.random_range(0..=hosts);
            moment(Command::Storage(one(rng, hosts), StorageFault::MisdirectsNextWrite { to }))
        }
        16 => {
            let number = rng.random_range(0..=hosts + 1);
            match rng.random_range(0..5) {
                0 => moment(Command::Block(number, BlockFault::Corrupt)),
                1 => lasting(Command::Block(number, BlockFault::Rots)),
                2 => lasting(Command::Block(number, BlockFault::Unreadable)),
                3 => moment(Command::Block(number, BlockFault::TooNew)),
                _ => moment(Command::Block(number, BlockFault::Empty)),
            }
        }
        17 | 18 => {
            let share = *[0.0, 0.2, 0.4, 0.6, 0.8].choose(rng).unwrap_or(&0.0);
            lasting(Command::Network(some(rng, hosts), share))
        }
        19 => lasting(Command::Bridge(some(rng, hosts), false)),
        20 => lasting(Command::Memory(one(rng, hosts), 1_000.0)),
        21 => lasting(Command::Load(some(rng, hosts), rng.random_range(0.3..1.0))),
        22 | 23 => moment(Command::Vm(VmFault::Crashes)),
        24 => moment(Command::Vm(VmFault::Hangs)),
        25 => lasting(Command::Vm(VmFault::Sick)),
        26 => moment(Command::Vm(if rng.random() { VmFault::Pauses } else { VmFault::PowersOff })),
        27 => lasting(Command::FailStarts(some(rng, hosts), rng.random_range(1..5))),
        28 => {
            if rng.random() {
                lasting(Command::GuestIgnoresShutdown(true))
            } else {
                lasting(Command::PageTakes(Duration::from_millis(rng.random_range(1_000..9_000))))
            }
        }
        29 => {
            let end = *[
                MigrationEnd::Arrives,
                MigrationEnd::Fails,
                MigrationEnd::LosesSource,
                MigrationEnd::LosesDestination,
            ]
            .choose(rng)
            .unwrap_or(&MigrationEnd::Arrives);
            let takes = Duration::from_secs(rng.random_range(2..60));
            moment(Command::Migrate { to: rng.random_range(1..=hosts), takes, end })
        }
        33 | 34 => {
            let to = rng.random_ratio(1, 2).then(|| rng.random_range(1..=hosts));
            moment(Command::AskMigration { at: one(rng, hosts), to })
        }
        35 => lasting(Command::FailMigrations(some(rng, hosts), rng.random_range(1..5))),
        36 => lasting(Command::CanMigrate(some(rng, hosts), false)),
        37 => {
            let most = *[5, 30, 120, 3600].choose(rng).unwrap_or(&5);
            moment(Command::GuestMovesIn(Duration::from_secs(1), Duration::from_secs(most)))
        }
        30 => moment(Command::ClockStep(one(rng, hosts), rng.random_range(-100_000..100_000))),
        31 => lasting(if rng.random() {
            Command::GlobalMaintenance(true, one(rng, hosts))
        } else {
            Command::LocalMaintenance(true, one(rng, hosts))
        }),
        _ => {
            let hand = *[ByHand::Starts, ByHand::Stops, ByHand::Kills].choose(rng).unwrap_or(&ByHand::Stops);
            moment(Command::ByHand(hand, one(rng, hosts)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_draws_hosts_that_can_be_configured() {
        for seed in 0..64 {
            let weather = Weather { faulty: Duration::from_mins(1), ..Weather::default() };
            let toml = plan(seed, &weather).shape.toml;
            assert_eq!(toml.validate(), Ok(()), "seed {seed}");
        }
    }
}
