//! The report as one HTML file that needs no network: tables, and plots as inline SVG.

use std::fmt::Write as _;

use crate::environment::Environment;
use crate::report::{AFTER_VOID, Measured, Report, RunReport};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:1rem auto;padding:0 1rem;\
color:#1a1a1a;background:#fff}.wide{overflow-x:auto}table{border-collapse:collapse;margin:1rem 0}th,td{padding:.25rem .75rem;\
border-bottom:1px solid #ddd;text-align:right}th:first-child,td:first-child{text-align:left}svg{display:block;width:100%;\
max-width:32rem;height:auto}pre{background:#f4f4f4;padding:1rem;overflow:auto}.void{color:#b00020}\
code{word-break:break-all}";
/// Colours of curves, told apart by people with any colour vision (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/// Size of a plot: about that of a phone, so that its letters can be read there.
const SIZE: [f64; 2] = [400.0, 270.0];
/// Size of its letters, and at most how wide one of them is.
const LETTER: f64 = 12.0;
const LETTER_WIDTH: f64 = 7.0;
/// Room of a plot for the names of its curves, right of it, for the numbers below and for those on the left.
const MARGIN: [f64; 4] = [28.0, 30.0, 44.0, 76.0];

/// The file; `signer` is the key that signed the report.
pub fn page(report: &Report, signer: &str) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>\n<p>{product}</p>\n<p>{what}</p>\n",
        product = escaped(&product(report)),
        title = escaped(&format!("bench {}", report.scenario)),
        what = escaped(&report.plan.title),
    );
    if let Some(void) = report.void() {
        let _ = writeln!(
            page,
            "<p class=\"void\"><strong>Void:</strong> {}.</p>\n<p><strong>What to do:</strong> {}</p>",
            escaped(void),
            escaped(AFTER_VOID)
        );
    }
    page.push_str(&runs_table(report));
    page.push_str(&throughput(report));
    for run in report.runs() {
        if let Some(measured) = &run.measured {
            page.push_str(&run_plots(run, measured));
        }
    }
    let _ = writeln!(page, "<h2>In words</h2>\n<pre>{}</pre>", escaped(&report.to_string()));
    page.push_str(&about(report, signer));
    page.push_str("</html>\n");
    page
}

/// What was measured and when, for whoever sees the page alone.
fn product(report: &Report) -> String {
    let Environment { version, commit, .. } = &report.environment;
    let commit = if commit.is_empty() { "unknown" } else { commit };
    format!("秒享 exchange {version} · commit {commit} · {}", report.began)
}

fn runs_table(report: &Report) -> String {
    let mut table = "<div class=\"wide\"><table><tr><th>run<th>answers/s<th>p50 ms<th>p99<th>p99.9<th>max<th>errors<th>missed\
                     <th>server µs an answer<th>generator</tr>\n"
        .to_owned();
    for run in report.runs() {
        let _ = write!(table, "<tr><td>{}", escaped(&run.name));
        let Some(measured) = &run.measured else {
            let _ = writeln!(table, "<td colspan=\"9\" class=\"void\">void</tr>");
            continue;
        };
        let latency = &measured.latency_ms;
        let server =
            measured.server.as_ref().map_or_else(|| "–".to_owned(), |s| format!("{:.1}", s.us_an_answer));
        let _ = writeln!(
            table,
            "<td>{:.0}<td>{:.2}<td>{:.2}<td>{:.2}<td>{:.2}<td>{}<td>{}<td>{server}<td>{:.0} %</tr>",
            measured.answers_a_second,
            latency.p50,
            latency.p99,
            latency.p999,
            latency.max,
            measured.errors.values().sum::<u64>(),
            measured.missed,
            measured.core_busy.unwrap_or(measured.generator_cpu) * 100.0,
        );
    }
    table + "</table></div>\n"
}

/// Throughput against offered load, where there are rates to compare.
fn throughput(report: &Report) -> String {
    let mut points: Vec<[f64; 3]> = report
        .runs()
        .filter_map(|run| {
            let measured = run.measured.as_ref()?;
            Some([run.offered?, measured.answers_a_second, measured.latency_ms.p99])
        })
        .collect();
    if points.len() < 2 {
        return String::new();
    }
    points.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let curve = |at: usize| points.iter().map(|point| [point[0], point[at]]).collect::<Vec<_>>();
    let offered = points.iter().map(|point| [point[0], point[0]]).collect();
    let answered = [("answered".to_owned(), curve(1)), ("offered".to_owned(), offered)];
    let latency = [("p99".to_owned(), curve(2))];
    format!(
        "<h2>Throughput against offered load</h2>\n{}{}",
        plot("offered, requests/s", "right answers/s", &answered, false),
        plot("offered, requests/s", "latency, ms", &latency, true)
    )
}

