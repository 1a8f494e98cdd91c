use proptest::prelude::*;

use super::super::{LeaseTable, LivelinessTable, Timers};
use super::*;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Figures in which every rule has much room on both sides of each time.
fn roomy() -> HaToml {
    HaToml {
        timers: Timers {
            loop_interval: secs(10),
            host_alive: secs(100),
            history: secs(900),
            alive_list: secs(300),
            engine_start: secs(400),
            engine_starting: secs(600),
            bad_health: secs(300),
            engine_stop: secs(300),
            maybe_away: secs(90),
            unexpectedly_down: secs(560),
            retry_clear: secs(600),
            storage_deadline: secs(40),
            ..Timers::default()
        },
        lease: LeaseTable { io_timeout: 20, watchdog_timeout: 60, ..LeaseTable::default() },
        liveliness: LivelinessTable { timeout: secs(5), ..LivelinessTable::default() },
        ..HaToml::default()
    }
}

/// A rule, a time in it, the value of that time at which both sides are equal while the others are roomy, and
/// whether the time is on the larger side.
struct Edge {
    rule: &'static str,
    name: &'static str,
    set: fn(&mut HaToml, Duration),
    equal: Duration,
    is_larger: bool,
    prepare: fn(&mut HaToml),
}

#[allow(clippy::too_many_lines, reason = "one entry for each rule")]
fn edges() -> Vec<Edge> {
    fn as_is(_: &mut HaToml) {}
    fn long_alive(toml: &mut HaToml) {
        toml.timers.host_alive = secs(250);
    }
    let larger = |rule, name, set, secs| Edge {
        rule,
        name,
        set,
        equal: Duration::from_secs(secs),
        is_larger: true,
        prepare: as_is,
    };
    vec![
        Edge {
            rule: "timers.loop × 3 ≤ timers.host_alive",
            name: "timers.loop",
            set: |toml, time| toml.timers.loop_interval = time,
            equal: secs(20),
            is_larger: false,
            prepare: |toml| {
                toml.timers.host_alive = secs(60);
                toml.timers.storage_deadline = secs(1);
            },
        },
        larger(
            "timers.loop + timers.storage_deadline < timers.host_alive",
            "timers.host_alive",
            |toml, time| toml.timers.host_alive = time,
            50,
        ),
        larger(
            "timers.loop × 2 ≤ timers.alive_list",
            "timers.alive_list",
            |toml, time| toml.timers.alive_list = time,
            20,
        ),
        larger(
            "timers.host_alive + timers.loop < timers.history",
            "timers.history",
            |toml, time| toml.timers.history = time,
            110,
        ),
        Edge {
            rule: "timers.storage_deadline < lease.io_timeout × 8",
            name: "timers.storage_deadline",
            set: |toml, time| toml.timers.storage_deadline = time,
            equal: secs(160),
            is_larger: false,
            prepare: long_alive,
        },
        Edge {
            rule: "timers.loop × 2 < lease.watchdog_timeout",
            name: "timers.loop",
            set: |toml, time| toml.timers.loop_interval = time,
            equal: secs(30),
            is_larger: false,
            prepare: long_alive,
        },
        larger(
            "lease.io_timeout × 8 + lease.watchdog_timeout < timers.engine_start",
            "timers.engine_start",
            |toml, time| toml.timers.engine_start = time,
            220,
        ),
        Edge {
            prepare: |toml| {
                toml.lease.io_timeout = 1;
                toml.timers.storage_deadline = secs(1);
                toml.lease.watchdog_timeout = 30;
            },
            ..larger(
                "the launcher's deadline + QEMU's deadline for its first answer < timers.engine_start",
                "timers.engine_start",
                |toml, time| toml.timers.engine_start = time,
                80,
            )
        },
        larger(
            "timers.loop × 2 ≤ timers.maybe_away",
            "timers.maybe_away",
            |toml, time| toml.timers.maybe_away = time,
            20,
        ),
        larger(
            "timers.host_alive < timers.unexpectedly_down",
            "timers.unexpectedly_down",
            |toml, time| toml.timers.unexpectedly_down = time,
            100,
        ),
        larger(
            "timers.host_alive < timers.retry_clear",
            "timers.retry_clear",
            |toml, time| toml.timers.retry_clear = time,
            100,
        ),
        larger(
            "timers.loop × 2 ≤ timers.bad_health",
            "timers.bad_health",
            |toml, time| toml.timers.bad_health = time,
            20,
        ),
        Edge {
            rule: "liveliness.timeout × 2 ≤ timers.bad_health",
            name: "liveliness.timeout",
            set: |toml, time| toml.liveliness.timeout = time,
            equal: secs(25),
            is_larger: false,
            prepare: |toml| toml.timers.bad_health = secs(50),
        },
        larger(
            "liveliness.timeout × 2 ≤ timers.engine_starting",
            "timers.engine_starting",
            |toml, time| toml.timers.engine_starting = time,
            10,
        ),
        larger(
            "timers.loop × 2 ≤ timers.engine_stop",
            "timers.engine_stop",
            |toml, time| toml.timers.engine_stop = time,
            20,
        ),
        Edge {
            rule: "timers.loop × 3 < migration.timeout",
            name: "migration.timeout",
            set: |toml, time| toml.migration.timeout = time,
            equal: secs(75),
            is_larger: true,
            prepare: |toml| toml.timers.loop_interval = secs(25),
        },
    ]
}

