//! The report as one HTML file that needs no network: tables, and plots as inline SVG.

use std::fmt::Write as _;

use crate::report::{Measured, Report, RunReport};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;\
color:#1a1a1a;background:#fff}table{border-collapse:collapse;margin:1rem 0}th,td{padding:.25rem .75rem;\
border-bottom:1px solid #ddd;text-align:right}th:first-child,td:first-child{text-align:left}svg{width:100%;\
max-width:44rem;height:auto}pre{background:#f4f4f4;padding:1rem;overflow:auto}.void{color:#b00020}\
code{word-break:break-all}";
/// Colours of curves, told apart by people with any colour vision (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/// Size of a plot and of its margins.
const SIZE: [f64; 2] = [640.0, 320.0];
const MARGIN: [f64; 2] = [64.0, 40.0];

/// The file; `signer` is the key that signed the report.
pub fn page(report: &Report, signer: &str) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>\n<p>{what}</p>\n",
        title = escaped(&format!("bench {}", report.scenario)),
        what = escaped(&report.plan.title),
    );
    if let Some(void) = report.void() {
        let _ = writeln!(page, "<p class=\"void\"><strong>Void:</strong> {}</p>", escaped(void));
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

fn runs_table(report: &Report) -> String {
    let mut table = "<table><tr><th>run<th>answers/s<th>p50 ms<th>p99<th>p99.9<th>max<th>errors<th>missed\
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
    table + "</table>\n"
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
    // Linear axes begin at zero, so that a curve cannot look steeper than it is.
    let (low, high) = if log { (low.floor(), high.ceil()) } else { (low.min(0.0), high) };
    let [width, height] = SIZE;
    let [side, foot] = MARGIN;
    let x = |value: f64| side + (value - left) / (right - left) * (width - side - 8.0);
    let y =
        |value: f64| height - foot - (value - low) / (high - low).max(f64::EPSILON) * (height - foot - 16.0);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{y} against {x}\" \
         font-size=\"11\" font-family=\"system-ui,sans-serif\">\n",
        x = escaped(x_name),
        y = escaped(y_name)
    );
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let (across, up) = (left + (right - left) * share, low + (high - low) * share);
        let shown = if log { 10_f64.powf(up) } else { up };
        let _ = writeln!(
            svg,
            "<line x1=\"{side}\" x2=\"{end:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{label:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{across_at:.1}\" y=\"{across_text:.1}\" text-anchor=\"middle\">{}</text>",
            short(shown),
            short(across),
            end = width - 8.0,
            at = y(up),
            label = side - 6.0,
            text = y(up) + 4.0,
            across_at = x(across),
            across_text = height - foot + 16.0,
        );
    }
    for ((name, points), (colour, number)) in curves.iter().zip(COLOURS.iter().zip(0_u32..)) {
        let line: Vec<String> =
            points.iter().map(|point| format!("{:.1},{:.1}", x(point[0]), y(scale(point[1])))).collect();
        let key = side + 8.0 + f64::from(number) * 90.0;
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>\
             <text x=\"{key:.1}\" y=\"12\" fill=\"{colour}\">{}</text>",
            line.join(" "),
            escaped(name)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate(12 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text></svg>",
        width / 2.0,
        height - 6.0,
        escaped(x_name),
        height / 2.0,
        escaped(y_name)
    );
    svg
}

/// A number with as many digits as an axis needs.
fn short(value: f64) -> String {
    match value.abs() {
        1_000.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
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
