//! A bar chart as SVG: groups of bars over a logarithmic axis.

use std::fmt::Write;

/// The bars of one colour.
pub struct Series<'a> {
    /// What the legend calls it.
    pub name: &'a str,
    /// One for each group; `None` where there is nothing to show.
    pub values: Vec<Option<f64>>,
}

const COLOURS: [&str; 5] = ["#8da0cb", "#fc8d62", "#a6d854", "#1b7837", "#999999"];
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 50.0;
const BAR: f64 = 9.0;
const GAP: f64 = 12.0;

/// Draws it; the axis goes from one power of ten to another.
pub fn bars(title: &str, groups: &[String], series: &[Series<'_>]) -> String {
    let all = || series.iter().flat_map(|s| s.values.iter().flatten().copied()).filter(|v| *v > 0.0);
    let low = all().fold(f64::MAX, f64::min).log10().floor();
    let high = all().fold(f64::MIN_POSITIVE, f64::max).log10().ceil().max(low + 1.0);
    let y = |value: f64| TOP + HEIGHT * (high - value.log10()) / (high - low);
    let group = BAR * series.len() as f64 + GAP;
    let width = LEFT + group * groups.len() as f64 + GAP;
    let bottom = TOP + HEIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"18\" font-size=\"14\">{title}</text>\n",
        bottom + 30.0
    );
    let mut line = |text: String| writeln!(svg, "{text}").expect("a string can be written to");
    for (i, s) in series.iter().enumerate() {
        let x = LEFT + 110.0 * i as f64;
        line(format!("<rect x=\"{x:.0}\" y=\"27\" width=\"10\" height=\"10\" fill=\"{}\"/>", COLOURS[i % COLOURS.len()]));
        line(format!("<text x=\"{:.0}\" y=\"36\">{}</text>", x + 14.0, s.name));
    }
    for power in low as i32..=high as i32 {
        let (value, at) = (10f64.powi(power), y(10f64.powi(power)));
        line(format!("<line x1=\"{LEFT}\" x2=\"{width:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>"));
        line(format!("<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 6.0, at + 4.0, short(value)));
    }
    for (g, name) in groups.iter().enumerate() {
        let x = LEFT + GAP + group * g as f64;
        for (i, s) in series.iter().enumerate() {
            let Some(value) = s.values.get(g).copied().flatten().filter(|v| *v > 0.0) else { continue };
            let (left, top) = (x + BAR * i as f64, y(value));
            line(format!(
                "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{BAR}\" height=\"{:.1}\" fill=\"{}\"><title>{name}, {}: {}</title></rect>",
                bottom - top,
                COLOURS[i % COLOURS.len()],
                s.name,
                short(value)
            ));
        }
        let middle = x + BAR * series.len() as f64 / 2.0;
        line(format!("<text x=\"{middle:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{name}</text>", bottom + 16.0));
    }
    svg + "</svg>\n"
}

/// 1234567 as 1.2 M.
fn short(value: f64) -> String {
    let units = [(1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, "")];
    let (unit, name) = units.into_iter().find(|(u, _)| value >= *u).unwrap_or((1.0, ""));
    let text = format!("{:.1}", value / unit);
    format!("{}{name}", text.trim_end_matches(".0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_times_as_much_is_one_line_higher() {
        let series = [Series { name: "a", values: vec![Some(100.0), Some(1000.0), None] }];
        let svg = bars("t", &["q0".into(), "q1".into(), "q2".into()], &series);
        let tops = svg.lines().filter(|l| l.contains("<title>")).map(|l| l.split("y=\"").nth(1).unwrap().split('"').next().unwrap());
        assert_eq!(tops.collect::<Vec<_>>(), ["350.0", "50.0"]);
        assert_eq!([short(1_500_000.0), short(1000.0), short(3.0)], ["1.5 M", "1 k", "3"]);
    }
}
