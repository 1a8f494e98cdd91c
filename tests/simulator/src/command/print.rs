//! How commands are written: what the parser reads gives the same command again.

use std::fmt;

use super::{
    BlockFault, ByHand, Command, Daemons, Expectation, MigrationEnd, Said, Step, StorageFault, SwitchFault,
    Time, VmFault, Who,
};

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let text = if ms.is_multiple_of(1000) {
            format!("{}s", ms / 1000)
        } else {
            format!("{}.{:03}s", ms / 1000, ms % 1000)
        };
        f.pad(&text)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "host{id}"),
            Self::All => f.write_str("all"),
            Self::VmHost => f.write_str("vm-host"),
            Self::Others => f.write_str("others"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10} {}", Time(self.at), self.command)?;
        match (self.lasts, &self.command) {
            (Some(time), Command::Expect(_)) => write!(f, " within {}", Time(time)),
            (Some(time), _) => write!(f, " for {}", Time(time)),
            (None, _) => Ok(()),
        }
    }
}

impl fmt::Display for Daemons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Broker => "broker",
        })
    }
}

impl fmt::Display for StorageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("good"),
            Self::Stalled => f.write_str("stalled"),
            Self::Failing => f.write_str("failing"),
            Self::ReadOnly => f.write_str("read-only"),
            Self::Full => f.write_str("full"),
            Self::Delay { by, once } => {
                write!(f, "delay {}{}", Time(*by), if *once { " once" } else { "" })
            }
            Self::Slow { worst } => write!(f, "slow {}", Time(*worst)),
            Self::Stale { by } => write!(f, "stale {}", Time(*by)),
            Self::TearsNextWrite => f.write_str("tears-next-write"),
            Self::MisdirectsNextWrite { to } => write!(f, "misdirects-next-write {to}"),
        }
    }
}

impl fmt::Display for BlockFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrupt => "corrupt",
            Self::Rots => "rots",
            Self::Unreadable => "unreadable",
            Self::TooNew => "too-new",
            Self::Empty => "empty",
            Self::Heals => "heals",
        })
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => f.write_str("healthy"),
            Self::NoVm => f.write_str("no-vm"),
            Self::VmOn(who) => write!(f, "vm-on {who}"),
            Self::SameVm => f.write_str("same-vm"),
            Self::OtherVm => f.write_str("other-vm"),
            Self::State(who, name) => write!(f, "state {who} {name}"),
            Self::Score(who, points) => write!(f, "score {who} {points}"),
            Self::Block(who, said) => {
                let said = match said {
                    Said::Good => "good",
                    Said::Bad => "bad",
                    Said::Paused => "paused",
                    Said::Down => "down",
                };
                write!(f, "block {who} {said}")
            }
            Self::Off(who) => write!(f, "off {who}"),
            Self::AllSeen => f.write_str("all-seen"),
            Self::Unseen(who) => write!(f, "unseen {who}"),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |on: &bool| if *on { "on" } else { "off" };
        match self {
            Self::Boot(who) => write!(f, "boot {who}"),
            Self::PowerOff(who) => write!(f, "power-off {who}"),
            Self::Freeze(who) => write!(f, "freeze {who}"),
            Self::Thaw(who) => write!(f, "thaw {who}"),
            Self::Kill(daemon, who) => write!(f, "kill {daemon} {who}"),
            Self::Restart(daemon, who) => write!(f, "restart {daemon} {who}"),
            Self::StopServices(who) => write!(f, "stop services {who}"),
            Self::StartServices(who) => write!(f, "start services {who}"),
            Self::Storage(who, fault) => write!(f, "storage {who} {fault}"),
            Self::Block(number, fault) => write!(f, "block {number} {fault}"),
            Self::Network(who, share) => write!(f, "network {who} {share}"),
            Self::Bridge(who, up) => write!(f, "bridge {who} {}", if *up { "up" } else { "down" }),
            Self::Memory(who, mb) => write!(f, "memory {who} {mb}"),
            Self::Load(who, share) => write!(f, "load {who} {share}"),
            Self::Vm(fault) => f.write_str(match fault {
                VmFault::Crashes => "vm crashes",
                VmFault::Hangs => "vm hangs",
                VmFault::Sick => "vm sick",
                VmFault::Well => "vm well",
                VmFault::Pauses => "vm pauses",
                VmFault::Resumes => "vm resumes",
                VmFault::PowersOff => "vm powers-off",
                VmFault::Vanishes => "vm vanishes",
            }),
            Self::Switch(who, fault) => {
                let fault = match fault {
                    SwitchFault::Works => "works",
                    SwitchFault::Unreachable => "unreachable",
                    SwitchFault::Lies => "lies",
                    SwitchFault::Missing => "missing",
                };
                write!(f, "switch {who} {fault}")
            }
            Self::FailStarts(who, count) => write!(f, "starts {who} fail {count}"),
            Self::FailMigrations(who, count) => write!(f, "migrations {who} fail {count}"),
            Self::CanMigrate(who, can) => {
                write!(f, "hypervisor {who} {}", if *can { "can-migrate" } else { "cannot-migrate" })
            }
            Self::AskMigration { at, to: None } => write!(f, "operator moves-vm {at}"),
            Self::AskMigration { at, to: Some(to) } => write!(f, "operator moves-vm {at} to host{to}"),
            Self::ForcedMaintenance(who) => write!(f, "maintenance local forced {who}"),
            Self::GuestMovesIn(least, most) => write!(f, "guest moves-in {} {}", Time(*least), Time(*most)),
            Self::GuestBootsIn(least, most) => {
                write!(f, "guest boots-in {} {}", Time(*least), Time(*most))
            }
            Self::GuestIgnoresShutdown(yes) => {
                write!(f, "guest ignores-shutdown {}", if *yes { "yes" } else { "no" })
            }
            Self::PageTakes(time) => write!(f, "guest page-takes {}", Time(*time)),
            Self::Migrate { to, takes, end } => {
                let end = match end {
                    MigrationEnd::Arrives => "arrives",
                    MigrationEnd::Fails => "fails",
                    MigrationEnd::LosesSource => "loses-source",
                    MigrationEnd::LosesDestination => "loses-destination",
                };
                write!(f, "migrate to host{to} takes {} and {end}", Time(*takes))
            }
            Self::ClockStep(who, secs) => write!(f, "clock {who} step {secs}"),
            Self::ClockRate(who, rate) => write!(f, "clock {who} rate {rate}"),
            Self::GlobalMaintenance(state, who) => write!(f, "maintenance global {} {who}", on(state)),
            Self::LocalMaintenance(state, who) => write!(f, "maintenance local {} {who}", on(state)),
            Self::ByHand(hand, who) => {
                let hand = match hand {
                    ByHand::Starts => "starts",
                    ByHand::Stops => "stops",
                    ByHand::Kills => "kills",
                };
                write!(f, "operator {hand} {who}")
            }
            Self::HealAll => f.write_str("heal all"),
            Self::Expect(expectation) => write!(f, "expect {expectation}"),
        }
    }
}
