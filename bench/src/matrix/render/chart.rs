//! Drawings, as inline SVG. Every drawing is 360 units wide, the width of a phone: it is readable at
//! its own size there and only grows elsewhere. Colours are classes, so that they follow the theme.

use std::fmt::Write;

use super::figure::escaped;

/// Width of every drawing.
pub const WIDTH: f64 = 360.0;
/// One bar with the line of text above it and the one below.
const ROW: f64 = 46.0;
/// Where the bar is in its row, and how thick.
const BAR_TOP: f64 = 17.0;
const BAR_HEIGHT: f64 = 10.0;
/// One line of the thin chart: name, bar and value side by side.
const THIN_ROW: f64 = 18.0;
const THIN_LEFT: f64 = 142.0;
const THIN_RIGHT: f64 = 312.0;

/// One bar.
#[derive(Clone, Debug, Default)]
pub struct Bar {
    /// Whose.
    pub name: String,
    /// What class of colour it has.
    pub class: &'static str,
    /// How long; none for what failed.
    pub value: Option<f64>,
    /// Least and greatest run.
    pub spread: Option<(f64, f64)>,
    /// The value in words.
    pub label: String,
    /// A line of small text below.
    pub note: String,
}

/// Horizontal bars with the runs' spread, longest possible for the greatest value.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    let height = ROW * bars.len() as f64;
    let most = greatest(bars);
    let mut svg = open(title, height);
    for (index, bar) in bars.iter().enumerate() {
        row(&mut svg, bar, index as f64 * ROW, most);
    }
    svg.push_str("</svg>\n");
    svg
}

