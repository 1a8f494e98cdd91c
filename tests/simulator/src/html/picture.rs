//! The timeline as SVG: the script, the engine, a lane for each host, an axis.
//!
//! ```text
//! script    ▾ power-off host2            what people and faults did, and what was expected
//! engine    ████████        █████████    the engine answers; the dashed part is an outage
//! host1     ▬▬ faults of storage, network
//!           ██ EngineDown █ EngineUp █   the state that its agent told, a tick for each new reason
//!           ▬▬▬▬▬▬                       the VM's process
//!           0 s      100 s      200 s
//! ```

use std::fmt::{self, Write as _};
use std::time::Duration;

use ha_agent::core::State;

use super::escape;
use crate::run::{Plan, Report};
use crate::story::{Band, Outcome, Story, bands, decision};
use crate::track::{Doing, HostView, Power, Since, StorageView, VmView};
use crate::world::Kind;

/// Sizes in SVG units.
const WIDTH: f64 = 1240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 1230.0;
const MARK_ROWS: usize = 4;
const MARK_ROW: f64 = 14.0;
const ENGINE_TOP: f64 = 64.0;
const ENGINE: f64 = 20.0;
const LANES_TOP: f64 = 96.0;
const LANE: f64 = 60.0;
const FAULT: f64 = 5.0;
const STATE_TOP: f64 = 14.0;
const STATE: f64 = 22.0;
const VM_TOP: f64 = 39.0;
const VM: f64 = 9.0;
/// Most lines on the axis.
const MOST_TICKS: u64 = 14;
const STEPS: [u64; 17] =
    [1, 2, 5, 10, 20, 50, 100, 200, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400];

/// Width of a text of the usual size: an estimate on the large side.
fn text_width(text: &str) -> f64 {
    f64::from(u32::try_from(text.chars().count()).unwrap_or(u32::MAX)) * 6.2
}

struct Scale {
    end: Duration,
}

impl Scale {
    fn x(&self, at: Duration) -> f64 {
        let share = if self.end.is_zero() { 0.0 } else { at.as_secs_f64() / self.end.as_secs_f64() };
        LEFT + share.min(1.0) * (RIGHT - LEFT)
    }

    /// A rectangle over a band. Also the shortest one can be seen.
    fn rect<T>(&self, svg: &mut String, class: &str, band: &Band<T>, top: f64, height: f64) -> fmt::Result {
        let x = self.x(band.from);
        let width = (self.x(band.to) - x).max(1.0);
        write!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        )
    }

    /// A rectangle with a text to hover over, and a label inside where there is room.
    fn block<T>(
        &self,
        svg: &mut String,
        (class, label): (&str, &str),
        band: &Band<T>,
        (top, height): (f64, f64),
        hover: &str,
    ) -> fmt::Result {
        write!(svg, "<g><title>{}</title>", escape(hover))?;
        self.rect(svg, class, band, top, height)?;
        let (from, to) = (self.x(band.from), self.x(band.to));
        if !label.is_empty() && text_width(label) + 6.0 < to - from {
            let ink = if class == "off" { "offtext" } else { "on" };
            write!(
                svg,
                "<text class=\"{ink}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                from + 4.0,
                top + height / 2.0 + 4.0,
                escape(label)
            )?;
        }
        svg.push_str("</g>\n");
        Ok(())
    }
}

fn span<T>(band: &Band<T>) -> String {
    format!("{:.1} s to {:.1} s", band.from.as_secs_f64(), band.to.as_secs_f64())
}

