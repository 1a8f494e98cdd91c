//! Counterexamples for people: who did what, what each core decided, and why.

use std::fmt::Write as _;

use ha_agent::core::{Decision, Then};

use crate::checked::Cluster;
use crate::steps::Step;
use crate::world::{Power, Storage, Vm, World};

/// What happened in a step, if somebody listens.
pub struct Story {
    lines: Option<Vec<String>>,
}

impl Story {
    /// Nobody listens; nothing is put into words.
    pub const fn untold() -> Self {
        Self { lines: None }
    }

    /// Somebody listens.
    pub const fn told() -> Self {
        Self { lines: Some(Vec::new()) }
    }

    /// A line.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(line());
        }
    }

    /// A decision with its reasons, in the words of the product's log.
    pub fn decision(&mut self, decision: impl FnOnce() -> Decision) {
        self.tell(|| {
            let Decision { from, to, then, reasons, again_in: _ } = decision();
            let next = match then {
                Then::Act(action) => format!("asks for {action:?}"),
                Then::Next(_) if from == to => "stays".to_owned(),
                Then::Next(_) => format!("-> {to}"),
            };
            format!("    {from} {next}: {}", ha_agent::explain::one_line(&reasons))
        });
    }

    /// The lines so far.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

impl<const N: usize> Cluster<N> {
    /// Puts a path from `world` into words. Gives the last world too.
    pub fn narrate(&self, world: &World<N>, steps: &[Step]) -> (Vec<String>, World<N>) {
        let mut story = Story::told();
        let mut world = world.clone();
        for step in steps {
            world = self.after(&world, *step, &mut story);
            if *step == Step::Tick {
                story.tell(|| format!("    now {}", summary(&world)));
            }
        }
        (story.into_lines(), world)
    }

    /// The cycle that keeps the engine from coming up for good from `world`, which does not recover, in words.
    pub fn narrate_livelock(&self, world: &World<N>) -> Vec<String> {
        let (steps, up_to) = self.livelock(world);
        let (mut lines, world) = self.narrate(world, &steps[..up_to]);
        lines.push("-- without another fault, and again and again:".to_owned());
        lines.extend(self.narrate(&world, &steps[up_to..]).0);
        lines
    }
}

/// The cluster in one line.
pub fn summary<const N: usize>(world: &World<N>) -> String {
    let mut text = match world.lease {
        Some(owner) => format!("lease: {owner}"),
        None => "lease: free".to_owned(),
    };
    if world.global_maintenance {
        text.push_str(", global maintenance");
    }
    for (no, host) in world.numbered() {
        let power = match host.power {
            Power::On => "on",
            Power::Frozen => "frozen",
            Power::Off => "off",
        };
        let vm = match host.vm {
            Vm::Absent => "no VM",
            Vm::Booting => "VM boots",
            Vm::Healthy => "VM serves",
            Vm::Sick => "VM runs, engine sick",
            Vm::PoweringDown => "VM powers down",
            Vm::Paused { .. } => "VM paused by an I/O error",
        };
        let score = host.block.map_or_else(|| "-".to_owned(), |block| block.score.to_string());
        let marks = [
            (host.power == Power::On && host.agent.is_none(), ", no agent"),
            (matches!(host.storage, Storage::Cut { .. }), ", no storage"),
            (!host.network, ", no gateway"),
            (host.maintenance, ", maintenance"),
        ];
        // Writing into a String does not fail.
        let _ = write!(text, "; {no}: {power}, {vm}, score {score}");
        for (_, mark) in marks.iter().filter(|(set, _)| *set) {
            text.push_str(mark);
        }
    }
    text
}
