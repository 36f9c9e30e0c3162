//! The chart: three questions, four bars each, the same colour for the same arm.

use std::fmt::Write as _;

use super::report::{Figures, Report, ratio};

const WIDTH: u32 = 960;
const HEIGHT: u32 = 420;
const PANEL: u32 = 300;
const LEFT: u32 = 30;
/// Where bars stand, and how tall the tallest is.
const GROUND: u32 = 340;
const TALLEST: f64 = 220.0;
/// By arm: grey without a virtual machine, blue with; the darker ones take checkpoints. Told apart in print, too.
const COLOURS: [&str; 4] = ["#c9c9c9", "#8a8a8a", "#8fc1e8", "#1f6fb2"];

struct Panel {
    title: &'static str,
    note: &'static str,
    unit: &'static str,
    figure: fn(&Figures) -> f64,
}

const PANELS: [Panel; 3] = [
    Panel {
        title: "Copies per workunit",
        note: "2 is the least that redundancy can do with",
        unit: "",
        figure: Figures::copies_per_workunit,
    },
    Panel {
        title: "Days for a workunit",
        note: "95 of 100 are decided within this time",
        unit: " d",
        figure: |figures| ratio(figures.slow_s, 86_400),
    },
    Panel {
        title: "Work done again",
        note: "of all computing: after crashes and switching off",
        unit: " %",
        figure: Figures::done_again_percent,
    },
];

pub(super) fn svg(report: &Report) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>What virtual machines and checkpoints buy a volunteer-computing project</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"17\">{} computers, {} workunits, simulated (seed {})</text>\n",
        report.hosts, report.workunits, report.seed
    );
    for (at, panel) in (0..).zip(&PANELS) {
        draw(&mut svg, LEFT + at * (PANEL + 10), panel, &report.arms);
    }
    for (at, (figures, colour)) in (0..).zip(report.arms.iter().zip(COLOURS)) {
        let x = LEFT + at * 230;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"385\" width=\"14\" height=\"14\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"397\">{}, {}</text>",
            x + 20,
            figures.arm.where_it_runs(),
            figures.arm.what_is_kept()
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, left: u32, panel: &Panel, arms: &[Figures]) {
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"62\" font-size=\"15\" font-weight=\"bold\">{}</text>\
         <text x=\"{left}\" y=\"80\" font-size=\"11\" fill=\"#555\">{}</text>",
        panel.title, panel.note
    );
    let largest = arms.iter().map(panel.figure).fold(0.0, f64::max);
    for (at, (figures, colour)) in (0..).zip(arms.iter().zip(COLOURS)) {
        let figure = (panel.figure)(figures);
        let height = if largest > 0.0 { TALLEST * figure / largest } else { 0.0 };
        let (x, top) = (left + at * 66, f64::from(GROUND) - height);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{top:.1}\" width=\"52\" height=\"{height:.1}\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"middle\">{figure:.2}{}</text>",
            x + 26,
            top - 6.0,
            panel.unit
        );
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{left}\" y1=\"{GROUND}\" x2=\"{}\" y2=\"{GROUND}\" stroke=\"#333\"/>\
         <text x=\"{}\" y=\"358\" text-anchor=\"middle\" fill=\"#555\">without VM</text>\
         <text x=\"{}\" y=\"358\" text-anchor=\"middle\" fill=\"#555\">with VM</text>",
        left + 250,
        left + 59,
        left + 191
    );
}