/// The whole picture.
pub fn write(svg: &mut String, plan: &Plan, report: &Report, story: &Story) -> fmt::Result {
    let scale = Scale { end: report.lasted };
    let hosts = f64::from(plan.shape.hosts);
    let bottom = LANES_TOP + hosts * LANE;
    writeln!(
        svg,
        "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"Timeline of the engine and the hosts\">",
        bottom + 20.0
    )?;
    for id in 0..plan.shape.hosts {
        let top = LANES_TOP + f64::from(id) * LANE;
        writeln!(
            svg,
            "<rect class=\"lane\" x=\"0\" y=\"{top:.1}\" width=\"{WIDTH}\" height=\"{:.1}\"/>",
            LANE - 6.0
        )?;
    }
    axis(svg, &scale, bottom)?;
    engine(svg, &scale, report, story)?;
    for (number, samples) in report.track.hosts.iter().enumerate() {
        let id = u16::try_from(number + 1).unwrap_or(u16::MAX);
        let top = LANES_TOP + f64::from(id - 1) * LANE;
        lane(svg, &scale, report, id, samples, top)?;
    }
    marks(svg, &scale, report, story, bottom)?;
    // Those too that the scenario means to break.
    for event in report.log.iter().filter(|event| event.kind == Kind::Violation) {
        let x = scale.x(event.at);
        writeln!(
            svg,
            "<g><title>{:.1} s: {}</title><line class=\"crack\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{ENGINE_TOP}\" \
             y2=\"{bottom:.1}\"/></g>",
            event.at.as_secs_f64(),
            escape(&event.text)
        )?;
    }
    svg.push_str("</svg>\n");
    Ok(())
}

fn axis(svg: &mut String, scale: &Scale, bottom: f64) -> fmt::Result {
    let end = scale.end.as_secs();
    let step = STEPS.into_iter().find(|step| end / step <= MOST_TICKS).unwrap_or(end / MOST_TICKS + 1);
    let mut at = 0;
    while at <= end {
        let x = scale.x(Duration::from_secs(at));
        let label =
            if end < 7200 { format!("{at} s") } else { format!("{}:{:02} h", at / 3600, at / 60 % 60) };
        writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{ENGINE_TOP}\" y2=\"{bottom:.1}\"/>\
             <text class=\"faint\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{label}</text>",
            bottom + 12.0
        )?;
        at += step;
    }
    Ok(())
}

fn engine(svg: &mut String, scale: &Scale, report: &Report, story: &Story) -> fmt::Result {
    writeln!(svg, "<text x=\"4\" y=\"{:.1}\">engine</text>", ENGINE_TOP + 14.0)?;
    for band in &story.healthy {
        let hover = format!("the engine answers on host{}, {}", band.what.host, span(band));
        let label = format!("answers on host{}", band.what.host);
        scale.block(svg, ("up", &label), band, (ENGINE_TOP, ENGINE), &hover)?;
    }
    for outage in &story.outages {
        let band = Band { from: outage.from, to: outage.to.unwrap_or(report.lasted), what: () };
        let label = format!("{:.0} s", outage.lasted(report.lasted).as_secs_f64());
        let ended = outage.ended.as_deref().unwrap_or("not before the end of the run");
        let hover = format!("away, {}. It began: {}. It ended: {ended}", span(&band), outage.began);
        write!(svg, "<g><title>{}</title>", escape(&hover))?;
        scale.rect(svg, "gone", &band, ENGINE_TOP + 0.5, ENGINE - 1.0)?;
        if text_width(&label) < scale.x(band.to) - scale.x(band.from) {
            let middle = f64::midpoint(scale.x(band.from), scale.x(band.to));
            write!(
                svg,
                "<text class=\"ko\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">{label}</text>",
                ENGINE_TOP + 14.0
            )?;
        }
        svg.push_str("</g>\n");
    }
    Ok(())
}

/// Class of a state's colour.
fn colour(state: &str) -> &'static str {
    match State::from_name(state) {
        None | Some(State::StartState | State::ReinitializeFSM | State::AgentStopped) => "none",
        Some(State::EngineDown) => "down",
        Some(State::EngineStart | State::EngineStarting) => "starting",
        Some(State::EngineUp) => "up",
        Some(State::EngineUpBadHealth | State::UnknownLocalVmState) => "sick",
        Some(State::EngineStop | State::EngineForceStop) => "stopping",
        Some(State::EngineMaybeAway) => "away",
        Some(State::EngineUnexpectedlyDown) => "dead",
        Some(State::LocalMaintenance | State::GlobalMaintenance) => "rest",
        Some(State::EngineMigratingAway) => "moving",
    }
}

