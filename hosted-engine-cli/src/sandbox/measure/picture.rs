//! Timelines to look at: one as lanes of text, all recoveries as bars.

use std::fmt::Write as _;
use std::time::Duration;

use ha_simulator::chart::{self, Axis, TOP, WIDTH};
use ha_simulator::html::escape;
use ha_simulator::run::Report;
use ha_simulator::text;
use ha_simulator::track::Track;
use ha_simulator::world::{Event, Kind};

use super::parts::Part;
use super::table::Row;
use super::{Source, Timeline};

/// Of a bar with the space around it.
const ROW: f64 = 26.0;
/// Of a bar.
const BAR: f64 = 14.0;
/// Seconds that the axis shows with a line.
const TICKS: [u32; 11] = [0, 20, 40, 60, 80, 100, 120, 160, 200, 250, 300];

/// Colours of the parts on a light and on a dark page, and what is drawn with them.
const STYLE: (&str, &str, &str) = (
    "--detection:#d4a72c;--lock-manager:#8250df;--ours:#cf222e;--shutdown:#6e7781;--boot:#0969da;--move:#1b7c83;\
     --unknown:#d0d7de",
    "--detection:#d4a72c;--lock-manager:#bc8cff;--ours:#ff6b63;--shutdown:#8b949e;--boot:#58a6ff;--move:#56d4dd;\
     --unknown:#484f58",
    ".detection{fill:var(--detection)}.lock-manager{fill:var(--lock-manager)}.ours{fill:var(--ours)}\
     .shutdown{fill:var(--shutdown)}.boot{fill:var(--boot)}.move{fill:var(--move)}.unknown{fill:var(--unknown)}",
);

/// The class of a part's colour.
const fn class(part: Part) -> &'static str {
    match part {
        Part::Detection => "detection",
        Part::LockManager => "lock-manager",
        Part::Ours => "ours",
        Part::Shutdown => "shutdown",
        Part::Boot => "boot",
        Part::Move => "move",
        Part::Unknown => "unknown",
    }
}

/// See [`Timeline::lanes`]: as the simulator shows its runs.
pub fn lanes(timeline: &Timeline, width: usize) -> String {
    let run = &timeline.run;
    let log = timeline.events.iter().map(|event| Event {
        at: Duration::try_from_secs_f64(event.at).unwrap_or_default(),
        host: event.host.map(u16::from),
        kind: match event.source {
            Source::Scenario => Kind::Command,
            Source::Observer => Kind::Vm,
            Source::Sanlock => Kind::World,
            Source::Agent => Kind::Decision,
        },
        text: event.text.clone(),
    });
    let report = Report {
        log: log.collect(),
        violations: Vec::new(),
        unmet: Vec::new(),
        held: Vec::new(),
        lasted: Duration::try_from_secs_f64(run.recovery.unwrap_or_default()).unwrap_or_default(),
        met: Vec::new(),
        track: Track::default(),
        starts: 0,
        commands: 0,
    };
    let head =
        format!("{} on {}, io_timeout {} s, {}", run.scenario, run.hypervisor, run.io_timeout, run.ended);
    format!("{head}\n{}", text::lanes(&report, run.hosts.into(), width))
}

/// The middle run of each row as a bar of its parts.
pub fn bars(rows: &[Row]) -> String {
    let longest = rows.iter().filter_map(|row| row.median().recovery).fold(60.0, f64::max);
    let axis = Axis { longest: longest * 1.05, stretch: |secs| secs };
    let bottom = rows.iter().fold(TOP, |y, _| y + ROW);
    let description = "Seconds from a fault to a good engine, and whose they were";
    let mut svg = chart::open(bottom, "Seconds until the engine is good again", description, STYLE);
    let mut x = 12.0;
    for part in Part::ALL {
        let is_there = |row: &Row| row.median().parts.of(part) > 0.0;
        if rows.iter().any(is_there) {
            // Writing to a string cannot fail.
            let _ = writeln!(
                svg,
                "<rect class=\"{}\" x=\"{x}\" y=\"35\" width=\"12\" height=\"12\"/><text x=\"{}\" y=\"45\">{}</text>",
                class(part),
                x + 17.0,
                part.title()
            );
            x += 125.0;
        }
    }
    axis.write(&mut svg, &TICKS, bottom);
    let mut y = TOP;
    for row in rows {
        let run = row.median();
        let middle = y + ROW / 2.0;
        let title = format!("{} ({}, N = {} s)", run.scenario, run.hypervisor, run.io_timeout);
        chart::row(&mut svg, y, middle, &escape(&title).to_string());
        for one in &run.parts.stretches {
            let (from, to) = (axis.x(one.from), axis.x(one.to));
            let _ = writeln!(
                svg,
                "<rect class=\"{}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\"><title>{}: {:.1} s</title></rect>",
                class(one.part),
                middle - BAR / 2.0,
                (to - from).max(0.5),
                one.part.title(),
                one.to - one.from
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"small end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - 12.0,
            middle + 4.0,
            run.recovery.map_or("undisturbed".to_owned(), |secs| format!("{secs:.1}"))
        );
        y += ROW;
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::super::tests::run;
    use super::super::{Event, Source, Timeline};
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_recovery() {
        let rows = table::rows(&[run("kill-vm", Some(30.0)), run("kill-agent", None)]);
        let svg = bars(&rows);
        assert_eq!(svg.matches("<rect class=\"ours\"").count(), 2, "a bar and its legend: {svg}");
        // 500 units are 63 s.
        assert!(svg.contains("width=\"238.1\""), "{svg}");
        assert!(svg.contains(">30.0</text>") && svg.contains(">undisturbed</text>"), "{svg}");
        assert!(!svg.contains("class=\"boot\""), "{svg}");
    }

    #[test]
    fn each_host_has_its_lane() {
        let event = |at, host, source, text: &str| Event { at, host, source, text: text.to_owned() };
        let events = vec![
            event(0.0, None, Source::Scenario, "kill-vm"),
            event(0.1, Some(1), Source::Observer, "QEMU ends on host 1"),
            event(1.5, Some(2), Source::Agent, "EngineStart: the best"),
        ];
        let text = lanes(&Timeline { run: run("kill-vm", Some(4.0)), events }, 84);
        assert_eq!(
            text,
            "kill-vm on qemu, io_timeout 3 s, 2026-01-31T12:00:00Z\n   \
             seconds  host1                   host2                   host3                   \n     \
             0.000  > kill-vm\n     0.100  QEMU ends on host 1\n     1.500                          EngineStart: the best\n"
        );
    }
}
