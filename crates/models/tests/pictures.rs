//! What a request wants of a picture, family by family: how many tokens stand for it, and what the encoder looks at.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use media::{Detail, Image, ImageOptions};
use mistralrs_models::{Family, Media, ModelError, Processed};
use nn::{Files, MediaKind};

const NONE: ImageOptions = ImageOptions { detail: None, min_pixels: None, max_pixels: None, max_tokens: None, max_edge: None };

/// A picture of 800 x 600 pixels, as the family of a fixture sees it.
fn processed(name: &str, options: ImageOptions) -> Processed {
    let files = Files::Folder(fixtures::model(name).unwrap());
    let family = Family::of(&files).unwrap();
    let image = Image::new(800, 600, vec![128; 800 * 600 * 3]).unwrap();
    (family.processor)(&files).unwrap().process(Media::Image(image, options)).unwrap()
}

#[test]
fn pictures_are_shown_as_they_are_wanted() {
    let tokens = |most| ImageOptions { max_tokens: Some(most), ..NONE };
    let pixels = |most| ImageOptions { max_pixels: Some(most), ..NONE };
    let edge = |most| ImageOptions { max_edge: Some(most), ..NONE };
    let detail = |detail| ImageOptions { detail: Some(detail), ..NONE };
    // Family, what is wanted, tokens, how many views of what size.
    let cases = [
        // As many pixels as are wanted, up to the family's own limit.
        ("qwen2_vl", NONE, 6, (1, (84, 56))),
        ("qwen2_vl", pixels(2000), 1, (1, (28, 28))),
        ("qwen2_vl", tokens(4), 2, (1, (56, 28))),
        ("qwen2_vl", edge(30), 1, (1, (28, 28))),
        ("qwen2_vl", pixels(64_000_000), 6, (1, (84, 56))),
        // Any budget up to the largest.
        ("gemma4", NONE, 63, (1, (108, 84))),
        ("gemma4", tokens(20), 15, (1, (60, 36))),
        ("gemma4", edge(100), 48, (1, (96, 72))),
        ("gemma4", detail(Detail::High), 192, (1, (192, 144))),
        ("gemma4", ImageOptions { min_pixels: Some(15_000), ..NONE }, 108, (1, (144, 108))),
        // Enlarged in any case, to fewer tiles.
        ("idefics3", NONE, 40, (10, (48, 48))),
        ("idefics3", tokens(20), 20, (5, (48, 48))),
        ("idefics3", edge(100), 4, (1, (48, 48))),
        // Reduced before the family's own rule, where that is of use.
        ("mistral3", NONE, 20, (1, (140, 112))),
        ("mistral3", edge(100), 12, (1, (112, 84))),
        ("mistral3", tokens(4), 4, (1, (56, 56))),
        ("llama4", NONE, 80, (5, (56, 56))),
        ("llama4", tokens(20), 16, (1, (56, 56))),
        ("minicpmo", NONE, 45, (5, (70, 42))),
        ("minicpmo", tokens(20), 9, (1, (70, 42))),
        // Never fewer than this.
        ("llama4", tokens(4), 80, (5, (56, 56))),
        ("gemma3", tokens(4), 16, (1, (56, 56))),
        ("phi3v", tokens(4), 313, (1, (336, 336))),
        ("mllama", tokens(1), 1, (4, (56, 56))),
    ];
    for (name, options, tokens, (views, size)) in cases {
        let made = processed(name, options);
        let found = (made.tokens(), (made.views.len(), (made.views[0].width(), made.views[0].height())));
        assert_eq!(found, (tokens, (views, size)), "{name} {options:?}");
    }
}

/// M3: pictures of every size are seen or refused.
#[test]
fn no_size_is_too_odd() {
    for name in fixtures::names().unwrap() {
        let files = Files::Folder(fixtures::model(&name).unwrap());
        let family = Family::of(&files).unwrap();
        if !family.modalities.contains(&MediaKind::Image) {
            continue;
        }
        let processor = (family.processor)(&files).unwrap();
        for (width, height) in [(1, 1), (1, 64), (64, 1), (3, 7), (1, 4096), (4096, 1), (27, 29), (2, 16_384), (447, 449)] {
            let image = Image::new(width, height, vec![128; width * height * 3]).unwrap();
            match processor.process(Media::Image(image, NONE)) {
                Ok(made) => assert!(made.tokens() > 0 && !made.views.is_empty(), "{name}: {width} x {height}"),
                Err(e) => assert!(matches!(e, ModelError::Unusable(_)), "{name}: {width} x {height}: {e}"),
            }
        }
    }
}
