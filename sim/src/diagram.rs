//! The core's table as pictures: the phases and what follows what, and the matrix of what was met.
//!
//! Both are drawn from the table itself, so that they cannot lag behind it.

use std::fmt::Write as _;

use vmtask_core::table::{PhaseKind, Trigger, successors};

use crate::coverage::{Cell, Coverage};

/// Where each phase stands: column and row.
const fn place(phase: PhaseKind) -> (i32, i32) {
    use PhaseKind as K;
    match phase {
        K::Created => (0, 0),
        K::Probing => (1, 0),
        K::Registering => (2, 0),
        K::Provisioning => (3, 0),
        K::PoweringOn => (4, 0),
        K::AwaitingTools => (5, 0),
        K::LoggingIn => (5, 1),
        K::Examining => (4, 1),
        K::MakingWorkdir => (3, 1),
        K::CopyingIn => (2, 1),
        K::Launching => (1, 1),
        K::Running => (1, 3),
        K::BeginningSnapshot => (2, 2),
        K::Committing => (3, 2),
        K::Pruning => (4, 2),
        K::Pausing => (2, 3),
        K::Paused => (3, 3),
        K::Unpausing => (4, 3),
        K::CopyingOut => (1, 4),
        K::PoweringOff => (2, 4),
        K::Unregistering => (3, 4),
        K::Ended => (4, 4),
        K::Fencing => (5, 3),
    }
}

const WIDTH: i32 = 132;
const HEIGHT: i32 = 30;
const COLUMN: i32 = 172;
const ROW: i32 = 92;
const MARGIN: i32 = 16;

fn centre(phase: PhaseKind) -> (f64, f64) {
    let (column, row) = place(phase);
    (f64::from(MARGIN + column * COLUMN + WIDTH / 2), f64::from(MARGIN + row * ROW + HEIGHT / 2))
}

/// The phases, and an arrow for each two that may follow each other.
///
/// Those of an ordinary life are bold; what faults and requests add is thin.
#[must_use]
pub fn states_svg() -> String {
    let (width, height) = (2 * MARGIN + 5 * COLUMN + WIDTH, 2 * MARGIN + 4 * ROW + HEIGHT);
    let mut svg = head(width, height);
    svg.push_str(
        "<defs><marker id=\"a\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
         orient=\"auto-start-reverse\"><path d=\"M0 0 8 4 0 8z\" fill=\"context-stroke\"/></marker></defs>\n",
    );
    for thin in [true, false] {
        for from in PhaseKind::ALL {
            for &to in successors(from).iter().filter(|to| is_ordinary(from, **to) != thin) {
                arrow(&mut svg, from, to, thin);
            }
        }
    }
    for phase in PhaseKind::ALL {
        let (x, y) = centre(phase);
        let (left, top) = (x - f64::from(WIDTH) / 2.0, y - f64::from(HEIGHT) / 2.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\" fill=\"#eef3f8\" \
             stroke=\"#33506b\"/><text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{phase:?}</text>",
            y + 4.0,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// What happens in a life without faults: fresh or from a checkpoint, with checkpoints, a suspend and a resume.
const fn is_ordinary(from: PhaseKind, to: PhaseKind) -> bool {
    use PhaseKind as K;
    matches!(
        (from, to),
        (K::Created, K::Probing)
            | (K::Probing, K::Registering)
            | (K::Registering, K::Provisioning)
            | (K::Provisioning, K::PoweringOn)
            | (K::PoweringOn, K::AwaitingTools)
            | (K::AwaitingTools, K::LoggingIn)
            | (K::LoggingIn, K::MakingWorkdir | K::Examining)
            | (K::MakingWorkdir, K::CopyingIn)
            | (K::CopyingIn, K::Launching)
            | (K::Launching | K::Examining, K::Running)
            | (K::Running, K::BeginningSnapshot | K::Pausing | K::CopyingOut)
            | (K::BeginningSnapshot, K::Committing)
            | (K::Committing, K::Pruning)
            | (K::Pruning | K::Unpausing, K::Running)
            | (K::Pausing, K::Paused)
            | (K::Paused, K::Unpausing)
            | (K::CopyingOut, K::PoweringOff)
            | (K::PoweringOff, K::Unregistering)
            | (K::Unregistering, K::Ended)
    )
}

fn arrow(svg: &mut String, from: PhaseKind, to: PhaseKind, thin: bool) {
    let (start, end) = (centre(from), centre(to));
    let (dx, dy) = (end.0 - start.0, end.1 - start.1);
    // Bent to the right of its way, so that there and back are two lines, and more the farther it goes.
    let bend = 0.14;
    let middle = ((start.0 + end.0) / 2.0 - dy * bend, (start.1 + end.1) / 2.0 + dx * bend);
    let (start, end) = (edge_of_box(start, middle), edge_of_box(end, middle));
    let (colour, stroke) = if thin { ("#cfd8e1", 0.8) } else { ("#33506b", 1.6) };
    let _ = writeln!(
        svg,
        "<path d=\"M{:.1} {:.1}Q{:.1} {:.1} {:.1} {:.1}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{stroke}\" \
         marker-end=\"url(#a)\"/>",
        start.0, start.1, middle.0, middle.1, end.0, end.1
    );
}

/// Where the line from a box's centre towards a point leaves the box.
fn edge_of_box(centre: (f64, f64), towards: (f64, f64)) -> (f64, f64) {
    let (dx, dy) = (towards.0 - centre.0, towards.1 - centre.1);
    let reach = |d: f64, half: f64| if d == 0.0 { f64::INFINITY } else { half / d.abs() };
    let t = reach(dx, f64::from(WIDTH) / 2.0).min(reach(dy, f64::from(HEIGHT) / 2.0));
    (centre.0 + dx * t, centre.1 + dy * t)
}

/// The matrix: one row a phase, one column a trigger; the darker, the more often it was met.
#[must_use]
pub fn matrix_svg(coverage: &Coverage) -> String {
    const CELL: i32 = 18;
    const LEFT: i32 = 150;
    const TOP: i32 = 150;
    let columns = Trigger::ALL.len() as i32;
    let rows = PhaseKind::ALL.len() as i32;
    let mut svg = head(LEFT + columns * CELL + MARGIN + 90, TOP + rows * CELL + MARGIN);
    for (column, trigger) in (0..).zip(Trigger::ALL) {
        let x = LEFT + column * CELL + CELL / 2 + 4;
        let _ = writeln!(svg, "<text transform=\"translate({x} {}) rotate(-50)\">{trigger:?}</text>", TOP - 6);
    }
    for (row, phase) in (0..).zip(PhaseKind::ALL) {
        let y = TOP + row * CELL;
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{phase:?}</text>", LEFT - 8, y + CELL - 5);
        for (column, trigger) in (0..).zip(Trigger::ALL) {
            let (colour, word) = match coverage.cell(phase, trigger) {
                Cell::Met(count) => (shade(count), format!("met {count} times")),
                Cell::Impossible(why) => ("#f4f4f4", format!("impossible: {why}")),
                Cell::Missed => ("#d9480f", "missed".to_owned()),
            };
            let x = LEFT + column * CELL;
            let inner = CELL - 2;
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{inner}\" height=\"{inner}\" fill=\"{colour}\">\
                 <title>{phase:?}, {trigger:?}: {word}</title></rect>"
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

const fn shade(count: u64) -> &'static str {
    match count {
        0..=9 => "#bcd4ea",
        10..=999 => "#7fa9cf",
        1000..=99_999 => "#3f74a3",
        _ => "#1d4266",
    }
}

fn head(width: i32, height: i32) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} \
         {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    )
}
