//! After a step: tell the other hosts, the broker, the log and the service manager.
//!
//! The own block counts as written only when the broker has read it back.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{debug, info};

use super::{Agent, CALL_DEADLINE};
use crate::core::{Decision, Reason, Secs, State};
use crate::{blocks, explain};

/// Longest time for handing over the explanation, which nothing depends on.
const REPORT_DEADLINE: Duration = Duration::from_secs(3);
/// Longest time for each part of a clean end.
const END_DEADLINE: Duration = Duration::from_secs(3);

impl Agent {
    pub(super) async fn publish(&mut self, decision: &Decision) {
        self.log();
        // The other hosts first: they wait for it.
        self.write_block(CALL_DEADLINE).await;
        if decision.from != self.core.state {
            self.notify(decision.from, self.core.state).await;
        }
        self.push_alive(CALL_DEADLINE).await;
        self.report().await;
        let (state, score) = (self.core.state, self.core.claimed_score(self.config.settings.policy).total);
        let reasons = explain::one_line(&self.reasons);
        self.ports.service.status(&format!("{state} (score {score}): {reasons}"));
    }

    /// One line for each loop; the reasons when they or the state change.
    fn log(&mut self) {
        let claimed = self.core.claimed_score(self.config.settings.policy);
        let (state, score) = (self.core.state, claimed.total);
        let reasons = explain::one_line(&self.reasons);
        let now = (state, reasons);
        if self.logged.as_ref() == Some(&now) {
            info!("Current state {state} (score: {score})");
        } else {
            info!("Current state {state} (score: {score}): {}", now.1);
            for term in &claimed.terms {
                debug!("score {:+} {}: {}", term.points, term.factor.name(), term.factor);
            }
        }
        if let Some((host, theirs)) = self.core.view.as_ref().and_then(|view| view.best_score.as_ref()) {
            debug!("Best remote host {host}, score {theirs}");
        }
        self.logged = Some(now);
    }

    async fn notify(&mut self, from: State, to: State) {
        let options = BTreeMap::from([("hostname".to_owned(), self.config.hostname.clone())]);
        let detail = format!("{from}-{to}");
        let sent = self.ports.broker.notify("state_transition", &detail, &options);
        match self.ask("notify", CALL_DEADLINE, sent).await {
            Ok(sent) => debug!("{detail}: {}", if sent { "notified" } else { "no rule wants it notified" }),
            Err(error) => self.warnings.push(format!("{detail} was not notified: {error}")),
        }
    }

    async fn write_block(&mut self, deadline: Duration) {
        let settings = &self.config.settings;
        let own = blocks::Own {
            host_id: settings.host_id,
            hostname: &self.config.hostname,
            weights: &settings.weights,
            lease: &self.config.lease,
            conf_on_shared_storage: self.config.conf_on_shared_storage,
            vm_conf_refreshed: self.vm_conf_refreshed.unwrap_or_default(),
            zone: &self.zone,
            lines: self.fence.lines(),
        };
        let bytes = match blocks::write(&self.core, settings, &own) {
            None => return,
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => {
                self.warnings.push(format!("this host's block cannot be written: {error}"));
                return;
            }
        };
        let (host, alive) = (settings.host_id, settings.limits.alive);
        let written = self.ports.broker.put_stats(host, &bytes);
        let written = tokio::time::timeout(deadline, written);
        // The last block is written after the agent was told to stop; others do not hold up the stop.
        let written = if self.core.state == State::AgentStopped {
            written.await
        } else {
            let Some(written) = self.unless_stopped(written).await else { return };
            written
        };
        let now = Secs::from(self.ports.clock.monotonic());
        let error = match written {
            Ok(Ok(())) => {
                self.last_acknowledged = now;
                self.fencing_written(now);
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no acknowledgement within {} s", deadline.as_secs()),
        };
        self.warnings.push(format!("this host's block was not written: {error}"));
        let silent = now.since(self.last_acknowledged);
        if silent > alive {
            self.warnings.push(format!(
                "this host's block was last written {silent} s ago: the other hosts think this host dead"
            ));
        }
    }

    async fn push_alive(&mut self, deadline: Duration) {
        // Whoever says so is alive.
        let mut alive = vec![self.config.settings.host_id];
        alive.extend(self.core.view.iter().flat_map(|view| view.alive.iter().copied()));
        let pushed = self.ports.broker.push_hosts_state(&alive);
        if let Err(error) = self.ask("push_hosts_state", deadline, pushed).await {
            self.warnings.push(format!("the list of live hosts was not handed over: {error}"));
        }
    }

    /// Hands the explanation to the broker. Best effort: a broker that cannot take it is met again in the next loop.
    pub(super) async fn report(&self) {
        let settings = &self.config.settings;
        let (reasons, warnings) = self.fencing_texts();
        let mut report = explain::report(&self.core, &self.reasons, self.warnings.clone(), settings);
        report.reasons.extend(reasons);
        report.warnings.extend(warnings);
        let put = tokio::time::timeout(REPORT_DEADLINE, self.ports.broker.put_agent_report(&report));
        if let Ok(Err(error)) = put.await {
            debug!("the explanation was not handed over: {error}");
        }
    }

    /// The clean end: says that this agent stopped, and leaves a running VM alone. Bounded, whatever hangs.
    pub(super) async fn end(mut self) {
        info!("the agent was told to stop");
        self.ports.service.stopping();
        self.warnings.clear();
        self.warned.clear();
        let vm = tokio::time::timeout(END_DEADLINE, self.ports.vm.status()).await;
        let vm_is_away = matches!(vm, Ok(Ok(vm)) if !vm.exists());
        self.end_fencing();
        self.core = std::mem::take(&mut self.core).stopped(&self.config.settings);
        self.reasons = vec![Reason::AgentStopping];
        self.write_block(END_DEADLINE).await;
        self.report().await;
        self.leave_lockspaces(vm_is_away, END_DEADLINE).await;
        self.log_warnings();
        info!("the agent has stopped");
    }
}
