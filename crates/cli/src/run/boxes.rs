//! What an answer says where things are, drawn into the picture.

use std::path::Path;

use anyhow::{Context, Result, bail};
use image::{Rgb, RgbImage};
use mistralrs::{Answer, BoundingBox, ChatRequest, MediaKind, Model};

use super::pictures;

/// Colours by turns, which are easy to tell apart.
const COLOURS: [(&str, [u8; 3]); 6] = [
    ("red", [230, 25, 75]),
    ("green", [60, 180, 75]),
    ("blue", [0, 130, 200]),
    ("orange", [245, 130, 48]),
    ("purple", [145, 30, 180]),
    ("cyan", [0, 200, 200]),
];

/// Draws the boxes of an answer into the one picture of its question, lists them on standard error, and returns them.
pub async fn draw(model: &Model, request: &ChatRequest, answer: &Answer, path: &Path) -> Result<Vec<BoundingBox>> {
    if model.family().boxes.is_none() {
        bail!("--draw-boxes: {} does not say where things are in a notation that is known", model.family().title);
    }
    let mut pictures = request.messages.iter().flat_map(|message| pictures(&message.content));
    let mut received = answer.received.iter().filter(|item| item.kind == MediaKind::Image);
    let (Some(source), None, Some(item)) = (pictures.next(), pictures.next(), received.next()) else {
        bail!("--draw-boxes is for questions about one picture");
    };
    let boxes = model.boxes(&answer.text, item);
    let picture = model.picture(source).await?;
    let pixels = RgbImage::from_raw(picture.width() as u32, picture.height() as u32, picture.rgb().to_vec());
    let mut pixels = pixels.context("the picture has other pixels than its size says")?;
    for (found, (name, colour)) in boxes.iter().zip(COLOURS.iter().cycle()) {
        frame(&mut pixels, found, Rgb(*colour));
        let BoundingBox { label, left, top, right, bottom } = found;
        eprintln!("{name}: {label} ({left:.0}, {top:.0}) to ({right:.0}, {bottom:.0})");
    }
    pixels.save_with_format(path, image::ImageFormat::Png).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("{} boxes drawn into {}", boxes.len(), path.display());
    Ok(boxes)
}

/// A frame inside the box's edges, as thick as a two-hundredth of the picture.
fn frame(picture: &mut RgbImage, found: &BoundingBox, colour: Rgb<u8>) {
    let (width, height) = picture.dimensions();
    let thick = (width.max(height) / 200).max(2);
    let within = |x: f64, end: u32| (x.round().max(0.0) as u32).min(end);
    let (left, right) = (within(found.left, width), within(found.right, width));
    let (top, bottom) = (within(found.top, height), within(found.bottom, height));
    for y in top..bottom {
        for x in left..right {
            let inside = [x - left, right - 1 - x, y - top, bottom - 1 - y];
            if inside.into_iter().min().is_some_and(|distance| distance < thick) {
                picture.put_pixel(x, y, colour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_on_the_edges_and_nothing_is_outside_of_the_picture() {
        let mut picture = RgbImage::new(12, 10);
        let found = BoundingBox { label: String::new(), left: 1.0, top: 2.0, right: 11.0, bottom: 90.0 };
        frame(&mut picture, &found, Rgb([255, 0, 0]));
        let rows: Vec<String> =
            picture.rows().map(|row| row.map(|pixel| if pixel.0[0] > 0 { '#' } else { '.' }).collect()).collect();
        let (none, edge, side) = ("............", ".##########.", ".##......##.");
        assert_eq!(rows, [none, none, edge, edge, side, side, side, side, edge, edge]);
    }
}