#[test]
fn each_rule_is_kept_up_to_its_boundary_and_not_beyond() {
    let step = Duration::from_millis(1);
    roomy().validate().unwrap();
    let rules: Vec<String> = roomy().relations().iter().map(Relation::rule).collect();
    assert_eq!(edges().iter().map(|edge| edge.rule).collect::<Vec<_>>(), rules, "one test for each rule");
    for edge in edges() {
        let at = |value| {
            let mut toml = roomy();
            (edge.prepare)(&mut toml);
            (edge.set)(&mut toml, value);
            toml.validate()
        };
        let (inside, outside) = if edge.is_larger {
            (edge.equal + step, edge.equal.saturating_sub(step))
        } else {
            (edge.equal.saturating_sub(step), edge.equal + step)
        };
        assert_eq!(at(inside), Ok(()), "{}", edge.rule);
        let refusal = at(outside).unwrap_err();
        assert!(refusal.contains(&format!("{} (", edge.name)), "{refusal}");
        let order = if edge.rule.contains('≤') { "must be at most" } else { "must be less than" };
        assert!(refusal.contains(order), "{}: {refusal}", edge.rule);
        assert_eq!(at(edge.equal).is_ok(), edge.rule.contains('≤'), "{} at equality", edge.rule);
    }
}

#[test]
fn a_refusal_has_the_figures_the_reason_and_what_to_change() {
    let mut toml = HaToml::default();
    toml.timers.loop_interval = secs(30);
    assert_eq!(
        toml.validate().unwrap_err(),
        "timers.loop (30 s) × 3 must be at most timers.host_alive (60 s): a host that misses two loops would look \
         dead to the others; raise timers.host_alive, or lower timers.loop"
    );
    toml = HaToml::default();
    toml.lease.io_timeout = 30;
    let text = toml.validate().unwrap_err();
    let figures = "lease.io_timeout (30 s) × 8 + lease.watchdog_timeout (60 s) must be less than \
                   timers.engine_start (180 s)";
    assert!(text.starts_with(figures), "{text}");
    toml = HaToml::default();
    toml.lease.watchdog_timeout = 5;
    toml.timers.loop_interval = secs(1);
    toml.lease.io_timeout = 2;
    toml.timers.storage_deadline = secs(2);
    toml.timers.engine_start = secs(60);
    let text = toml.validate().unwrap_err();
    assert!(text.contains("the launcher's deadline (50 s)") && text.ends_with("; raise timers.engine_start"));
}

/// A time of the list instead of the one that is there, three times out of ten.
fn maybe(times: impl Strategy<Value = Duration>) -> impl Strategy<Value = Option<Duration>> {
    prop::option::weighted(0.3, times)
}

prop_compose! {
    fn any_times()(
        small in prop::collection::vec(maybe((0.1..100.0).prop_map(Duration::from_secs_f64)), 3),
        large in prop::collection::vec(maybe((1_u64..700).prop_map(secs)), 10),
        lease in (prop::option::weighted(0.3, 1_u32..61), prop::option::weighted(0.3, 5_u32..200)),
    ) -> HaToml {
        let mut toml = roomy();
        let (timers, page) = (&mut toml.timers, &mut toml.liveliness.timeout);
        let places = [
            &mut timers.loop_interval, &mut timers.storage_deadline, page,
            &mut timers.host_alive, &mut timers.history, &mut timers.alive_list, &mut timers.engine_start,
            &mut timers.engine_starting, &mut timers.bad_health, &mut timers.engine_stop,
            &mut timers.maybe_away, &mut timers.unexpectedly_down, &mut timers.retry_clear,
        ];
        for (place, value) in places.into_iter().zip(small.into_iter().chain(large)) {
            *place = value.unwrap_or(*place);
        }
        toml.lease.io_timeout = lease.0.unwrap_or(toml.lease.io_timeout);
        toml.lease.watchdog_timeout = lease.1.unwrap_or(toml.lease.watchdog_timeout);
        toml
    }
}

/// The rules once more, written by hand.
fn fits(toml: &HaToml) -> bool {
    let (timers, page) = (&toml.timers, toml.liveliness.timeout);
    let looped = timers.loop_interval;
    looped * 3 <= timers.host_alive
        && looped + timers.storage_deadline < timers.host_alive
        && looped * 2 <= timers.alive_list
        && timers.host_alive + looped < timers.history
        && timers.storage_deadline < toml.lease.lost_after()
        && looped * 2 < secs(toml.lease.watchdog_timeout.into())
        && toml.lease.dead_after() < timers.engine_start
        && secs(80) < timers.engine_start
        && looped * 2 <= timers.maybe_away
        && timers.host_alive < timers.unexpectedly_down
        && timers.host_alive < timers.retry_clear
        && looped.max(page) * 2 <= timers.bad_health
        && page * 2 <= timers.engine_starting
        && looped * 2 <= timers.engine_stop
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_keeps_every_rule_and_what_is_refused_breaks_one(toml in any_times()) {
        // The other figures cannot be out of their ranges.
        let in_range = toml.timers.loop_interval <= secs(60)
            && toml.liveliness.timeout <= secs(60)
            && toml.timers.host_alive <= secs(600)
            && toml.timers.alive_list <= secs(600)
            && toml.timers.history >= secs(2);
        prop_assert_eq!(toml.validate().is_ok(), in_range && fits(&toml));
    }
}
