//! The table as a drawing: for each fault and each set of rules a bar from the 1st to the 99th percentile, a dot at
//! the median and a thin line to the longest outage.

use std::fmt::Write as _;

use super::figures::{Row, Sample, share};
use crate::chart::{self, Axis, TOP, WIDTH};

/// Of a fault.
const ROW: f64 = 32.0;
/// Seconds that the axis shows with a line.
const TICKS: [u32; 10] = [0, 5, 15, 30, 60, 120, 300, 600, 1200, 2400];

/// Colours of the two sets of rules on a light and on a dark page, and what is drawn with them.
const STYLE: (&str, &str, &str) = (
    "--plain:#bc4c00;--better:#0969da",
    "--plain:#f0883e;--better:#58a6ff",
    ".plain{stroke:var(--plain);fill:var(--plain)}.better{stroke:var(--better);fill:var(--better)}\
     .bar{stroke-width:5;stroke-opacity:.45}",
);

/// Nearly linear up to some ten seconds, logarithmic above, so that zero has a place.
fn stretch(secs: f64) -> f64 {
    (secs / 15.0).ln_1p()
}

fn axis(rows: &[Row]) -> Axis {
    let longest = rows.iter().flat_map(|row| [row.plain.max(), row.better.max()]).max();
    Axis { longest: longest.unwrap_or_default().as_secs_f64().max(60.0) * 1.05, stretch }
}

fn sample(text: &mut String, axis: &Axis, class: &str, y: f64, sample: &Sample) {
    let [low, half, high] = [1, 50, 99].map(|percent| axis.x(sample.percentile(percent).as_secs_f64()));
    let max = axis.x(sample.max().as_secs_f64());
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
    let axis = axis(rows);
    let bottom = rows.iter().fold(TOP, |y, _| y + ROW);
    let description = "Seconds without a healthy engine after a fault, with the plain and the better rules";
    let mut text = chart::open(bottom, "Seconds without a healthy engine", description, STYLE);
    text += "<circle class=\"plain\" cx=\"400\" cy=\"20\" r=\"3.5\"/><text x=\"410\" y=\"24\">plain rules</text>\n\
             <circle class=\"better\" cx=\"500\" cy=\"20\" r=\"3.5\"/><text x=\"510\" y=\"24\">better rules</text>\n\
             <text class=\"small end\" x=\"888\" y=\"24\">dot: median; bar: 1 % to 99 %; line: to the longest</text>\n\
             <text class=\"small end\" x=\"888\" y=\"44\">undisturbed</text>\n";
    axis.write(&mut text, &TICKS, bottom);
    let mut y = TOP;
    for row in rows {
        let middle = y + ROW / 2.0;
        chart::row(&mut text, y, middle, row.fault.title());
        sample(&mut text, &axis, "plain", middle - 6.0, &row.plain);
        sample(&mut text, &axis, "better", middle + 6.0, &row.better);
        y += ROW;
    }
    text.push_str("</svg>\n");
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::chart::{LEFT, RIGHT};
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
        let axis = axis(&[row]);
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
