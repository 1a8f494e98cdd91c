//! What must hold for any state, any looks and any switches.

use super::*;

fn any_engine() -> impl Strategy<Value = Option<EngineStatus>> {
    prop::sample::select(engines())
}

fn any_number() -> impl Strategy<Value = Option<f64>> {
    prop::option::of(prop_oneof![Just(f64::NAN), Just(f64::INFINITY), -1e12..1e12, 0.0..1.0])
}

prop_compose! {
    fn any_host()(
        id in 2_u16..6, ts in any::<i64>(), score in any::<u32>(), engine in any_engine(), parses in prop::bool::weighted(0.9),
        migration_to in prop::option::weighted(0.3, (1_u16..6).prop_map(host)),
        ready in prop::option::weighted(0.3, (1_u16..6).prop_map(|from| Ready { from: host(from), uri: "tcp:h:1".to_owned() })),
    )
        -> RemoteHost
    {
        let block = RemoteBlock { host_ts: ts, score: Score(score), engine, hostname: "h\u{1b}[31m".to_owned(), migration_to, ready };
        RemoteHost { id: host(id), block: parses.then_some(block) }
    }
}

prop_compose! {
    fn any_look()(
        started in prop_oneof![any::<u64>(), 0_u64..2000],
        took in 0_u64..100,
        wall_offset in any::<i64>(),
        global in prop::bool::weighted(0.2),
        hosts in prop::collection::vec(any_host(), 0..6),
        numbers in [any_number(), any_number(), any_number(), any_number()],
        bridge in any::<Option<bool>>(),
        engine in any_engine(),
        maintenance in prop::bool::weighted(0.2),
        min_memory in any::<u64>(),
        footing in (any::<Option<u64>>(), any::<Option<bool>>(), any::<Option<u64>>()),
        live in prop::option::of(prop::collection::vec((1_u16..6).prop_map(host), 0..6)),
        pause in prop::option::weighted(0.3, prop::sample::select(vec![
            PausedLease::Held, PausedLease::Lost, PausedLease::Unknown,
        ])),
        moves in any_moves(),
    ) -> Observation {
        Observation {
            started: Secs(started),
            finished: Secs(started).plus(took),
            wall_offset,
            global_maintenance: global,
            hosts,
            local: Local {
                network: numbers[0], mem_free: numbers[1], cpu_load: numbers[2], mem_load: numbers[3],
                bridge, engine, maintenance, min_memory, conf_up_to_date: bridge.is_some(),
                io_error_pause: pause, ..moves
            },
            lock_manager_live: live,
            footing: Footing {
                last_acknowledged: footing.0.map(Secs), host_lease: footing.1, storage_stuck: footing.2,
                lease_owner: footing.2.map(|secs| LeaseOwner { host: secs, life: OwnerLife::Failing, free_in: Some(secs) }),
            },
        }
    }
}

/// What a look may show of migrations.
fn any_moves() -> impl Strategy<Value = Local> {
    let migration = prop::sample::select(vec![
        None,
        Some(Migration::InProgress { transferred: u64::MAX, remaining: u64::MAX }),
        Some(Migration::InProgress { transferred: 0, remaining: 0 }),
        Some(Migration::Finished),
        Some(Migration::Failed { detail: "no".to_owned() }),
        Some(Migration::Unknown),
    ]);
    let migrates = prop::sample::select(vec![Migrates::Prepared, Migrates::Arranged, Migrates::default()]);
    let asked = prop::option::weighted(0.3, (prop::option::of((1_u16..6).prop_map(host)), 0_i64..3));
    let announced = prop::option::of((1_u16..6).prop_map(host));
    (migration, migrates, asked, announced, any::<[bool; 2]>()).prop_map(
        |(migration, migrates, asked, announced, [force_maintenance, arriving])| Local {
            migration,
            migrates,
            migration_request: asked.map(|(to, asked_at)| MigrationRequest { to, asked_at }),
            announced,
            force_maintenance,
            arriving,
            ..Local::default()
        },
    )
}

