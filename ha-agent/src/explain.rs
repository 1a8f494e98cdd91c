//! The agent's explanation of itself, for the broker's status and for logs. Pure: rendered from the core's own
//! reasons and terms, so that every display says the same.

use broker_api::status::{AgentReport, MigrationPhase, MigrationReport, ScoreTerm};
use metadata_format::HostId;

use crate::core::{Core, LeaseOwner, Migration, Moved, Moving, Reason, Settings};

/// The report for `PUT /v1/agent`.
pub fn report(core: &Core, reasons: &[Reason], warnings: Vec<String>, settings: &Settings) -> AgentReport {
    let offset = core.view.as_ref().map_or(0, |view| view.look.wall_offset);
    let score = core.claimed_score(settings.policy);
    let terms = score.terms.iter().map(|term| ScoreTerm {
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
        score: score.total,
        score_terms: terms.collect(),
        reasons: reasons.iter().map(ToString::to_string).collect(),
        timeout_at: core.deadline(&settings.limits).or(lease_free).map(|at| at.on_wall(offset)),
        warnings,
        migration: migration(core, settings.host_id, offset),
    }
}

/// Seconds for which a migration that has ended is told.
const TOLD_FOR: u64 = 60;

/// The migration away from here, or the last one while that is news.
fn migration(core: &Core, own: HostId, offset: i64) -> Option<MigrationReport> {
    let look = &core.view.as_ref()?.look;
    let moves = &core.memory.moves;
    if let Some(Moving { to: Some(to), since, cause, sent, .. }) = &moves.current {
        let phase = match (sent, &look.local.migration) {
            (_, Some(Migration::InProgress { transferred, remaining })) => {
                MigrationPhase::Sending { transferred: *transferred, remaining: *remaining }
            }
            (Some(_), _) => MigrationPhase::Sending { transferred: 0, remaining: 0 },
            (None, _) => MigrationPhase::Asked,
        };
        return Some(MigrationReport {
            to: to.id,
            hostname: to.name.clone(),
            since: since.on_wall(offset),
            phase,
            request: cause.request(),
        });
    }
    let Moved { to, since, at, request, failure } = moves.last.as_ref()?;
    let (to, hostname) = match to {
        Some(to) => (to.id, to.name.clone()),
        None => (own, "this host".to_owned()),
    };
    (look.finished.since(*at) <= TOLD_FOR).then(|| MigrationReport {
        to,
        hostname,
        since: since.on_wall(offset),
        phase: match failure {
            None => MigrationPhase::Done,
            Some(detail) => MigrationPhase::Failed { detail: detail.clone() },
        },
        request: *request,
    })
}

/// The reasons on one line.
pub fn one_line(reasons: &[Reason]) -> String {
    let texts: Vec<_> = reasons.iter().map(ToString::to_string).collect();
    texts.join("; ")
}
