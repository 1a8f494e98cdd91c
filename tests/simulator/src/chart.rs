//! What charts of recoveries have in common: an SVG picture with a row for each fault and an axis of seconds, readable on
//! a light and on a dark page, by itself and inside another one.

use std::fmt::Write as _;

/// Left edge of the plot.
pub const LEFT: f64 = 290.0;
/// Its right edge.
pub const RIGHT: f64 = 790.0;
/// Of the picture.
pub const WIDTH: f64 = 900.0;
/// Upper edge of the first row.
pub const TOP: f64 = 74.0;

/// Where seconds lie.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    /// What is at the right edge, in seconds.
    pub longest: f64,
    /// The scale: grows, and has zero at zero.
    pub stretch: fn(f64) -> f64,
}

impl Axis {
    /// The place of `secs`.
    pub fn x(&self, secs: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (self.stretch)(secs) / (self.stretch)(self.longest)
    }

    /// Lines with the seconds above and below them, from [`TOP`] to `bottom`.
    pub fn write(&self, text: &mut String, ticks: &[u32], bottom: f64) {
        for secs in ticks.iter().copied().map(f64::from).filter(|secs| *secs <= self.longest) {
            let (x, low, high) = (self.x(secs), TOP - 14.0, bottom + 18.0);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/><text class=\"small mid\" x=\"{x:.1}\" \
                 y=\"{low}\">{secs}</text><text class=\"small mid\" x=\"{x:.1}\" y=\"{high}\">{secs}</text>"
            );
        }
    }
}

/// Opens a picture whose rows end at `bottom`. `description` is for those who cannot see it; `light` and `dark` are more
/// variables for the two schemes, `style` are more rules.
pub fn open(bottom: f64, title: &str, description: &str, (light, dark, style): (&str, &str, &str)) -> String {
    let height = bottom + 30.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\">\n<title>{description}</title>\n\
         <style>svg{{--ink:#1f2328;--paper:#ffffff;--line:#d1d9e0;{light}}}\
         @media(prefers-color-scheme:dark){{svg{{--ink:#e6edf3;--paper:#0d1117;--line:#3d444d;{dark}}}}}\
         text{{font:12px system-ui,sans-serif;fill:var(--ink)}}.title{{font-size:15px;font-weight:600}}\
         .small{{font-size:11px}}.end{{text-anchor:end}}.mid{{text-anchor:middle}}\
         .paper{{fill:var(--paper)}}.grid{{stroke:var(--line)}}{style}</style>\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"12\" y=\"24\">{title}</text>\n"
    )
}

/// The line above a row, and its title beside `middle`.
pub fn row(text: &mut String, y: f64, middle: f64, title: &str) {
    let _ = writeln!(
        text,
        "<path class=\"grid\" d=\"M12 {y}H{:.1}\"/><text x=\"12\" y=\"{:.1}\">{title}</text>",
        WIDTH - 12.0,
        middle + 4.0,
    );
}
