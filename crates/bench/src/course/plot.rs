//! The figures as a picture: how far each lies from its bar, on a logarithmic scale.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::figure::Figure;

const WIDTH: u32 = 1100;
const ROW: u32 = 26;
const TOP: u32 = 60;
/// Where the bars begin: the names stand left of it.
const LEFT: i32 = 560;
/// A bar this long is eight times better or worse than asked; longer ones are cut.
const REACH: i32 = 250;
const REACH_LOG2: f64 = 3.0;

const GOOD: RGBColor = RGBColor(0x2e, 0x7d, 0x32);
const BAD: RGBColor = RGBColor(0xc6, 0x28, 0x28);

/// Writes `NAME.svg` into `directory`. Figures without a bar or a measurement are left out.
pub(crate) fn write(directory: &Path, name: &str, figures: &[Figure]) -> Result<()> {
    let rows: Vec<(&Figure, f64)> =
        figures.iter().filter_map(|figure| Some((figure, figure.margin()?))).collect();
    let path = directory.join(format!("{name}.svg"));
    let height = TOP + ROW * rows.len() as u32 + ROW;
    let area = SVGBackend::new(&path, (WIDTH, height)).into_drawing_area();
    draw(&area, name, &rows, height).map_err(|error| anyhow!("could not draw {}: {error}", path.display()))
}

fn draw<D: DrawingBackend>(
    area: &DrawingArea<D, plotters::coord::Shift>,
    name: &str,
    rows: &[(&Figure, f64)],
    height: u32,
) -> Result<(), DrawingAreaErrorKind<D::ErrorType>> {
    let middle = LEFT + REACH;
    let label = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    let aligned = |size, side| label(size).pos(Pos::new(side, VPos::Center));
    area.fill(&WHITE)?;
    area.draw(&Text::new(format!("rackmem {name}: measured against the bar"), (20, 14), label(18)))?;
    for (text, x) in [("8 × worse", LEFT), ("bar", middle), ("8 × better", middle + REACH)] {
        area.draw(&Text::new(text, (x, 46), aligned(12, HPos::Center)))?;
    }
    for (row, (figure, margin)) in rows.iter().enumerate() {
        let y = (TOP + ROW * row as u32 + ROW / 2) as i32;
        let reach = (margin.log2() / REACH_LOG2).clamp(-1.0, 1.0) * f64::from(REACH);
        let color = if figure.reached() == Some(true) { GOOD } else { BAD };
        let bar = [(middle, y - 8), (middle + reach as i32, y + 8)];
        area.draw(&Rectangle::new(bar, color.filled()))?;
        area.draw(&Text::new(figure.name.clone(), (LEFT - 12, y), aligned(12, HPos::Right)))?;
        let (side, x) = if reach >= 0.0 { (HPos::Right, middle - 6) } else { (HPos::Left, middle + 6) };
        area.draw(&Text::new(figure.measured_text(), (x, y), aligned(12, side)))?;
    }
    area.draw(&PathElement::new([(middle, TOP as i32), (middle, (height - ROW) as i32)], BLACK))?;
    area.present()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::course::figure::Bar;

    #[test]
    fn the_plot_names_every_figure_with_a_bar() {
        let directory = tempfile::tempdir().unwrap();
        let figures = [
            Figure::ratio("good one", Some(4.0), Some((Bar::AtLeast, 2.0))),
            Figure::ratio("without a bar", Some(4.0), None),
        ];
        write(directory.path(), "engine", &figures).unwrap();
        let svg = std::fs::read_to_string(directory.path().join("engine.svg")).unwrap();
        assert!(svg.contains("good one") && !svg.contains("without a bar"));
    }
}
