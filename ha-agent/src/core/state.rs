//! The states of the agent and what is fixed about each: its guards, its timer, its successors.
//!
//! ```text
//!  StartState ──▶ ReinitializeFSM ──no VM here──▶ EngineDown ◀───────────────────────────────┐
//!                      │    ▲                      │  ▲   │ down everywhere, best score      │
//!            VM is here│    │ a stop failed        │  │   ▼                                 │
//!                      │    │           VM is here │  │  EngineStart ──failed──▶ EngineDown  │
//!                      ▼    │                      ▼  │   │ ok                              │
//!                 EngineStarting ◀─────────────────────────┘                                 │
//!                  │      │    │ VM gone, another took over                                 │
//!           healthy│      │    └──────────────▶ EngineForceStop ───────────────────────────▶┤
//!                  ▼      │ 600 s                    ▲ 300 s, or paused                      │
//!   EngineUpBadHealth     ▼                          │                                       │
//!    │  ▲    │ 300 s   EngineStop ────────────────────┘──── VM stopped ────────────────────▶┤
//!    │  │bad └────────────▲                                                                  │
//!    ▼  │                 │ another host runs it, or is better by 800                        │
//!   EngineUp ─────────────┘                                                                  │
//!    │   │ VM vanished                                                                       │
//!    │   └──▶ EngineMaybeAway ── runs elsewhere, or ended in order ───────────────────────▶┤
//!    │            │ 40 s                                                                     │
//!    └─ crashed ─▶ EngineUnexpectedlyDown (score 0) ── 560 s ─────────────────────────────────┘
//! ```
//! Beside these: `GlobalMaintenance`, `LocalMaintenance` and `UnknownLocalVmState`, entered by the guards of nearly
//! every state and left through `ReinitializeFSM`; `EngineMigratingAway`, entered by a live hand-over; and
//! `AgentStopped`, which is only ever written, at a clean end.
//!
//! With the policy's switches, four ways are shorter: a VM that crashed here is started again here at once (from
//! `EngineUp`, `EngineUpBadHealth`, `EngineStarting`, `EngineMaybeAway`) or after a pause (from `EngineUnexpectedlyDown`);
//! and a sick engine may be ended without a shutdown, or be left alone in `EngineUpBadHealth`.
//!
//! Every edge, with `!` where the next step follows at once, and `*` where only a switch of the policy leads.
//! Tests walk the rules, with and without switches, and compare.
//! ```edges
//! StartState             -> ReinitializeFSM
//! ReinitializeFSM        -> GlobalMaintenance UnknownLocalVmState LocalMaintenance EngineStarting! EngineDown
//! EngineDown             -> GlobalMaintenance UnknownLocalVmState LocalMaintenance EngineStarting! EngineStart! EngineDown
//! EngineStart            -> GlobalMaintenance UnknownLocalVmState LocalMaintenance EngineStarting EngineDown
//! EngineStarting         -> GlobalMaintenance UnknownLocalVmState LocalMaintenance EngineStop EngineUp EngineStarting EngineForceStop! EngineMaybeAway! EngineStart!* EngineUpBadHealth* EngineDown* EngineMigratingAway!*
//! EngineUp               -> GlobalMaintenance UnknownLocalVmState EngineMaybeAway EngineMaybeAway! EngineUnexpectedlyDown EngineStop EngineUpBadHealth EngineUp EngineStart!* EngineForceStop!* EngineDown* EngineMigratingAway!*
//! EngineUpBadHealth      -> GlobalMaintenance UnknownLocalVmState EngineMaybeAway EngineMaybeAway! EngineUnexpectedlyDown EngineStop EngineUpBadHealth EngineUp EngineStart!* EngineForceStop!* EngineDown* EngineMigratingAway!*
//! EngineStop             -> GlobalMaintenance LocalMaintenance UnknownLocalVmState EngineForceStop EngineForceStop! EngineDown EngineStop ReinitializeFSM EngineUp*
//! EngineForceStop        -> GlobalMaintenance LocalMaintenance UnknownLocalVmState EngineDown ReinitializeFSM
//! EngineMaybeAway        -> GlobalMaintenance UnknownLocalVmState LocalMaintenance EngineUnexpectedlyDown EngineUnexpectedlyDown! EngineDown EngineUp EngineMaybeAway EngineStart!*
//! EngineUnexpectedlyDown -> GlobalMaintenance UnknownLocalVmState LocalMaintenance EngineDown EngineUp EngineUnexpectedlyDown EngineStart!*
//! UnknownLocalVmState    -> GlobalMaintenance UnknownLocalVmState LocalMaintenance ReinitializeFSM! EngineMigratingAway!*
//! LocalMaintenance       -> LocalMaintenance ReinitializeFSM EngineMigratingAway!*
//! GlobalMaintenance      -> GlobalMaintenance LocalMaintenance ReinitializeFSM EngineMigratingAway!*
//! EngineMigratingAway    -> GlobalMaintenance UnknownLocalVmState EngineDown ReinitializeFSM! EngineMigratingAway EngineUp* EngineStop* EngineMaybeAway!* EngineUnexpectedlyDown* EngineStart!*
//! AgentStopped           -> AgentStopped
//! ```
//! Data only: no I/O, no clock.

use std::fmt;

use super::policy::Limits;

/// A state of the agent, by the name that logs, blocks and notifications carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "described in the module's text and in `State::meaning`")]
pub enum State {
    StartState,
    ReinitializeFSM,
    EngineDown,
    EngineStart,
    EngineStarting,
    EngineUp,
    EngineUpBadHealth,
    EngineStop,
    EngineForceStop,
    EngineMaybeAway,
    EngineUnexpectedlyDown,
    UnknownLocalVmState,
    LocalMaintenance,
    GlobalMaintenance,
    EngineMigratingAway,
    AgentStopped,
}

