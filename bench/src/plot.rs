//! Lines on two logarithmic axes, as SVG.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Distinct for those who see no red or no green too (Okabe and Ito).
const COLOURS: [&str; 7] =
    ["#000000", "#e69f00", "#0072b2", "#56b4e9", "#009e73", "#d55e00", "#cc79a7"];

/// What one contender showed.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// One axis: from a power of ten to another.
struct Axis {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, start: f64, end: f64) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min).max(1e-3);
        let most = values.fold(0.0, f64::max).max(least);
        let (from, to) = (least.log10().floor(), most.log10().ceil());
        Self { from, to: if to > from { to } else { from + 1.0 }, start, end }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value.max(1e-3).log10() - self.from) / (self.to - self.from);
        self.start + part * (self.end - self.start)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.from as i32..=self.to as i32).map(|power| 10_f64.powi(power))
    }
}

/// Draws them.
pub(crate) fn draw(title: &str, axes: [&str; 2], lines: &[Line]) -> String {
    let points = lines.iter().flat_map(|line| &line.points);
    let x = Axis::over(points.clone().map(|point| point.0), LEFT, WIDTH - RIGHT);
    let y = Axis::over(points.map(|point| point.1), HEIGHT - BOTTOM, TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut put = |line: std::fmt::Arguments<'_>| {
        // Writing into memory cannot fail.
        let _ = writeln!(svg, "{line}");
    };
    put(format_args!("<text x=\"{LEFT}\" y=\"20\">{}</text>", escaped(title)));
    for value in x.ticks() {
        let (at, top, low) = (x.place(value), y.end, y.start);
        put(format_args!("<path d=\"M{at:.1} {top}V{low}\" stroke=\"#ddd\"/>"));
        let below = low + 18.0;
        put(format_args!(
            "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{value}</text>"
        ));
    }
    for value in y.ticks() {
        let (at, left, right) = (y.place(value), x.start, x.end);
        put(format_args!("<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/>"));
        let before = left - 8.0;
        put(format_args!(
            "<text x=\"{before}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            at + 4.0
        ));
    }
    let middle = f64::midpoint(x.start, x.end);
    let [across, up] = axes.map(escaped);
    put(format_args!(
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{across}</text>",
        HEIGHT - 12.0
    ));
    put(format_args!("<text x=\"14\" y=\"20\">{up}</text>"));
    for (at, line) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let mut path = String::new();
        for (index, point) in line.points.iter().enumerate() {
            let step = if index == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{step}{:.1} {:.1}", x.place(point.0), y.place(point.1));
        }
        put(format_args!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        ));
        let (beside, row) = (x.end + 12.0, TOP + 18.0 * (at as f64 + 1.0));
        let name = escaped(&line.name);
        put(format_args!("<text x=\"{beside}\" y=\"{row}\" fill=\"{colour}\">{name}</text>"));
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_stand_between_the_powers_of_ten() {
        let points = vec![(10.0, 1.0), (100.0, 10.0)];
        let svg = draw("a < b", ["x", "y"], &[Line { name: "one".into(), points }]);
        assert!(svg.contains("a &lt; b") && svg.contains(">one</text>"));
        assert!(svg.contains("M70.0 370.0L630.0 40.0"), "{svg}");
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(draw("", ["", ""], &[]).ends_with("</svg>\n"));
    }
}