fn row(svg: &mut String, bar: &Bar, top: f64, most: f64) {
    let length = |value: f64| (WIDTH - 2.0) * value / most;
    let (text, below) = (top + 12.0, top + BAR_TOP + BAR_HEIGHT + 12.0);
    let state = if bar.value.is_none() { " failed" } else { "" };
    let _ = write!(
        svg,
        "<g data-datapath=\"{name}\"><text class=\"name {class}\" x=\"0\" y=\"{text}\">{name}</text>\
         <text class=\"value{state}\" x=\"{WIDTH}\" y=\"{text}\">{label}</text>\
         <rect class=\"track\" x=\"0\" y=\"{y}\" width=\"{WIDTH}\" height=\"{BAR_HEIGHT}\" rx=\"2\"/>",
        name = escaped(&bar.name),
        class = bar.class,
        label = escaped(&bar.label),
        y = top + BAR_TOP,
    );
    if let Some(value) = bar.value {
        let _ = write!(
            svg,
            "<rect class=\"bar {}\" x=\"0\" y=\"{}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\"/>",
            bar.class,
            top + BAR_TOP,
            length(value).max(1.0),
        );
    }
    if let Some((least, greatest)) = bar.spread.filter(|(least, greatest)| least < greatest) {
        whisker(
            svg,
            length(least),
            length(greatest),
            top + BAR_TOP + BAR_HEIGHT / 2.0,
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"note{state}\" x=\"0\" y=\"{below}\">{}</text></g>",
        escaped(&bar.note)
    );
}

/// A line from the least to the greatest run, with ends.
fn whisker(svg: &mut String, from: f64, to: f64, y: f64) {
    let (up, down) = (y - 4.0, y + 4.0);
    let _ = write!(
        svg,
        "<path class=\"whisker\" d=\"M{from:.1} {up}V{down}M{from:.1} {y}H{to:.1}M{to:.1} {up}V{down}\"/>"
    );
}

/// Thin bars, one line each.
pub fn thin_bars(title: &str, bars: &[Bar]) -> String {
    let most = greatest(bars);
    let mut svg = open(title, THIN_ROW * bars.len() as f64);
    for (index, bar) in bars.iter().enumerate() {
        let Some(value) = bar.value else { continue };
        let top = index as f64 * THIN_ROW;
        let _ = writeln!(
            svg,
            "<text class=\"small\" x=\"0\" y=\"{text}\">{name}</text>\
             <rect class=\"bar {class}\" x=\"{THIN_LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"7\" rx=\"2\"/>\
             <text class=\"small value\" x=\"{WIDTH}\" y=\"{text}\">{label}</text>",
            text = top + 12.0,
            name = escaped(&bar.name),
            class = bar.class,
            y = top + 5.0,
            length = ((THIN_RIGHT - THIN_LEFT) * value / most).max(1.0),
            label = escaped(&bar.label),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn greatest(bars: &[Bar]) -> f64 {
    bars.iter()
        .filter_map(|bar| Some(bar.spread.map_or(bar.value?, |(_, greatest)| greatest)))
        .fold(f64::MIN_POSITIVE, f64::max)
}

fn open(title: &str, height: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n",
        escaped(title)
    )
}

/// Where a figure is between far too bad (left) and far better than needed (right): the must is
/// one line, the aim another, the runs' spread a band.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    /// Powers of two better than the must.
    pub figure: f64,
    /// The aim, on the same scale.
    pub aim: f64,
    /// Least and greatest round.
    pub spread: Option<(f64, f64)>,
    /// What class of colour the point has.
    pub class: &'static str,
}

/// Ends of a gauge's scale: an eighth of the must and eight times it.
const GAUGE_END: f64 = 3.0;

/// Draws a gauge.
pub fn gauge(title: &str, gauge: &Gauge) -> String {
    let x = |power: f64| {
        let clamped = power.clamp(-GAUGE_END, GAUGE_END);
        (clamped + GAUGE_END) / (2.0 * GAUGE_END) * (WIDTH - 16.0) + 8.0
    };
    let mut svg = open(title, 24.0);
    let _ = write!(
        svg,
        "<rect class=\"track\" x=\"0\" y=\"10\" width=\"{WIDTH}\" height=\"4\" rx=\"2\"/>\
         <path class=\"must\" d=\"M{must:.1} 3V21\"/><path class=\"aim\" d=\"M{aim:.1} 3V21\"/>",
        must = x(0.0),
        aim = x(gauge.aim),
    );
    if let Some((low, high)) = gauge.spread {
        let (from, to) = (x(low.min(high)), x(low.max(high)));
        let _ = write!(
            svg,
            "<rect class=\"band {}\" x=\"{from:.1}\" y=\"8\" width=\"{:.1}\" height=\"8\" rx=\"3\"/>",
            gauge.class,
            (to - from).max(1.0)
        );
    }
    let _ = writeln!(
        svg,
        "<circle class=\"{}\" cx=\"{:.1}\" cy=\"12\" r=\"6\"/></svg>",
        gauge.class,
        x(gauge.figure)
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(value: Option<f64>) -> Bar {
        Bar {
            name: "weft".to_owned(),
            class: "ours",
            value,
            spread: value.map(|value| (value / 2.0, value * 2.0)),
            ..Bar::default()
        }
    }

    #[test]
    fn the_longest_whisker_fills_the_width() {
        let svg = bars("t", &[bar(Some(10.0)), bar(Some(5.0))]);
        assert!(svg.contains("H358.0"), "{svg}");
        assert!(svg.contains("width=\"179.0\""), "{svg}");
    }

    #[test]
    fn what_failed_has_no_bar() {
        let svg = bars("t", &[bar(None)]);
        assert!(
            svg.contains("failed") && !svg.contains("class=\"bar"),
            "{svg}"
        );
    }

    #[test]
    fn a_gauge_never_leaves_its_scale() {
        let svg = gauge(
            "t",
            &Gauge {
                figure: f64::INFINITY,
                aim: 0.5,
                spread: Some((-99.0, 99.0)),
                class: "missed",
            },
        );
        assert!(svg.contains("cx=\"352.0\""), "{svg}");
        assert!(svg.contains("x=\"8.0\""), "{svg}");
    }
}