fn run_plots(run: &RunReport, measured: &Measured) -> String {
    let over = |value: fn(&crate::drive::Row) -> f64| {
        measured.rows.iter().map(|row| [row.at, value(row)]).collect::<Vec<_>>()
    };
    let time = [
        ("p50".to_owned(), over(|row| row.p50)),
        ("p99".to_owned(), over(|row| row.p99)),
        ("max".to_owned(), over(|row| row.max)),
    ];
    let rate = [("answers/s".to_owned(), over(|row| row.answers_a_second))];
    // Nines: 0 is the lowest, 1 the 90th percentile, 2 the 99th.
    let nines = |share: f64| -(1.0 - share).max(1e-5).log10();
    let curve = measured.curve.iter().map(|[share, ms]| [nines(*share), *ms]).collect();
    format!(
        "<h2>{}</h2>\n<h3>Latency over time</h3>\n{}<h3>Answers over time</h3>\n{}<h3>Percentiles</h3>\n{}",
        escaped(&run.name),
        plot("seconds", "latency, ms", &time, true),
        plot("seconds", "right answers/s", &rate, false),
        plot("nines (1 = 90 %, 2 = 99 %, 3 = 99.9 %)", "latency, ms", &[("latency".to_owned(), curve)], true)
    )
}

fn about(report: &Report, signer: &str) -> String {
    let environment = &report.environment;
    let core = |core: Option<usize>| core.map_or_else(|| "any".to_owned(), |core| core.to_string());
    let lines = [
        ("began", report.began.clone()),
        ("processor", format!("{} × {}", environment.processors, environment.processor)),
        ("governor", environment.governor.clone()),
        ("memory", format!("{} MiB", environment.memory_mib)),
        ("kernel", environment.kernel.clone()),
        ("load before", environment.load_before.clone()),
        ("commit", environment.commit.clone()),
        ("version", environment.version.clone()),
        ("server's program, SHA-256", environment.server.clone()),
        ("processors of server, generator", format!("{}, {}", core(report.cores[0]), core(report.cores[1]))),
        ("signed with", signer.to_owned()),
    ];
    let mut table = "<h2>Where and with what</h2>\n<table>".to_owned();
    for (name, value) in lines {
        let _ = writeln!(table, "<tr><td>{}<td><code>{}</code></tr>", escaped(name), escaped(&value));
    }
    let plan = toml::to_string(&report.plan).unwrap_or_default();
    table + "</table>\n<h2>Scenario</h2>\n<pre>" + &escaped(&plan) + "</pre>\n"
}

/// Curves over one pair of axes; `log` makes the upright one logarithmic.
fn plot(x_name: &str, y_name: &str, curves: &[(String, Vec<[f64; 2]>)], log: bool) -> String {
    let scale = |y: f64| if log { y.max(1e-3).log10() } else { y };
    let points = || curves.iter().flat_map(|(_, points)| points);
    if points().next().is_none() {
        return "<p>nothing to show</p>\n".to_owned();
    }
    let bounds = |value: &dyn Fn(&[f64; 2]) -> f64| {
        let low = points().map(value).fold(f64::INFINITY, f64::min);
        let high = points().map(value).fold(f64::NEG_INFINITY, f64::max);
        (low, if high > low { high } else { low + 1.0 })
    };
    let (left, right) = bounds(&|point| point[0]);
    let (low, high) = bounds(&|point| scale(point[1]));
    let across = ticks(left, right);
    // Linear axes begin at zero, so that a curve cannot look steeper than it is. Upright ones end at a tick.
    let (low, high, up) = if log {
        let (low, high) = (low.floor(), high.ceil().max(low.floor() + 1.0));
        (low, high, decades(low, high))
    } else {
        let up = ticks(low.min(0.0), high);
        let step = up.windows(2).next().map_or(1.0, |pair| pair[1] - pair[0]);
        let end = (high / step).ceil() * step;
        (low.min(0.0), end, ticks(low.min(0.0), end))
    };
    let [width, height] = SIZE;
    let [head, edge, foot, side] = MARGIN;
    let x = |value: f64| side + (value - left) / (right - left) * (width - side - edge);
    let y =
        |value: f64| height - foot - (value - low) / (high - low).max(f64::EPSILON) * (height - foot - head);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{y} against {x}\" \
         font-size=\"{LETTER}\" font-family=\"system-ui,sans-serif\">\n",
        x = escaped(x_name),
        y = escaped(y_name)
    );
    for value in up {
        let _ = writeln!(
            svg,
            "<line x1=\"{side}\" x2=\"{end:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{label:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>",
            short(if log { 10_f64.powf(value) } else { value }),
            end = width - edge,
            at = y(value),
            label = side - 6.0,
            text = y(value) + 4.0,
        );
    }
    for value in across {
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{text:.1}\" text-anchor=\"middle\">{}</text>",
            short(value),
            at = x(value),
            text = height - foot + 16.0,
        );
    }
    let mut key = side;
    for ((name, points), colour) in curves.iter().zip(COLOURS) {
        let line: Vec<String> =
            points.iter().map(|point| format!("{:.1},{:.1}", x(point[0]), y(scale(point[1])))).collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>\
             <text x=\"{key:.1}\" y=\"14\" text-anchor=\"start\" fill=\"{colour}\">{}</text>",
            line.join(" "),
            escaped(name)
        );
        key += width_of(name) + 14.0;
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text></svg>",
        (side + width - edge) / 2.0,
        height - 8.0,
        escaped(x_name),
        (head + height - foot) / 2.0,
        escaped(y_name)
    );
    svg
}