fn storage_words(storage: StorageView) -> Option<(&'static str, &'static str)> {
    match storage {
        StorageView::Good => None,
        StorageView::Slow => Some(("slow", "storage answers late or with old contents")),
        StorageView::Failing => Some(("failing", "storage fails")),
        StorageView::Stalled => Some(("stalled", "storage does not answer")),
    }
}

fn network_words(host: &HostView) -> Option<(&'static str, &'static str)> {
    match (host.network_bad, host.bridge_down) {
        (false, false) => None,
        (true, false) => Some(("net", "network tests fail")),
        (false, true) => Some(("net", "the management bridge is down")),
        (true, true) => Some(("net", "network tests fail and the management bridge is down")),
    }
}

fn vm_words(vm: VmView) -> (&'static str, String) {
    let class = match vm.doing {
        Doing::Runs | Doing::PowersDown | Doing::Leaves => "vm",
        Doing::Stopped => "vmstill",
        Doing::Dying => "vmdying",
    };
    (class, format!("{} (VM {})", vm.doing.words(), vm.instance))
}

fn lane(
    svg: &mut String,
    scale: &Scale,
    report: &Report,
    id: u16,
    samples: &[Since<HostView>],
    top: f64,
) -> fmt::Result {
    let end = report.lasted;
    writeln!(svg, "<text x=\"4\" y=\"{:.1}\">host{id}</text>", top + STATE_TOP + 15.0)?;
    for band in bands(samples, end, |host| storage_words(host.storage)) {
        let hover = format!("host{id}: {}, {}", band.what.1, span(&band));
        scale.block(svg, (band.what.0, ""), &band, (top + 1.0, FAULT), &hover)?;
    }
    for band in bands(samples, end, network_words) {
        let hover = format!("host{id}: {}, {}", band.what.1, span(&band));
        scale.block(svg, (band.what.0, ""), &band, (top + 2.0 + FAULT, FAULT), &hover)?;
    }
    for band in bands(samples, end, |host| host.agent.clone()) {
        let said = decision(report, id, band.from).map_or(band.what.as_str(), |event| event.text.as_str());
        let hover = format!("host{id}, {}: {said}", span(&band));
        scale.block(svg, (colour(&band.what), &band.what), &band, (top + STATE_TOP, STATE), &hover)?;
    }
    for event in report.log.iter().filter(|one| one.kind == Kind::Decision && one.host == Some(id)) {
        let (x, low) = (scale.x(event.at), top + STATE_TOP + STATE);
        writeln!(
            svg,
            "<g><title>host{id}, {:.1} s: {}</title><line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{low:.1}\"/></g>",
            event.at.as_secs_f64(),
            escape(&event.text),
            low - 5.0
        )?;
    }
    for band in bands(samples, end, |host| host.vm) {
        let (class, text) = vm_words(band.what);
        let hover = format!("host{id}: {text}, {}", span(&band));
        scale.block(svg, (class, ""), &band, (top + VM_TOP, VM), &hover)?;
    }
    for band in bands(samples, end, |host| (host.power != Power::On).then_some(host.power)) {
        let (class, text) = match band.what {
            Power::On => continue,
            Power::Off => ("off", "no power"),
            Power::Frozen => ("frozen", "frozen"),
        };
        let hover = format!("host{id}: {text}, {}", span(&band));
        scale.block(svg, (class, text), &band, (top + 1.0, LANE - 8.0), &hover)?;
    }
    Ok(())
}

