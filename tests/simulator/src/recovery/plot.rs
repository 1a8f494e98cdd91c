//! The table as a drawing: for each fault and each set of rules a bar from the 1st to the 99th percentile, a dot at
//! the median and a thin line to the longest outage.

use std::fmt::Write as _;
use std::time::Duration;

use super::figures::{Row, Sample, share};

/// Left edge of the plot.
const LEFT: f64 = 290.0;
/// Its right edge.
const RIGHT: f64 = 790.0;
/// Of the picture; the shares of undisturbed runs stand between.
const WIDTH: f64 = 900.0;
/// Of a fault.
const ROW: f64 = 32.0;
/// Upper edge of the first.
const TOP: f64 = 74.0;
/// Seconds that the axis shows with a line.
const TICKS: [u32; 10] = [0, 5, 15, 30, 60, 120, 300, 600, 1200, 2400];

/// Readable on a light and on a dark page, by itself and inside another one.
const STYLE: &str = "svg{--ink:#1f2328;--paper:#ffffff;--line:#d1d9e0;--plain:#bc4c00;--better:#0969da}\
    @media(prefers-color-scheme:dark){svg{--ink:#e6edf3;--paper:#0d1117;--line:#3d444d;--plain:#f0883e;--better:#58a6ff}}\
    text{font:12px system-ui,sans-serif;fill:var(--ink)}.title{font-size:15px;font-weight:600}\
    .small{font-size:11px}.end{text-anchor:end}.mid{text-anchor:middle}\
    .plain{stroke:var(--plain);fill:var(--plain)}.better{stroke:var(--better);fill:var(--better)}\
    .paper{fill:var(--paper)}.grid{stroke:var(--line)}.bar{stroke-width:5;stroke-opacity:.45}";

/// Nearly linear up to some ten seconds, logarithmic above, so that zero has a place.
fn stretch(secs: f64) -> f64 {
    (secs / 15.0).ln_1p()
}

struct Axis {
    longest: f64,
}

impl Axis {
    fn of(rows: &[Row]) -> Self {
        let longest = rows.iter().flat_map(|row| [row.plain.max(), row.better.max()]).max();
        Self { longest: longest.unwrap_or_default().as_secs_f64().max(60.0) * 1.05 }
    }

    fn x(&self, secs: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * stretch(secs) / stretch(self.longest)
    }

    fn at(&self, time: Duration) -> f64 {
        self.x(time.as_secs_f64())
    }
}

fn sample(text: &mut String, axis: &Axis, class: &str, y: f64, sample: &Sample) {
    let [low, half, high] = [1, 50, 99].map(|percent| axis.at(sample.percentile(percent)));
    let max = axis.at(sample.max());
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "<path class=\"{class}\" d=\"M{low:.1} {y:.1}H{max:.1}M{max:.1} {:.1}v6\"/>\
         <path class=\"{class} bar\" d=\"M{low:.1} {y:.1}H{high:.1}\"/>\
         <circle class=\"{class}\" cx=\"{half:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>",
        y - 3.0,
    );
    let undisturbed = sample.undisturbed();
    if undisturbed > 0.0 {
        let (x, y) = (WIDTH - 12.0, y + 4.0);
        let _ = writeln!(
            text,
            "<text class=\"small end\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
            share(undisturbed).replace('<', "&lt;").replace('>', "&gt;")
        );
    }
}

/// All rows, as a picture that needs nothing else.
pub fn svg(rows: &[Row]) -> String {
    let axis = Axis::of(rows);
    let bottom = rows.iter().fold(TOP, |y, _| y + ROW);
    let height = bottom + 30.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\">\n<title>Seconds without a healthy engine after a fault, with the plain \
         and the better rules</title>\n<style>{STYLE}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"12\" y=\"24\">Seconds without a healthy engine</text>\n\
         <circle class=\"plain\" cx=\"400\" cy=\"20\" r=\"3.5\"/><text x=\"410\" y=\"24\">plain rules</text>\n\
         <circle class=\"better\" cx=\"500\" cy=\"20\" r=\"3.5\"/><text x=\"510\" y=\"24\">better rules</text>\n\
         <text class=\"small end\" x=\"888\" y=\"24\">dot: median; bar: 1 % to 99 %; line: to the longest</text>\n\
         <text class=\"small end\" x=\"888\" y=\"44\">undisturbed</text>\n"
    );
    for secs in TICKS.into_iter().map(f64::from).filter(|secs| *secs <= axis.longest) {
        let (x, low, high) = (axis.x(secs), TOP - 14.0, bottom + 18.0);
        let _ = writeln!(
            text,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/><text class=\"small mid\" x=\"{x:.1}\" \
             y=\"{low}\">{secs}</text><text class=\"small mid\" x=\"{x:.1}\" y=\"{high}\">{secs}</text>"
        );
    }
    let mut y = TOP;
    for row in rows {
        let middle = y + ROW / 2.0;
        let _ = writeln!(
            text,
            "<path class=\"grid\" d=\"M12 {y}H{:.1}\"/><text x=\"12\" y=\"{:.1}\">{}</text>",
            WIDTH - 12.0,
            middle + 4.0,
            row.fault.title()
        );
        sample(&mut text, &axis, "plain", middle - 6.0, &row.plain);
        sample(&mut text, &axis, "better", middle + 6.0, &row.better);
        y += ROW;
    }
    text.push_str("</svg>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::{Ending, Fault, Outcome};

    fn of(outages: &[u64]) -> Sample {
        let outcome = |secs: &u64| Outcome {
            outage: Duration::from_secs(*secs),
            ending: Ending::Recovered,
            lasted: Duration::from_mins(5),
        };
        Sample::new(&outages.iter().map(outcome).collect::<Vec<_>>())
    }

    #[test]
    fn zero_is_at_the_left_edge_and_longer_is_further_right() {
        let row = Row { fault: Fault::VmCrash, plain: of(&[900]), better: of(&[0]) };
        let axis = Axis::of(&[row]);
        assert!((axis.x(0.0) - LEFT).abs() < 1e-9);
        let places = TICKS[..8].iter().map(|secs| axis.x(f64::from(*secs))).collect::<Vec<_>>();
        assert!(places.is_sorted());
        assert!(axis.x(900.0) < RIGHT);
    }

    #[test]
    fn each_fault_has_a_row_with_both_colours() {
        let rows = Fault::ALL.map(|fault| Row { fault, plain: of(&[0, 80]), better: of(&[30, 40]) });
        let svg = svg(&rows);
        for fault in Fault::ALL {
            assert!(svg.contains(&format!(">{}</text>", fault.title())));
        }
        assert_eq!(svg.matches("class=\"plain bar\"").count(), Fault::ALL.len());
        assert_eq!(svg.matches("class=\"better bar\"").count(), Fault::ALL.len());
        assert_eq!(svg.matches(">50 %</text>").count(), Fault::ALL.len());
    }
}
