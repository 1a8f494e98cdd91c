//! The agent's explanation of itself, for the broker's status and for logs. Pure: rendered from the core's own
//! reasons and terms, so that every display says the same.

use broker_api::status::{AgentReport, ScoreTerm};

use crate::core::{Core, LeaseOwner, Limits, Reason};

/// The report for `PUT /v1/agent`.
pub fn report(core: &Core, reasons: &[Reason], warnings: Vec<String>, limits: &Limits) -> AgentReport {
    let offset = core.view.as_ref().map_or(0, |view| view.look.wall_offset);
    let terms = core.score.terms.iter().map(|term| ScoreTerm {
        name: term.factor.name().to_owned(),
        points: term.points,
        reason: term.factor.to_string(),
    });
    let lease_free = reasons.iter().find_map(|reason| match reason {
        Reason::LeaseWaits { owner: LeaseOwner { free_in, .. } } => *free_in,
        _ => None,
    });
    let lease_free = core.view.as_ref().zip(lease_free).map(|(view, left)| view.look.finished.plus(left));
    AgentReport {
        state: core.state.name().to_owned(),
        score: core.score.total,
        score_terms: terms.collect(),
        reasons: reasons.iter().map(ToString::to_string).collect(),
        timeout_at: core.deadline(limits).or(lease_free).map(|at| at.on_wall(offset)),
        warnings,
        migration: None,
    }
}

/// The reasons on one line.
pub fn one_line(reasons: &[Reason]) -> String {
    let texts: Vec<_> = reasons.iter().map(ToString::to_string).collect();
    texts.join("; ")
}
