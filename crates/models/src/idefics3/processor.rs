use media::{Clip, Image, ImageOptions, VideoInfo, VideoOptions};
use nn::MediaKind;
use nn::{Files, MediaInput};
use text::Piece;

use super::config::{Config, PIXELS, ProcessorConfig, VideoSampling};
use super::frames;
use crate::config::{CONFIG, PREPROCESSOR, require};
use crate::pixels::Pixels;
use crate::{Marker, Media, ModelError, Processed, Processor};

/// Longest side of an enlarged picture in pixels.
const SIDE_MAX: usize = 4096;
const AROUND: &str = "<fake_token_around_image>";
const GLOBAL: &str = "<global-img>";

struct Idefics3 {
    longest: usize,
    tile: usize,
    split: bool,
    video: Option<VideoSampling>,
    frame_longest: usize,
    pixels: Pixels,
    image_token: u32,
    rows_per_tile: usize,
}

/// Tiles of a picture: row by row, then the whole.
struct Tiles {
    views: Vec<Image>,
    rows: usize,
    columns: usize,
}

pub fn idefics3(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    Ok(Box::new(Idefics3::load(files, false)?))
}

pub fn smolvlm(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    Ok(Box::new(Idefics3::load(files, true)?))
}

impl Idefics3 {
    fn load(files: &Files, takes_video: bool) -> Result<Self, ModelError> {
        let model = Config::read(files)?;
        let config = ProcessorConfig::read(files)?;
        let pixels = Pixels::read(files, PIXELS)?;
        let tile = config.max_image_size.longest_edge.unwrap_or_default();
        let fits = tile == model.vision_config.image_size;
        require(fits, files, PREPROCESSOR, &format!("max_image_size must be vision_config.image_size of {CONFIG}"))?;
        let video = takes_video.then_some(config.video_sampling).flatten();
        require(!takes_video || video.is_some(), files, PREPROCESSOR, "there is no video_sampling")?;
        Ok(Self {
            longest: config.longest_edge(),
            tile,
            split: config.do_image_splitting,
            video,
            frame_longest: config.frame_longest_edge().unwrap_or(tile),
            pixels,
            image_token: model.image_token_id,
            rows_per_tile: model.rows_per_tile(),
        })
    }
}

impl Processor for Idefics3 {
    fn markers(&self) -> &'static [Marker] {
        const MARKERS: [Marker; 2] =
            [Marker { kind: MediaKind::Image, text: "<image>" }, Marker { kind: MediaKind::Video, text: "<video>" }];
        if self.video.is_some() { &MARKERS } else { &MARKERS[..1] }
    }

    fn sample(&self, clip: &VideoInfo, options: &VideoOptions) -> Vec<usize> {
        self.video.as_ref().map_or(vec![0], |sampling| frames::sample(clip, &sampling.with(options)))
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        let kind = media.kind();
        let (views, pieces) = match media {
            Media::Image(image, wanted) => {
                let tiles = self.tiles(&image, self.longest(image.width(), image.height(), &wanted));
                let pieces = self.picture(&tiles);
                (tiles.views, pieces)
            }
            Media::Video(clip) => {
                let pieces = self.clip(&clip);
                let view = |frame| Ok::<_, ModelError>(self.square(&self.enlarge(&frame, self.frame_longest)));
                (clip.each(view)?, pieces)
            }
            Media::Audio(_) => return Err(media.refused()),
        };
        let rows = views.len() * self.rows_per_tile;
        let input = MediaInput::new(kind, rows, [("pixel_values", self.pixels.planes(&views))]);
        Ok(Processed::seen(input, pieces, views))
    }
}

