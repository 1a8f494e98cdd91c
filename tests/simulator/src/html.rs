//! A run as one HTML page that needs nothing else: no script, no font, no image, no network. It follows the reader's
//! light or dark scheme.
//!
//! Scenario files come from anywhere. Every text goes through [`escape`], and the page forbids scripts by itself.

mod picture;
mod style;

use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::command::Time;
use crate::invariant::Promise;
use crate::run::{Plan, Report};
use crate::story::{Outcome, Story};
use crate::world::Kind;

/// A text as it may stand in HTML and SVG, between tags and in quoted attributes.
pub fn escape(text: &str) -> Escaped<'_> {
    Escaped(text)
}

/// See [`escape`].
pub struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(' ')?,
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

fn secs(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// The page.
pub fn page(title: &str, plan: &Plan, report: &Report) -> String {
    let mut html = String::new();
    // Writing to a string cannot fail.
    let _ = write_page(&mut html, title, plan, report);
    html
}

fn write_page(html: &mut String, title: &str, plan: &Plan, report: &Report) -> fmt::Result {
    let story = Story::of(plan, report);
    let title = if title.is_empty() { "A rehearsal" } else { title };
    let (heading, more) = title.split_once(". ").unwrap_or((title.trim_end_matches('.'), ""));
    write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n<style>\n{}</style>\n</head>\n\
         <body>\n<h1>{}</h1>\n<p>{}</p>\n",
        escape(heading),
        style::SHEET,
        escape(heading),
        escape(more)
    )?;
    head(html, plan, report, &story)?;
    html.push_str("<div class=\"picture\">\n");
    picture::write(html, plan, report, &story)?;
    html.push_str("</div>\n");
    picture::legend(html, report)?;
    outages(html, report, &story)?;
    expectations(html, &story)?;
    log(html, report)?;
    html.push_str("</body>\n</html>\n");
    Ok(())
}

fn head(html: &mut String, plan: &Plan, report: &Report, story: &Story) -> fmt::Result {
    let verdict = if report.is_good() {
        "<b class=\"yes\">As it must be</b>"
    } else {
        "<b class=\"no\">Not as it must be</b>"
    };
    write!(
        html,
        "<p>{verdict} · {} hosts, {} a watchdog · sanlock's time-outs {} s and {} s · seed {} · {} simulated · \
         {} starts of the VM · ",
        plan.shape.hosts,
        if plan.shape.has_watchdog { "with" } else { "without" },
        plan.shape.io_timeout(),
        plan.shape.watchdog(),
        plan.shape.seed,
        secs(report.lasted),
        story.starts
    )?;
    match story.first_answer() {
        Some(_) if story.outages.is_empty() => html.push_str("the engine was never away</p>\n"),
        Some(_) => writeln!(html, "the engine was away for <b>{}</b></p>", secs(story.away(report.lasted)))?,
        None => html.push_str("the engine never answered</p>\n"),
    }
    for violation in &report.violations {
        writeln!(
            html,
            "<p class=\"broken\"><b>Broken at {}: {}</b><br>{}: {}</p>",
            secs(violation.at),
            escape(violation.promise.sentence()),
            violation.promise,
            escape(&violation.detail)
        )?;
    }
    for promise in &report.held {
        writeln!(html, "<p class=\"broken\">Not broken, as the scenario says it must be: {promise}</p>")?;
    }
    let meant: Vec<Promise> = plan.breaks.iter().filter(|one| !report.held.contains(one)).copied().collect();
    for promise in meant {
        writeln!(
            html,
            "<p class=\"meant\">Broken, as the scenario says it must be: {} ({promise})</p>",
            escape(promise.sentence())
        )?;
    }
    Ok(())
}

fn outages(html: &mut String, report: &Report, story: &Story) -> fmt::Result {
    if story.outages.is_empty() {
        return Ok(());
    }
    html.push_str(
        "<h2>The engine was away</h2>\n<table>\n<tr><th>from<th>to<th>for<th>it began<th>it ended</tr>\n",
    );
    for outage in &story.outages {
        writeln!(
            html,
            "<tr><td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td>{}<td>{}</tr>",
            secs(outage.from),
            outage.to.map_or_else(|| "–".to_owned(), secs),
            secs(outage.lasted(report.lasted)),
            escape(&outage.began),
            escape(outage.ended.as_deref().unwrap_or("not before the end of the run"))
        )?;
    }
    html.push_str("</table>\n");
    Ok(())
}

fn expectations(html: &mut String, story: &Story) -> fmt::Result {
    if story.expected.is_empty() {
        return Ok(());
    }
    html.push_str("<h2>What was expected</h2>\n<table>\n<tr><th>at<th>what<th>outcome</tr>\n");
    for one in &story.expected {
        let within = one.within.map(|time| format!(" within {}", Time(time))).unwrap_or_default();
        let class = if matches!(one.outcome, Outcome::Met(_)) { "yes" } else { "no" };
        writeln!(
            html,
            "<tr><td class=\"n\">{}<td>{}{within}<td class=\"{class}\">{}</tr>",
            secs(one.from),
            escape(&one.what.to_string()),
            one.words()
        )?;
    }
    html.push_str("</table>\n");
    Ok(())
}

fn log(html: &mut String, report: &Report) -> fmt::Result {
    html.push_str(
        "<h2>Everything that happened, with the reason of each decision</h2>\n<table class=\"log\">\n\
         <tr><th>seconds<th>host<th>what</tr>\n",
    );
    for event in &report.log {
        let class = match event.kind {
            Kind::Command => "command",
            Kind::Decision => "decision",
            Kind::Vm => "vm",
            Kind::World => "world",
            Kind::Violation => "violation",
        };
        let host = event.host.map(|id| format!("host{id}")).unwrap_or_default();
        writeln!(
            html,
            "<tr class=\"{class}\"><td class=\"n\">{:.3}<td>{host}<td>{}</tr>",
            event.at.as_secs_f64(),
            escape(&event.text)
        )?;
    }
    html.push_str("</table>\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_place() {
        let hostile = "</title><script>alert('x')</script>\" onload=\"y&z\u{1b}[2J\n";
        let safe = escape(hostile).to_string();
        assert!(!safe.contains(['<', '>', '"', '\'', '\u{1b}', '\n']), "{safe}");
        assert_eq!(escape("a & b < c").to_string(), "a &amp; b &lt; c");
    }
}