/// Any combination of the switches.
fn any_policy() -> impl Strategy<Value = Policy> {
    prop::array::uniform16(any::<bool>()).prop_map(|on| Policy {
        retry_memory: on[0],
        start_waits_for_liveness: on[1],
        lease_refusal_is_no_failure: on[2],
        local_maintenance_moves_vm: on[3],
        start_needs_footing: on[4],
        local_restart: on[5],
        debounce: on[6],
        cpu_never_evicts: on[7],
        ranked_start: on[8],
        storage_patience: on[9],
        paused_policy: on[10],
        blip_free_restart: on[11],
        health_escalation: on[12],
        stop_needs_cause: on[13],
        lease_aware_start: on[14],
        live_migration: on[15],
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// From any state, through any looks: no panic, and what must always hold does.
    #[test]
    fn what_must_always_hold_holds(
        start in prop::sample::select(State::ALL.to_vec()),
        looks in prop::collection::vec((any_look(), any::<bool>()), 1..12),
        policy in any_policy(),
        sick_engine in prop::sample::select(vec![
            SickEngine::ShutdownThenForce, SickEngine::Force, SickEngine::LeftAlone,
        ]),
    ) {
        let mut settings = settings(policy);
        settings.limits.sick_engine = sick_engine;
        let mut core = core_in(start, None, &settings);
        for (look, works) in looks {
            let (global, vm, footing) = (look.global_maintenance, look.local.vm(), look.footing);
            let from = core.state;
            let arriving = look.local.arriving && from == State::EngineDown;
            let may_resume = look.local.io_error_pause == Some(PausedLease::Held);
            let (next, decision, actions) = whole_step(core, look, works, &settings);
            core = next;
            let moves = |action: &Action| match action {
                Action::SendVm { .. } | Action::ReceiveVm { .. } | Action::EndArrival | Action::CancelMigration => true,
                Action::StartVm | Action::StopVm | Action::ForceStopVm | Action::ResumeVm => false,
            };
            // What a person asks for, and the end of what was begun.
            prop_assert!(!global || actions.iter().all(moves), "an action in global maintenance");
            prop_assert!(policy.live_migration || !actions.iter().any(moves), "a migration without the switch");
            prop_assert!(core.state != State::EngineStart || !arriving || !policy.live_migration, "a start while it arrives");
            prop_assert!(vm != VmState::Unknown || actions.is_empty(), "an action on a VM that nobody knows");
            for action in &actions {
                let asked_by: &[_] = match action {
                    Action::StartVm => &[State::EngineStart],
                    Action::StopVm => &[State::EngineStop],
                    Action::ForceStopVm => &[State::EngineForceStop],
                    Action::ResumeVm => &[State::EngineStarting, State::EngineUp, State::EngineUpBadHealth],
                    Action::SendVm { .. } | Action::CancelMigration => &[State::EngineMigratingAway],
                    Action::ReceiveVm { .. } => &[State::EngineDown, State::GlobalMaintenance],
                    Action::EndArrival => &[State::EngineDown, State::GlobalMaintenance, State::LocalMaintenance],
                };
                prop_assert!(asked_by.contains(&from));
                prop_assert!(*action != Action::ResumeVm || may_resume, "a resume without the lease");
            }
            prop_assert!(actions.len() <= 1, "one action a step");
            if core.state == State::EngineStart {
                let best = core.view.as_ref().and_then(|view| view.best_engine.engine.as_ref());
                prop_assert!(!global && best.is_none_or(|status| status.vm != VmState::Up), "it runs already");
                let firm = footing.storage_stuck.is_none() && footing.host_lease != Some(false);
                prop_assert!(firm || !policy.start_needs_footing, "a start without footing");
            }
            prop_assert!(!decision.reasons.is_empty(), "a decision without a reason");
            prop_assert!(decision.again_in != Some(0), "a step that wants the next one at once says so by Wait");
            let left_out = core.score.leaving_out(score::Factor::is_load);
            prop_assert!(left_out >= core.score.total, "leaving penalties out costs nothing");
            let sum: i64 = core.score.terms.iter().map(|term| term.points).sum();
            prop_assert_eq!(sum, i64::from(core.score.total.0), "the terms add up");
            let must_be_zero = [
                State::LocalMaintenance, State::EngineUnexpectedlyDown, State::AgentStopped,
                State::ReinitializeFSM, State::StartState,
            ];
            prop_assert!(!must_be_zero.contains(&core.state) || core.score.total == Score(0));
            prop_assert!(core.timer.is_none() || core.state.timer(&settings.limits).is_some());
            for reason in &decision.reasons {
                prop_assert!(!reason.to_string().contains('\u{1b}'), "a host's name reaches the terminal raw");
            }
        }
    }
}