/// At most how wide a text is.
fn width_of(text: &str) -> f64 {
    text.chars().map(|_| LETTER_WIDTH).sum()
}

/// Round numbers from `low` to `high`, three to seven of them: multiples of 1, 2 or 5 and a power of ten.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= rough * 0.99);
    let step = step.unwrap_or(10.0 * power);
    // A little beyond, for what rounding takes from a bound that is a tick.
    let end = high + step * 1e-6;
    (0_u32..)
        .map(|count| ((low / step - 1e-6).ceil() + f64::from(count)) * step)
        .take_while(|value| *value <= end)
        .collect()
}

/// The logarithms of the powers of ten between two of them; of a few powers also twice and five times each.
fn decades(low: f64, high: f64) -> Vec<f64> {
    let powers = ticks(low, high).into_iter().filter(|power| (power - power.round()).abs() < 1e-6);
    if high - low > 2.0 {
        return powers.collect();
    }
    let between = powers.flat_map(|power| [0.0, 2_f64.log10(), 5_f64.log10()].map(|more| power + more));
    between.filter(|value| *value <= high + 1e-6).collect()
}

/// A number as an axis shows it: thousands apart, no more digits than it has.
fn short(value: f64) -> String {
    // Rounded, for what arithmetic leaves behind the last digit. Never a minus before zero.
    let value = (value * 1e6).round() / 1e6 + 0.0;
    if value.abs() < 1_000.0 {
        return value.to_string();
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::Row;
    use crate::report::PhaseReport;
    use crate::sign;

    #[test]
    fn a_page_needs_no_network_and_escapes_what_it_shows() {
        let mut report = sign::tests::report("2026-01-01T00:00:00Z");
        report.scenario = "<script>alert(1)</script>".to_owned();
        let run = |offered: f64| {
            let text = format!(
                r#"{{"name": "open {offered}", "offered": {offered}, "seconds": 2.0, "measured": {{
                "answersASecond": {offered}, "answers": 10, "scheduled": 10, "missed": 0, "errors": {{}},
                "latencyMs": {{"p50": 1.0, "p90": 2.0, "p99": 3.0, "p999": 4.0, "max": 5.0}},
                "curve": [[0.0, 0.5], [0.5, 1.0], [1.0, 5.0]], "kinds": [], "rows": [], "handshakes": [1, 0],
                "generatorCpu": 0.5}}}}"#
            );
            let mut run: RunReport = serde_json::from_str(&text).unwrap();
            let row = |at| Row { at, answers_a_second: 5.0, errors: 0, p50: 1.0, p99: 3.0, max: 5.0 };
            run.measured.as_mut().unwrap().rows = vec![row(1.0), row(2.0)];
            run
        };
        report.phases = vec![PhaseReport { runs: vec![run(100.0), run(200.0)], knee: Some(200.0) }];
        let page = page(&report, "ab");
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
        assert!(!page.contains("://"), "nothing is fetched");
        assert!(!page.contains("NaN") && !page.contains("inf"), "no plot has a hole");
        // Two for throughput, three for each run.
        assert_eq!(page.matches("<svg").count(), 2 + 2 * 3);
        assert_eq!(page.matches("</svg>").count(), 2 + 2 * 3);
        assert!(page.contains("Throughput against offered load") && page.contains("p99"));
    }

    #[test]
    fn a_void_run_has_no_plot() {
        let mut report = sign::tests::report("2026-01-01T00:00:00Z");
        let run: RunReport =
            serde_json::from_str(r#"{"name": "closed loop", "seconds": 1.0, "void": "too busy"}"#).unwrap();
        report.phases = vec![PhaseReport { runs: vec![run], knee: None }];
        let page = page(&report, "ab");
        assert!(page.contains("too busy") && !page.contains("<svg"));
        assert!(page.contains("What to do") && page.contains("--generator-core"));
    }

    #[test]
    fn a_page_says_on_top_what_was_measured_and_when() {
        let mut report = sign::tests::report("2026-01-01T00:00:00Z");
        report.environment.version = "1.2.3".to_owned();
        report.environment.commit = "0123abc".to_owned();
        let page = page(&report, "ab");
        let (top, _) = page.split_once("<table").unwrap();
        assert!(top.contains("秒享 exchange 1.2.3 · commit 0123abc · 2026-01-01T00:00:00Z"), "{top}");
    }

    #[test]
    fn ticks_are_round_and_few() {
        for (low, high, all) in [
            (0.0, 24_589.0, &["0", "5,000", "10,000", "15,000", "20,000"][..]),
            (0.0, 10.0, &["0", "2", "4", "6", "8", "10"]),
            (1.0, 61.0, &["20", "40", "60"]),
            (0.0, 0.7, &["0", "0.2", "0.4", "0.6"]),
            (-3.0, 3.0, &["-2", "0", "2"]),
        ] {
            let shown: Vec<String> = ticks(low, high).into_iter().map(short).collect();
            assert_eq!(shown, all, "{low} to {high}");
        }
        let shown = |low, high| {
            decades(low, high).into_iter().map(|value| short(10_f64.powf(value))).collect::<Vec<_>>()
        };
        assert_eq!(shown(-1.0, 1.0), ["0.1", "0.2", "0.5", "1", "2", "5", "10"]);
        assert_eq!(shown(-1.0, 3.0), ["0.1", "1", "10", "100", "1,000"]);
        assert_eq!(short(-1_234_567.0), "-1,234,567");
    }

    #[test]
    fn each_label_is_whole_and_above_no_other() {
        let curves = |right: f64, high: f64| {
            ["p50", "p99", "a longer name"].map(|name| (name.to_owned(), vec![[0.0, 0.01], [right, high]]))
        };
        for (right, high) in
            [(1.0, 1.0), (119.0, 7.3), (1_200_000.0, 987_654.0), (0.3, 99_999.9), (86_400.0, 0.02)]
        {
            for log in [true, false] {
                let svg = plot("offered, requests/s", "right answers/s", &curves(right, high), log);
                let mut ends: Vec<(String, f64, f64)> = Vec::new();
                for label in svg.split("<text x=\"").skip(1) {
                    let (x, rest) = label.split_once("\" y=\"").unwrap();
                    let (y, rest) = rest.split_once("\" text-anchor=\"").unwrap();
                    let (anchor, rest) = rest.split_once('"').unwrap();
                    let text = rest.split_once('>').unwrap().1.split_once('<').unwrap().0;
                    let (at, wide) = (x.parse::<f64>().unwrap(), width_of(text));
                    let from = at
                        - wide
                            * match anchor {
                                "end" => 1.0,
                                "middle" => 0.5,
                                _ => 0.0,
                            };
                    assert!(from >= 0.0 && from + wide <= SIZE[0], "{text} is cut at {from}: {svg}");
                    for (row, begun, ended) in &ends {
                        assert!(
                            row != y || from >= *ended || from + wide <= *begun,
                            "{text} on another: {svg}"
                        );
                    }
                    ends.push((y.to_owned(), from, from + wide));
                }
                assert!(ends.len() > 6, "{svg}");
            }
        }
    }

    #[test]
    fn flat_and_single_curves_stay_within_the_plot() {
        for curve in [vec![[1.0, 5.0]], vec![[1.0, 0.0], [2.0, 0.0]]] {
            for log in [true, false] {
                let svg = plot("x", "y", &[("a".to_owned(), curve.clone())], log);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
        assert!(!plot("x", "y", &[], true).contains("<svg"));
    }
}
