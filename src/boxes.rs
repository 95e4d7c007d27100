//! Where an answer says that something is, in pixels of the picture that was sent.

use std::sync::LazyLock;

use models::Boxes;
use regex::{Captures, Regex};

use crate::{Extent, Model, Received};

/// Something in a picture. Numbers are pixels of the picture as it was sent, turned as it is meant to be seen.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundingBox {
    /// What the answer calls it; empty where it does not.
    pub label: String,
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Right edge.
    pub right: f64,
    /// Lower edge.
    pub bottom: f64,
}

/// The notations: JSON with a box of one of the usual names, two points, and four numbers between marks. The words before the latter two
/// say what it is.
static NOTATIONS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let number = r"\s*(-?\d+(?:\.\d+)?)\s*";
    let numbers = |by: &str| [number; 4].join(by);
    let json = format!(r#"\{{[^{{}}]*"(?:bbox_2d|box_2d|bbox)"\s*:\s*\[{}\][^{{}}]*\}}"#, numbers(","));
    let points = format!(r"\({number},{number}\)\s*,\s*\({number},{number}\)");
    let marks = format!("<box>{}</box>", numbers(r"[\s,]"));
    Regex::new(&format!("{json}|{points}|{marks}")).ok()
});
static LABEL: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#""label"\s*:\s*("(?:[^"\\]|\\.)*")"#).ok());
/// Control tokens of the notations.
static MARKS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"<[^<>]*>").ok());

impl Model {
    /// The boxes in what the model said about a picture, in their order; none where it is of a family that was not trained to say any.
    pub fn boxes(&self, text: &str, picture: &Received) -> Vec<BoundingBox> {
        let (Extent::Picture { width, height }, Some(units)) = (&picture.extent, self.inner.family.boxes) else {
            return Vec::new();
        };
        let shown = picture.views.first().copied().unwrap_or((*width, *height));
        find(text, units, (*width, *height), shown)
    }
}

/// `shown` is the size of the picture as the model was shown it.
fn find(text: &str, units: Boxes, size: (usize, usize), shown: (usize, usize)) -> Vec<BoundingBox> {
    let Some(notations) = &*NOTATIONS else { return Vec::new() };
    let (width, height) = (size.0 as f64, size.1 as f64);
    let whole = match units {
        Boxes::Thousandths | Boxes::ThousandthsByLine => (1000.0, 1000.0),
        Boxes::Pixels => (shown.0.max(1) as f64, shown.1.max(1) as f64),
    };
    let (mut found, mut behind) = (Vec::new(), 0);
    for captures in notations.captures_iter(text) {
        let Some(place) = captures.get(0) else { continue };
        let label = label(&captures, &text[behind..place.start()]);
        behind = place.end();
        let numbers = captures.iter().skip(1).flatten().filter_map(|number| number.as_str().parse::<f64>().ok());
        let Ok([a, b, c, d]) = <[f64; 4]>::try_from(numbers.collect::<Vec<_>>()) else { continue };
        let [left, top, right, bottom] = match units {
            Boxes::ThousandthsByLine => [b, a, d, c],
            Boxes::Thousandths | Boxes::Pixels => [a, b, c, d],
        };
        let [x, y] = [(left, right, width, whole.0), (top, bottom, height, whole.1)].map(|(first, second, side, whole)| {
            let pixel = |number: f64| (number * side / whole).clamp(0.0, side);
            (pixel(first.min(second)), pixel(first.max(second)))
        });
        found.push(BoundingBox { label, left: x.0, top: y.0, right: x.1, bottom: y.1 });
    }
    found
}

/// In JSON it is a value; otherwise the words of the same line before the box.
fn label(captures: &Captures, before: &str) -> String {
    let whole = captures.get(0).map_or("", |whole| whole.as_str());
    if whole.starts_with('{') {
        let label = LABEL.as_ref().and_then(|label| label.captures(whole)?.get(1));
        return label.and_then(|label| serde_json::from_str(label.as_str()).ok()).unwrap_or_default();
    }
    let line = before.lines().next_back().unwrap_or_default();
    let plain = MARKS.as_ref().map_or(line.into(), |marks| marks.replace_all(line, ""));
    plain.trim_matches(|c: char| c.is_whitespace() || ",;:.-".contains(c)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_becomes_pixels_of_the_picture_that_was_sent() {
        use Boxes::{Pixels, Thousandths, ThousandthsByLine};
        // The picture is 200 by 100, and shown as 400 by 400.
        let cases = [
            ("(100,200),(500,1000)", Thousandths, "", [20.0, 20.0, 100.0, 100.0]),
            (
                "<|object_ref_start|>the cat<|object_ref_end|><|box_start|>(100, 200), (500, 900)<|box_end|>",
                Thousandths,
                "the cat",
                [20.0, 20.0, 100.0, 90.0],
            ),
            (
                r#"```json
[{"bbox_2d": [40, 80, 200, 400], "label": "a \"dog\""}]"#,
                Pixels,
                "a \"dog\"",
                [20.0, 20.0, 100.0, 100.0],
            ),
            (r#"{"label": "cup", "box_2d": [200, 100, 900, 500]}"#, ThousandthsByLine, "cup", [20.0, 20.0, 100.0, 90.0]),
            ("A list:\n- <ref>tree</ref><box>100 200 500 900</box>", Thousandths, "tree", [20.0, 20.0, 100.0, 90.0]),
            // The other way round, and beyond the edge.
            (r#"{"bbox": [500.0, 2000, 100, 200]}"#, Thousandths, "", [20.0, 20.0, 100.0, 100.0]),
        ];
        for (text, units, label, [left, top, right, bottom]) in cases {
            let expected = BoundingBox { label: label.into(), left, top, right, bottom };
            assert_eq!(find(text, units, (200, 100), (400, 400)), [expected], "{text}");
        }
        let several = r#"[{"bbox_2d": [0,0,1000,1000], "label": "a"}, {"bbox_2d": [0,0,500,500], "label": "b"}]"#;
        let labels: Vec<String> = find(several, Thousandths, (10, 10), (1, 1)).into_iter().map(|found| found.label).collect();
        assert_eq!(labels, ["a", "b"]);
        for text in ["", "(1,2)", "{\"bbox_2d\": [1,2,3]}", "<box>1 2 3</box>", "f(1, 2), (3"] {
            assert_eq!(find(text, Thousandths, (10, 10), (1, 1)), [], "{text}");
        }
    }
}