impl Idefics3 {
    /// The longer side of the enlarged picture: the family's own, or so many tiles fewer that no more is shown than is wanted.
    fn longest(&self, width: usize, height: usize, wanted: &ImageOptions) -> usize {
        let (pixels, tokens) = (wanted.most_pixels(width, height), wanted.max_tokens);
        let fits = |longest: &usize| {
            let (width, height) = self.enlarged(width, height, *longest);
            let (width, height) = if self.split { self.whole_tiles(width, height) } else { (self.tile, self.tile) };
            let tiles = width * height / self.tile.pow(2);
            let views = if tiles > 1 { tiles + 1 } else { 1 };
            width * height <= pixels.unwrap_or(usize::MAX) && views * self.rows_per_tile <= tokens.unwrap_or(usize::MAX)
        };
        let fewer = (1..self.longest.div_ceil(self.tile)).rev().map(|tiles| tiles * self.tile);
        std::iter::once(self.longest).chain(fewer).find(fits).unwrap_or(self.tile.min(self.longest))
    }

    fn tiles(&self, image: &Image, longest: usize) -> Tiles {
        let image = self.enlarge(image, longest);
        if !self.split {
            return Tiles { views: vec![self.square(&image)], rows: 0, columns: 0 };
        }
        let (width, height) = self.whole_tiles(image.width(), image.height());
        let image = image.resize(width, height, self.pixels.filter);
        let (rows, columns) = (height / self.tile, width / self.tile);
        if rows * columns == 1 {
            return Tiles { views: vec![image], rows: 0, columns: 0 };
        }
        let mut views: Vec<Image> = image.tiles(self.tile, self.tile).collect();
        views.push(self.square(&image));
        Tiles { views, rows, columns }
    }

    fn enlarge(&self, image: &Image, longest: usize) -> Image {
        let (width, height) = self.enlarged(image.width(), image.height(), longest);
        image.resize(width, height, self.pixels.filter)
    }

    /// The longer side becomes `longest`, the shorter keeps the proportion and is even.
    fn enlarged(&self, width: usize, height: usize, longest: usize) -> (usize, usize) {
        let longest = longest.min(SIDE_MAX);
        let aspect = width as f64 / height as f64;
        let even = |side: f64| (side as usize).next_multiple_of(2).max(1);
        match aspect >= 1.0 {
            true => (longest, even(longest as f64 / aspect)),
            false => (even(longest as f64 * aspect), longest),
        }
    }

    /// The nearest larger multiples of a tile, the longer side first.
    fn whole_tiles(&self, width: usize, height: usize) -> (usize, usize) {
        let aspect = width as f64 / height as f64;
        if width >= height {
            let width = width.next_multiple_of(self.tile);
            (width, ((width as f64 / aspect) as usize).next_multiple_of(self.tile))
        } else {
            let height = height.next_multiple_of(self.tile);
            (((height as f64 * aspect) as usize).next_multiple_of(self.tile), height)
        }
    }

    fn square(&self, image: &Image) -> Image {
        image.resize(self.tile, self.tile, self.pixels.filter)
    }

    fn slots(&self) -> Piece {
        Piece::Slots { token: self.image_token, count: self.rows_per_tile }
    }

    fn picture(&self, tiles: &Tiles) -> Vec<Piece> {
        if tiles.rows == 0 {
            return self.single().into();
        }
        let mut pieces = Vec::new();
        let mut before = String::new();
        for row in 1..=tiles.rows {
            for column in 1..=tiles.columns {
                before.push_str(&format!("{AROUND}<row_{row}_col_{column}>"));
                pieces.extend([Piece::Text(std::mem::take(&mut before)), self.slots()]);
            }
            before.push('\n');
        }
        before.push_str(&format!("\n{AROUND}{GLOBAL}"));
        pieces.extend([Piece::Text(before), self.slots(), Piece::Text(AROUND.into())]);
        pieces
    }

    fn single(&self) -> [Piece; 3] {
        [Piece::Text(format!("{AROUND}{GLOBAL}")), self.slots(), Piece::Text(AROUND.into())]
    }

    fn clip(&self, clip: &Clip) -> Vec<Piece> {
        let mut pieces = vec![Piece::Text(frames::introduction(clip.times.len(), &clip.info))];
        for &seconds in &clip.times {
            pieces.push(Piece::Text(frames::moment(seconds)));
            pieces.extend(self.single());
        }
        pieces.push(Piece::Text("\n\n".into()));
        pieces
    }
}
