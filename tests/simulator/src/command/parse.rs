//! Scripts as text: their grammar, and reading one line of them.

use std::time::Duration;

use super::{
    BlockFault, ByHand, Command, Daemons, Expectation, MigrationEnd, Said, Step, StorageFault, SwitchFault,
    VmFault, Who,
};

/// A line that is no step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {line:?}; {advice}")]
pub struct BadStep {
    line: String,
    what: String,
    advice: &'static str,
}

/// Longest time that can be written, in seconds: far below what timers can count.
const LONGEST: f64 = 1e7;

/// `1.5s`, `250ms`, `20m`, `2h`.
pub fn parse_time(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let secs = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok().filter(|number: &f64| (0.0..=LONGEST / secs).contains(number))?;
    Duration::try_from_secs_f64(number * secs).ok().map(|time| {
        // Timers have a resolution of a millisecond.
        Duration::from_millis(u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
    })
}

fn who(word: &str) -> Option<Who> {
    Some(match word {
        "all" => Who::All,
        "vm-host" => Who::VmHost,
        "others" => Who::Others,
        _ => Who::Id(word.strip_prefix("host")?.parse().ok().filter(|id| (1..=2000).contains(id))?),
    })
}

fn daemon(word: &str) -> Option<Daemons> {
    match word {
        "agent" => Some(Daemons::Agent),
        "broker" => Some(Daemons::Broker),
        _ => None,
    }
}

fn on_off(word: &str) -> Option<bool> {
    match word {
        "on" | "up" | "yes" => Some(true),
        "off" | "down" | "no" => Some(false),
        _ => None,
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Option<T> {
    word.parse().ok()
}

fn said(word: &str) -> Option<Said> {
    match word {
        "good" => Some(Said::Good),
        "bad" => Some(Said::Bad),
        "paused" => Some(Said::Paused),
        "down" => Some(Said::Down),
        _ => None,
    }
}

fn share(word: &str) -> Option<f64> {
    number(word).filter(|share| (0.0..=1.0).contains(share))
}

/// The commands as they are written, for help and errors.
pub const GRAMMAR: &str = "\
WHO is hostN, all, vm-host (where the VM runs then) or others (the rest). TIME is 10s, 250ms, 5m or 1h.
Any command that can end may be followed by `for TIME`.
  boot WHO | power-off WHO | freeze WHO | thaw WHO
  kill agent|broker WHO | restart agent|broker WHO | stop services WHO | start services WHO
  storage WHO good | stalled | failing | read-only | full | delay TIME [once] | slow TIME | stale TIME
  storage WHO tears-next-write | misdirects-next-write BLOCK
  block N corrupt | rots | unreadable | too-new | empty | heals
  network WHO 0.0 to 1.0 (share of tries that succeed) | bridge WHO up|down | memory WHO MB | load WHO 0.0 to 1.0
  vm crashes | hangs | sick | well | pauses | resumes | powers-off | vanishes
  switch WHO works | unreachable | lies | missing   (its power, when a survivor switches it off)
  starts WHO fail N | migrations WHO fail N (of those away from it) | hypervisor WHO can-migrate | cannot-migrate
  guest boots-in TIME TIME | guest moves-in TIME TIME | guest ignores-shutdown yes|no | guest page-takes TIME
  migrate to hostN takes TIME and arrives | fails | loses-source | loses-destination
  clock WHO step SECONDS | clock WHO rate PPM
  maintenance global on|off WHO | maintenance local on|off|forced WHO
  operator starts|stops|kills WHO | operator moves-vm WHO [to hostN] (asks WHO's broker for a live migration)
  heal all
  expect healthy | no-vm | vm-on WHO | same-vm | other-vm   [within TIME]
  expect state WHO NAME | score WHO POINTS | off WHO | all-seen | unseen WHO   [within TIME]
  expect block WHO good | bad | paused | down   [within TIME]
";

fn command(words: &[&str]) -> Option<Command> {
    Some(match words {
        ["boot", w] => Command::Boot(who(w)?),
        ["power-off", w] => Command::PowerOff(who(w)?),
        ["freeze", w] => Command::Freeze(who(w)?),
        ["thaw", w] => Command::Thaw(who(w)?),
        ["kill", d, w] => Command::Kill(daemon(d)?, who(w)?),
        ["restart", d, w] => Command::Restart(daemon(d)?, who(w)?),
        ["stop", "services", w] => Command::StopServices(who(w)?),
        ["start", "services", w] => Command::StartServices(who(w)?),
        ["storage", w, rest @ ..] => Command::Storage(who(w)?, storage(rest)?),
        ["block", n, fault] => Command::Block(number(n).filter(|n| *n <= 2000)?, block(fault)?),
        ["network", w, s] => Command::Network(who(w)?, share(s)?),
        ["bridge", w, s] => Command::Bridge(who(w)?, on_off(s)?),
        ["memory", w, mb] => Command::Memory(who(w)?, number(mb).filter(|mb| (0.0..=1e9).contains(mb))?),
        ["load", w, s] => Command::Load(who(w)?, share(s)?),
        ["vm", fault] => Command::Vm(match *fault {
            "crashes" => VmFault::Crashes,
            "hangs" => VmFault::Hangs,
            "sick" => VmFault::Sick,
            "well" => VmFault::Well,
            "pauses" => VmFault::Pauses,
            "resumes" => VmFault::Resumes,
            "powers-off" => VmFault::PowersOff,
            "vanishes" => VmFault::Vanishes,
            _ => return None,
        }),
        ["switch", w, fault] => Command::Switch(
            who(w)?,
            match *fault {
                "works" => SwitchFault::Works,
                "unreachable" => SwitchFault::Unreachable,
                "lies" => SwitchFault::Lies,
                "missing" => SwitchFault::Missing,
                _ => return None,
            },
        ),
        ["starts", w, "fail", n] => Command::FailStarts(who(w)?, number(n)?),
        ["migrations", w, "fail", n] => Command::FailMigrations(who(w)?, number(n)?),
        ["hypervisor", w, "can-migrate"] => Command::CanMigrate(who(w)?, true),
        ["hypervisor", w, "cannot-migrate"] => Command::CanMigrate(who(w)?, false),
        ["guest", "moves-in", least, most] => Command::GuestMovesIn(parse_time(least)?, parse_time(most)?),
        ["guest", "boots-in", least, most] => Command::GuestBootsIn(parse_time(least)?, parse_time(most)?),
        ["guest", "ignores-shutdown", yes] => Command::GuestIgnoresShutdown(on_off(yes)?),
        ["guest", "page-takes", time] => Command::PageTakes(parse_time(time)?),
        ["migrate", "to", host, "takes", time, "and", end] => {
            let Who::Id(to) = who(host)? else { return None };
            let end = match *end {
                "arrives" => MigrationEnd::Arrives,
                "fails" => MigrationEnd::Fails,
                "loses-source" => MigrationEnd::LosesSource,
                "loses-destination" => MigrationEnd::LosesDestination,
                _ => return None,
            };
            Command::Migrate { to, takes: parse_time(time)?, end }
        }
        ["clock", w, "step", secs] => Command::ClockStep(who(w)?, number(secs)?),
        ["clock", w, "rate", ppm] => {
            Command::ClockRate(who(w)?, number(ppm).filter(|r: &i32| r.abs() <= 10_000)?)
        }
        ["maintenance", "global", on, w] => Command::GlobalMaintenance(on_off(on)?, who(w)?),
        ["maintenance", "local", "forced", w] => Command::ForcedMaintenance(who(w)?),
        ["maintenance", "local", on, w] => Command::LocalMaintenance(on_off(on)?, who(w)?),
        ["operator", "moves-vm", w] => Command::AskMigration { at: who(w)?, to: None },
        ["operator", "moves-vm", w, "to", host] => {
            let Who::Id(to) = who(host)? else { return None };
            Command::AskMigration { at: who(w)?, to: Some(to) }
        }
        ["operator", hand, w] => {
            let hand = match *hand {
                "starts" => ByHand::Starts,
                "stops" => ByHand::Stops,
                "kills" => ByHand::Kills,
                _ => return None,
            };
            Command::ByHand(hand, who(w)?)
        }
        ["heal", "all"] => Command::HealAll,
        ["expect", rest @ ..] => Command::Expect(match rest {
            ["healthy"] => Expectation::Healthy,
            ["no-vm"] => Expectation::NoVm,
            ["vm-on", w] => Expectation::VmOn(who(w)?),
            ["same-vm"] => Expectation::SameVm,
            ["other-vm"] => Expectation::OtherVm,
            ["state", w, name] => Expectation::State(who(w)?, (*name).to_owned()),
            ["score", w, points] => Expectation::Score(who(w)?, number(points)?),
            ["block", w, said] => Expectation::Block(who(w)?, self::said(said)?),
            ["off", w] => Expectation::Off(who(w)?),
            ["all-seen"] => Expectation::AllSeen,
            ["unseen", w] => Expectation::Unseen(who(w)?),
            _ => return None,
        }),
        _ => return None,
    })
}

fn storage(words: &[&str]) -> Option<StorageFault> {
    Some(match words {
        ["good"] => StorageFault::Good,
        ["stalled"] => StorageFault::Stalled,
        ["failing"] => StorageFault::Failing,
        ["read-only"] => StorageFault::ReadOnly,
        ["full"] => StorageFault::Full,
        ["delay", time] => StorageFault::Delay { by: parse_time(time)?, once: false },
        ["delay", time, "once"] => StorageFault::Delay { by: parse_time(time)?, once: true },
        ["slow", time] => StorageFault::Slow { worst: parse_time(time)? },
        ["stale", time] => StorageFault::Stale { by: parse_time(time)? },
        ["tears-next-write"] => StorageFault::TearsNextWrite,
        ["misdirects-next-write", n] => {
            StorageFault::MisdirectsNextWrite { to: number(n).filter(|n| *n <= 2000)? }
        }
        _ => return None,
    })
}

fn block(word: &str) -> Option<BlockFault> {
    Some(match word {
        "corrupt" => BlockFault::Corrupt,
        "rots" => BlockFault::Rots,
        "unreadable" => BlockFault::Unreadable,
        "too-new" => BlockFault::TooNew,
        "empty" => BlockFault::Empty,
        "heals" => BlockFault::Heals,
        _ => return None,
    })
}

impl Step {
    /// Reads one line of a script.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &str) -> Result<Self, BadStep> {
        let bad =
            |what: &str, advice| BadStep { line: line.trim().to_owned(), what: what.to_owned(), advice };
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((time, mut rest)) = words.split_first() else {
            return Err(bad("an empty line is no step", "leave it out"));
        };
        let at = parse_time(time)
            .ok_or_else(|| bad("the line does not begin with a time", "write 10s, 250ms, 5m or 1h"))?;
        let mut lasts = None;
        if let [before @ .., "for" | "within", time] = rest {
            let time =
                parse_time(time).ok_or_else(|| bad("that is no time", "write 10s, 250ms, 5m or 1h"))?;
            lasts = Some(time);
            rest = before;
        }
        let command = command(rest).ok_or_else(|| {
            bad("there is no such command", "see hosted-engine simulate --grammar for the commands")
        })?;
        let is_expectation = matches!(command, Command::Expect(_));
        if lasts.is_some() && !is_expectation && command.undone().is_none() {
            return Err(bad("that cannot last for a time, as nothing ends it", "leave `for TIME` out"));
        }
        Ok(Self { at, command, lasts })
    }
}