/// What is checked before a state's own rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Global maintenance: do nothing at all.
    Global,
    /// Nobody knows whether the VM runs here: do nothing.
    Unknown,
    /// Local maintenance.
    Local,
}

/// Whether the next step follows after the loop's delay or at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wait {
    /// After the delay (10 s), or when woken.
    Delay,
    /// At once.
    No,
}

/// A state's timer: it starts with the first step that keeps the state and fires when more than `limit`
/// seconds have passed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// Seconds.
    pub limit: u64,
    /// Where it leads.
    pub to: State,
    /// Whether the next step follows at once.
    pub wait: Wait,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::StartState,
        Self::ReinitializeFSM,
        Self::EngineDown,
        Self::EngineStart,
        Self::EngineStarting,
        Self::EngineUp,
        Self::EngineUpBadHealth,
        Self::EngineStop,
        Self::EngineForceStop,
        Self::EngineMaybeAway,
        Self::EngineUnexpectedlyDown,
        Self::UnknownLocalVmState,
        Self::LocalMaintenance,
        Self::GlobalMaintenance,
        Self::EngineMigratingAway,
        Self::AgentStopped,
    ];

    /// The guards, in the order of their checks.
    pub const fn guards(self) -> &'static [Guard] {
        match self {
            Self::ReinitializeFSM
            | Self::EngineDown
            | Self::EngineStart
            | Self::EngineStarting
            | Self::EngineMaybeAway
            | Self::EngineUnexpectedlyDown
            | Self::UnknownLocalVmState => &[Guard::Global, Guard::Unknown, Guard::Local],
            Self::EngineUp | Self::EngineUpBadHealth | Self::EngineMigratingAway => {
                &[Guard::Global, Guard::Unknown]
            }
            Self::EngineStop | Self::EngineForceStop => &[Guard::Global, Guard::Local, Guard::Unknown],
            Self::LocalMaintenance => &[Guard::Local],
            Self::GlobalMaintenance => &[Guard::Global, Guard::Local],
            Self::StartState | Self::AgentStopped => &[],
        }
    }

    /// The timer, if the state has one. It is checked before the guards.
    pub const fn timer(self, limits: &Limits) -> Option<Timer> {
        let (limit, to, wait) = match self {
            Self::EngineStarting => (limits.starting, Self::EngineStop, Wait::Delay),
            Self::EngineUpBadHealth => (limits.bad_health, Self::EngineStop, Wait::Delay),
            Self::EngineStop => (limits.stop, Self::EngineForceStop, Wait::Delay),
            Self::EngineMaybeAway => (limits.away, Self::EngineUnexpectedlyDown, Wait::No),
            Self::EngineUnexpectedlyDown => (limits.unexpected_down, Self::EngineDown, Wait::Delay),
            Self::EngineMigratingAway => (limits.migration, Self::EngineMigratingAway, Wait::Delay),
            Self::StartState
            | Self::ReinitializeFSM
            | Self::EngineDown
            | Self::EngineStart
            | Self::EngineUp
            | Self::EngineForceStop
            | Self::UnknownLocalVmState
            | Self::LocalMaintenance
            | Self::GlobalMaintenance
            | Self::AgentStopped => return None,
        };
        Some(Timer { limit, to, wait })
    }

    /// The name in logs, blocks and notifications.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StartState => "StartState",
            Self::ReinitializeFSM => "ReinitializeFSM",
            Self::EngineDown => "EngineDown",
            Self::EngineStart => "EngineStart",
            Self::EngineStarting => "EngineStarting",
            Self::EngineUp => "EngineUp",
            Self::EngineUpBadHealth => "EngineUpBadHealth",
            Self::EngineStop => "EngineStop",
            Self::EngineForceStop => "EngineForceStop",
            Self::EngineMaybeAway => "EngineMaybeAway",
            Self::EngineUnexpectedlyDown => "EngineUnexpectedlyDown",
            Self::UnknownLocalVmState => "UnknownLocalVmState",
            Self::LocalMaintenance => "LocalMaintenance",
            Self::GlobalMaintenance => "GlobalMaintenance",
            Self::EngineMigratingAway => "EngineMigratingAway",
            Self::AgentStopped => "AgentStopped",
        }
    }

    /// What the state means, in a phrase for operators.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::StartState => "the agent has not looked at anything yet",
            Self::ReinitializeFSM => "finding out which state fits",
            Self::EngineDown => "the engine VM does not run here",
            Self::EngineStart => "about to start the engine VM here",
            Self::EngineStarting => "the engine VM was started here; its engine is not healthy yet",
            Self::EngineUp => "the engine VM runs here",
            Self::EngineUpBadHealth => "the engine VM runs here, but its engine does not answer",
            Self::EngineStop => "the engine VM is being shut down here",
            Self::EngineForceStop => "the engine VM is being ended here",
            Self::EngineMaybeAway => "the engine VM is gone from here and may appear on another host",
            Self::EngineUnexpectedlyDown => "the engine VM ended here without being asked to",
            Self::UnknownLocalVmState => "nobody knows whether the engine VM runs here",
            Self::LocalMaintenance => "this host is in maintenance",
            Self::GlobalMaintenance => "the cluster is in maintenance; nothing is done to the engine VM",
            Self::EngineMigratingAway => "the engine VM is moving to another host",
            Self::AgentStopped => "the agent was stopped",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
