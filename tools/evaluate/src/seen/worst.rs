//! The pictures that are worst by each measure, beside their renders, as a page for a browser and a sheet for each measure.

use std::fmt::Write as _;
use std::path::Path;

use ediffi_core::files::{read_bytes, write_with_folders};
use train_icons::render::Renderer;

use super::drawn::{read, write};
use super::views::reduced;
use crate::error::{Error, Result};
use crate::prompts::Prompt;

/// How many pictures of each measure are shown.
const SHOWN: usize = 10;
/// Side of the pictures of a sheet, in pixels.
const SIDE: u32 = 256;
/// Pictures in a row of a sheet: two pairs.
const COLUMNS: u32 = 4;

/// A measure of the pictures: what it is called, and what it is of each, if it is anything.
pub type Column = (&'static str, Vec<Option<f64>>);

/// The positions of the largest numbers, the largest first.
fn worst(values: &[Option<f64>]) -> Vec<(usize, f64)> {
    let mut found: Vec<(usize, f64)> =
        values.iter().enumerate().filter_map(|(place, value)| Some((place, (*value)?))).collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    found.truncate(SHOWN);
    found
}

/// Writes `index.html` with pictures and renders at full size, and a sheet of each measure, into `folder`.
pub fn page(
    folder: &Path,
    columns: &[Column],
    prompts: &[Prompt],
    pictures: &[std::path::PathBuf],
    renderer: &Renderer,
) -> Result<()> {
    let mut html = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>The worst pictures</title>\n\
         <style>body{font-family:sans-serif;background:#888}img{width:48vw;max-width:1024px}figure{margin:0 0 2em}</style>\n\
         <h1>The worst pictures by each measure, each beside its render</h1>\n",
    );
    let mut shown = vec![false; prompts.len()];
    for (title, values) in columns {
        let _ = writeln!(html, "<h2>{title}</h2>");
        let mut sheet = Vec::new();
        for (place, value) in worst(values) {
            let (Some(prompt), Some(path)) = (prompts.get(place), pictures.get(place)) else { continue };
            let names = [format!("{place:04}-picture.png"), format!("{place:04}-render.png")];
            let [picture_path, render_path] = names.each_ref().map(|name| folder.join(name));
            let picture = read(path)?;
            if !std::mem::replace(&mut shown[place], true) {
                write_with_folders(&picture_path, &read_bytes(path)?)?;
                let side = picture.width();
                write(&render_path, renderer.render(&prompt.scene, side)?, side, side)?;
            }
            sheet.extend([reduced(&picture, SIDE).into_raw(), reduced(&read(&render_path)?, SIDE).into_raw()]);
            let [picture, render] = names;
            let caption = &prompt.scene.caption;
            let _ = writeln!(
                html,
                "<figure><figcaption>{value:.2}: {caption}</figcaption><img src=\"{picture}\" alt=\"picture\"> \
                 <img src=\"{render}\" alt=\"render\"></figure>"
            );
        }
        let name: String = title.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        train_icons::sheet::write(&folder.join(format!("sheet-{name}.png")), &sheet, SIDE, COLUMNS)
            .map_err(Error::from)?;
    }
    Ok(write_with_folders(&folder.join("index.html"), html.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first() {
        let values = [Some(1.0), None, Some(3.0), Some(2.0)];
        assert_eq!(worst(&values), [(2, 3.0), (3, 2.0), (0, 1.0)]);
        let many: Vec<Option<f64>> = (0..40).map(|i| Some(f64::from(i))).collect();
        assert_eq!((worst(&many).len(), worst(&many)[0]), (SHOWN, (39, 39.0)));
    }
}