/// What stands above the lanes: a mark for each command and expectation, with its words where there is room.
fn marks(svg: &mut String, scale: &Scale, report: &Report, story: &Story, bottom: f64) -> fmt::Result {
    let commands = report
        .log
        .iter()
        .filter(|event| event.kind == Kind::Command && !event.text.starts_with("expect "))
        .map(|event| (event.at, event.text.clone(), ""));
    let expected = story.expected.iter().filter_map(|one| match one.outcome {
        Outcome::Met(at) => Some((at, format!("✓ {}", one.what), "ok")),
        Outcome::NotMet => Some((one.from + one.within.unwrap_or_default(), format!("✗ {}", one.what), "ko")),
        Outcome::NotReached => None,
    });
    let mut marks: Vec<(Duration, String, &str)> = commands.chain(expected).collect();
    marks.sort_by_key(|(at, ..)| *at);
    let mut free = [0.0; MARK_ROWS];
    for (at, text, class) in &marks {
        let (x, width) = (scale.x(*at), text_width(text) * 0.92 + 8.0);
        let from = x.min(RIGHT - width).max(0.0);
        write!(svg, "<g><title>{:.1} s: {}</title>", at.as_secs_f64(), escape(text))?;
        write!(
            svg,
            "<line class=\"step\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{bottom:.1}\"/>\
             <path class=\"shot {class}\" d=\"M{:.1} {:.1}h6l-3 5z\"/>",
            ENGINE_TOP - 6.0,
            x - 3.0,
            ENGINE_TOP - 7.0
        )?;
        if let Some((row, right)) = (0u8..).zip(&mut free).find(|(_, right)| **right <= from) {
            *right = from + width;
            write!(
                svg,
                "<text class=\"mark {class}\" x=\"{from:.1}\" y=\"{:.1}\">{}</text>",
                10.0 + f64::from(row) * MARK_ROW,
                escape(text)
            )?;
        }
        svg.push_str("</g>\n");
    }
    Ok(())
}

/// What the colours mean, for those that the picture has.
pub fn legend(html: &mut String, report: &Report) -> fmt::Result {
    let seen = || report.track.hosts.iter().flatten().map(|sample| &sample.what);
    let mut entries: Vec<(&str, String)> = vec![("up", "engine: it answers".to_owned())];
    entries.push(("gone", "engine: away".to_owned()));
    for state in State::ALL {
        if seen().any(|host| host.agent.as_deref() == Some(state.name())) {
            entries.push((colour(state.name()), state.name().to_owned()));
        }
    }
    for doing in [Doing::Runs, Doing::Stopped, Doing::Dying] {
        if seen().any(|host| host.vm.is_some_and(|vm| vm.doing == doing)) {
            let (class, _) = vm_words(VmView { instance: 0, doing });
            entries.push((class, doing.words().to_owned()));
        }
    }
    for storage in [StorageView::Slow, StorageView::Failing, StorageView::Stalled] {
        let words = storage_words(storage).filter(|_| seen().any(|host| host.storage == storage));
        entries.extend(words.map(|(class, words)| (class, words.to_owned())));
    }
    if seen().any(|host| host.network_bad || host.bridge_down) {
        entries.push(("net", "network or management bridge".to_owned()));
    }
    for (power, class, words) in [(Power::Off, "off", "no power"), (Power::Frozen, "frozen", "frozen")] {
        if seen().any(|host| host.power == power) {
            entries.push((class, words.to_owned()));
        }
    }
    if report.log.iter().any(|event| event.kind == Kind::Violation) {
        entries.push(("broken-promise", "a broken promise".to_owned()));
    }
    html.push_str("<ul class=\"legend\">\n");
    for (class, words) in entries {
        writeln!(
            html,
            "<li><svg viewBox=\"0 0 22 12\"><rect class=\"{class}\" x=\"1\" y=\"1\" width=\"20\" height=\"10\"/></svg>{}</li>",
            escape(&words)
        )?;
    }
    html.push_str("<li>A tick in a band: a new reason. Hover over anything for its words.</li>\n</ul>\n");
    Ok(())
}
